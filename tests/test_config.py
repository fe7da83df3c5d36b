"""Configs: strict keywords, suggestions, comparison, round trip."""

import json

import ml_collections
import pytest

from configs import common
from genjax import config as config_lib
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


@pytest.mark.parametrize(('assignment', 'words'), [
  ('steps', 'key=value'), ('stepz=3', "Did you mean 'steps'"), ('steps=x', 'takes int'), ('checkpoint.asynchronous=3', 'takes bool')])
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
  config_lib.check_finite(config)
  config.sampler = dict(scale=float('nan'), interval=(0.0, float('inf')))
  with pytest.raises(UserError, match=r'config\.sampler\.interval=\[0\.0, inf\], config\.sampler\.scale=nan'):
    config_lib.check_finite(config)


def test_arguments_are_typed_by_their_defaults():
  arg = common.parse_arg('model=B,smoke,rate=2', model='S', smoke=False, rate=0.5)
  assert arg == ml_collections.ConfigDict(dict(model='B', smoke=True, rate=2.0))
  for text in ('mode=B', 'smoke=3', 'rate=fast'):
    with pytest.raises(ValueError):
      common.parse_arg(text, model='S', smoke=False, rate=0.5)
