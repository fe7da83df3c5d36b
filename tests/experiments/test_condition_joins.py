"""How text encoders are joined for PixArt, Stable Diffusion 3 and Flux; the scale of guidance as a condition."""

import importlib

import jax
import numpy as np
import pytest

from genjax import config as config_lib
from genjax.experiments import condition_joins as joins
from genjax.experiments import conditions, latents
from genjax.objectives.kinds import TextEncoder
from genjax.runs import sampling
from genjax.types import UserError


def encoder(width, pooled=0):
  return TextEncoder(width, 5, lambda texts, truncate: (None, None), lambda *arguments: {}, pooled_width=pooled)


def found(length, width, pooled=3):
  draw = np.random.default_rng(width).normal
  return {'tokens': draw(size=(2, length, width)), 'mask': np.ones((2, length), bool), 'pooled': draw(size=(2, pooled))}


def test_pixart_reads_lower_case_and_keeps_the_mask():
  join = joins.JOINS['pixart']()
  assert join.prepare(' A Red Circle\n') == 'a red circle'
  assert join.options(0, 0, 300) == dict(context=300, padding=False)
  assert join.network([encoder(20)]) == {'token_width': 20} and join.lengths == (120,)
  assert set(join.give([found(5, 20)])) == {'tokens', 'tokens_mask'}


@pytest.mark.parametrize('third', [True, False])
def test_sd3_puts_two_clips_before_t5_or_before_zeros(third):
  join = joins.sd3() if third else joins.sd3(width=30, absent=4)
  encoders, outputs = [encoder(8, 6), encoder(12)], [found(5, 8, 6), found(5, 12, 12)]
  if third:
    encoders, outputs = [*encoders, encoder(30)], [*outputs, found(4, 30)]
  assert join.network(encoders) == {'token_width': 30, 'vector_width': 18}
  given = join.give(outputs)
  assert given['tokens'].shape == (2, 9, 30) and 'tokens_mask' not in given
  np.testing.assert_allclose(given['tokens'][:, :5, 8:20], outputs[1]['tokens'], rtol=1e-6)
  assert not np.any(given['tokens'][:, :5, 20:]) and bool(np.any(given['tokens'][:, 5:])) == third
  np.testing.assert_allclose(given['vector'], np.concatenate([each['pooled'] for each in outputs[:2]], -1), rtol=1e-6)
  assert [join.options(index, 1, 0)['padding'] for index in range(3)] == [True] * 3
  assert join.options(0, 1, 0) == dict(skip=2, norm=False, padding=True) and join.options(2, 1, 256)['context'] == 256


def test_flux_reads_the_vector_of_clip_and_the_tokens_of_t5():
  join = joins.flux()
  assert join.network([encoder(8), encoder(20)]) == {'token_width': 20, 'vector_width': 8}
  outputs = [found(5, 8, 8), found(6, 20)]
  given = join.give(outputs)
  assert given['tokens'] is outputs[1]['tokens'] and given['vector'] is outputs[0]['pooled'] and len(given) == 2


@pytest.mark.parametrize('join, encoders, message', [
  (joins.sd3(), [encoder(8)], 'reads two CLIPs'), (joins.sd3(), [encoder(8), encoder(8)], 'set join_options.width'),
  (joins.sd3(), [encoder(8), encoder(8), encoder(12)], 'of 16 channels, with zeros to those of T5, 12'),
  (joins.flux(), [encoder(8)], 'a CLIP and a T5')])
def test_encoders_that_do_not_fit(join, encoders, message):
  with pytest.raises(UserError, match=message):
    join.network(encoders)


def config_of(**options):
  config = importlib.import_module('genjax.configs.diffusion.flux').get_config('model=dev,smoke')
  with config.unlocked():
    config.conditions.guidance.update(options)
  return config


def made_of(config):
  space = latents.space(config)
  return conditions.of(config, space.shape, space.open)


def test_the_scale_of_guidance_is_told_in_training_and_asked_for_in_samples():
  told = made_of(config_of(scale=2.5))
  rows = told.source(told._scopes['guidance'].open('train', ('text',)), ('image',)).get(np.arange(3))
  np.testing.assert_array_equal(rows['guidance_scale'], np.float32([2.5] * 3))
  assert told.example['guidance_scale'] == jax.ShapeDtypeStruct((), np.float32)
  condition = told.conditions['guidance']
  assert condition.default(7) == np.float32(2.5) and condition.parse('4') == np.float32(4)
  assert 'negative_guidance' not in told.conditions and 'negative_text' in told.conditions
  given = told.conditioners['guidance'].encode({}, {'guidance_scale': rows['guidance_scale']})
  assert set(given) == {'guidance'}
  for value in ('much', '-1', 'nan'):
    with pytest.raises(UserError, match='a number of at least 0'):
      condition.parse(value)


def test_rows_of_one_number_are_asked_for_by_number():
  config = config_of()
  with config.unlocked():
    config.conditions.label = dict(kind='classes', num_classes=12)
  known = made_of(config).conditions
  assert sampling.read(known, {'label': [3, 11], 'guidance': 2.0}) == {'label': ['3', '11'], 'guidance': [2.0]}


def test_a_scale_that_no_network_reads_is_refused():
  config = config_of()
  with config.unlocked():
    config.model.guidance = False
  with pytest.raises(UserError, match='set config.model.guidance'):
    made_of(config)
  with pytest.raises(UserError, match='dropout must be 0'):
    made_of(config_of(dropout=0.1))
  with pytest.raises(UserError, match='scale must'):
    made_of(config_of(scale=-1.0))
  assert config_lib.plain(config_of().conditions.guidance)['scale'] == 3.5
