"""Configs: strict keywords, suggestions, comparison, round trip."""

import json
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from genjax import config as config_lib
from genjax.configs import common
from genjax.types import UserError


def make(width: int, depth: int = 2, *, rate: float = 0.0):
  """Stands for a constructor."""
  return width, depth, rate


def test_build_is_strict():
  assert config_lib.build(make, {'name': 'x', 'width': 3}, 'config.model', rate=0.5) == (3, 2, 0.5)
  with pytest.raises(UserError, match=r"config.model.widht .*Did you mean 'width'"):
    config_lib.build(make, {'widht': 3}, 'config.model')
  with pytest.raises(UserError, match=r"lacks \['width'\]"):
    config_lib.build(make, {}, 'config.model')
  with pytest.raises(UserError, match='config.model.rate'):
    config_lib.build(make, {'width': 1, 'rate': 1.0}, 'config.model', rate=0.5)


def test_choose_names_what_there_is():
  with pytest.raises(UserError, match=r"config.sampler.name must be one of \['euler', 'heun'\], got 'huen'.*'heun'"):
    config_lib.choose({'euler': 1, 'heun': 2}, 'huen', 'config.sampler.name')


def test_difference_and_round_trip():
  config = common.base(steps=3, batch_size=4)
  config.model = dict(shape=(1, 2), name='x')
  again = config_lib.from_plain(json.loads(json.dumps(config_lib.plain(config))))
  assert not config_lib.difference(config, again)
  assert again.model.shape == (1, 2)
  again.steps = 5
  assert config_lib.difference(config, again) == {'steps': (3, 5)}


@pytest.mark.parametrize(('assignment', 'words'), [('steps', 'key=value'), ('stepz=3', "Did you mean 'steps'"),
                                                   ('steps=x', 'takes int'),
                                                   ('checkpoint.asynchronous=3', 'takes bool')])
def test_override_errors(assignment, words):
  with pytest.raises(UserError, match=words):
    config_lib.override(common.base(steps=3, batch_size=4).lock(), assignment)


def test_override():
  config = common.base(steps=3, batch_size=4).lock()
  for assignment in ('steps=7', 'checkpoint.asynchronous=false', 'checkpoint.best=loss'):
    config_lib.override(config, assignment)
  assert (config.steps, config.checkpoint.asynchronous, config.checkpoint.best) == (7, False, 'loss')


def test_numbers_that_json_lacks_are_named():
  config = common.base(steps=3, batch_size=4)
  config_lib.check(config)
  for value in (float('nan'), (0.0, float('inf')), ((1.0, float('-inf')),), np.float32('nan')):
    config.sampler = dict(scale=value)
    with pytest.raises(UserError, match=r'config\.sampler\.scale must be finite, got '):
      config_lib.check(config)


@pytest.mark.parametrize(
  'value',
  [np.float32(0.1), np.int64(3),
   pathlib.Path('x'), {1, 2}, len, b'x', (1, np.ones(2)), jnp.bfloat16])
def test_what_json_cannot_write_is_named(value):
  config = common.base(steps=3, batch_size=4)
  config.data = dict(inner=dict(entry=value))
  with pytest.raises(UserError, match=r'config\.data\.inner\.entry must be '):
    config_lib.check(config)


@pytest.mark.parametrize('text', ['1' * 5000, '1' * 400, '[' * 100_000])
def test_overrides_of_many_digits(text):
  def override(key):
    config = common.base(steps=3, batch_size=4).lock()
    config_lib.override(config, f'{key}={text}')
    config_lib.check(config)

  for key in ('steps', 'lora.alpha'):
    with pytest.raises(UserError, match=rf'config.*{key}'):
      override(key)


def test_arguments_are_typed_by_their_defaults():
  arg = common.parse_arg('model=B,smoke,rate=2', model='S', smoke=False, rate=0.5)
  assert arg == ml_collections.ConfigDict(dict(model='B', smoke=True, rate=2.0))
  for text in ('mode=B', 'smoke=3', 'rate=fast'):
    with pytest.raises(ValueError):
      common.parse_arg(text, model='S', smoke=False, rate=0.5)
