"""The measure of attributes, the kind of part that judges them, and the code of patches that runs keep."""

import dataclasses
import json
import types

import numpy as np
import pytest

import genjax
from genjax import config as config_lib
from genjax import tables
from genjax.configs import quickstart_text
from genjax.configs.classifiers import sprites_attributes
from genjax.data import sources
from genjax.data.scenes import drawing
from genjax.data.sources import Arrays
from genjax.experiments import attributes as builder
from genjax.experiments import images, patch_codes
from genjax.experiments.measuring import attributes, chosen
from genjax.experiments.measuring.options import Options
from genjax.runs import builders
from genjax.types import UserError


def scenes_config():
  config = quickstart_text.get_config('smoke')
  with config.unlocked():
    config.evaluation.compared = 50
  return config


def measured(config, image_NHWC, texts):
  """The values of the measure for given samples."""
  options = config_lib.build(Options, config.evaluation, 'config.evaluation')
  metric, = chosen.of_images(config, options, None, lambda: 0.0)
  metric.check()
  return metric.compute(lambda num, conditions: {'image': image_NHWC[:num], 'text': texts[:num]}, 0), metric.card


@pytest.fixture(scope='module')
def heldout():
  return drawing.Scenes((36, 36, 3), 1000, seed=1, heldout=True).get(np.arange(8))


def test_true_pictures_have_all_attributes(heldout):
  values, card = measured(scenes_config(), heldout['image'], heldout['text'])
  names = ('number', 'colour', 'shape', 'size', 'place', 'relation', 'all')
  assert {values[name] for name in names} == {1.0}
  assert values['unseen_all'] == values['seen_all'] == values['real_all'] == 1.0
  assert card['extractor'] == {'name': 'geometry'} and card['num_samples'] == 8
  assert 'spread' not in values and 0 <= values['copies'] <= 1


def test_shares_are_of_those_that_are_asked_for(heldout):
  images = heldout['image'].copy()
  images[3] = 30  # an empty picture, where a held-out relation is asked for
  values, _ = measured(scenes_config(), images, heldout['text'])
  assert values['all'] == 7 / 8 and values['seen_all'] == 1.0 and values['unseen_all'] == 0.5
  assert values['relation'] == 3 / 4 and values['place'] == 1.0 and values['unseen_relation'] == 0.5


def test_prompts_that_come_again_give_a_spread(heldout):
  images = np.minimum(heldout['image'], 200)
  images[4:] = images[:4]
  images[4] += 51
  texts = np.concatenate([heldout['text'][:4]] * 2)
  values, _ = measured(scenes_config(), images, texts)
  np.testing.assert_allclose(values['spread'], 0.2 / 4, rtol=1e-6)


def test_a_training_picture_is_a_copy(heldout):
  train = drawing.Scenes((36, 36, 3), 2**20, seed=0).get(np.arange(8))
  assert measured(scenes_config(), train['image'], heldout['text'])[0]['copies'] == 1.0
  assert measured(scenes_config(), heldout['image'], heldout['text'])[0]['copies'] < 1.0


def test_a_judge_network_reads_what_columns_say():
  """The truth is in the columns of the held-out split; a caption that it lacks is refused."""
  random = np.random.default_rng(0)
  labels = {'tone': random.integers(0, 2, 6).astype(np.int32), 'hue': random.integers(0, 3, 6).astype(np.int32)}
  texts = np.asarray([f'row {row}' for row in range(6)], object)
  held = np.asarray([0, 0, 0, 1, 1, 1], np.int32)
  source = Arrays({'image': np.zeros((6, 4, 4, 3), np.uint8), 'text': texts, 'held': held, **labels})
  logits = {name: np.eye(3)[values] for name, values in labels.items()}
  logits['hue'] = np.roll(logits['hue'], 1, axis=1)  # a judge that is always wrong about one of both
  extractor = types.SimpleNamespace(card={}, apply=lambda function: lambda rows: {
    name: values[:len(rows)] for name, values in logits.items()}, functions=types.SimpleNamespace(
      classes={'tone': 2, 'hue': 3}, predict=None))
  judge = attributes.Network(extractor, lambda rows: rows, source, 'text', 'held')
  captions = [f'row {row}' for row in range(6)]
  right = judge.right(captions, np.zeros((6, 4, 4, 3), np.uint8))
  assert right['tone'].tolist() == [1.0] * 6 and right['hue'].tolist() == [0.0] * 6
  assert judge.unseen(captions).tolist() == [False] * 3 + [True] * 3
  with pytest.raises(UserError, match='none of them'):
    judge.right(['row 7'], np.zeros((1, 4, 4, 3), np.uint8))


def test_the_measure_needs_a_judge_for_other_data():
  config = scenes_config()
  with config.unlocked():
    config.data.name = 'captioned_shapes'
  options = config_lib.build(Options, config.evaluation, 'config.evaluation')
  metric, = chosen.of_images(config, options, None, lambda: 0.0)
  with pytest.raises(UserError, match="kind 'attributes'"):
    metric.check()


def test_a_code_is_fitted_once_and_kept(tmp_path):
  config = scenes_config()
  options = patch_codes.read(config)
  fitted = patch_codes.code(config, options)
  assert patch_codes.shape(config, options) == (3, 3, 8)
  (name, data), = patch_codes.file(fitted).items()
  (tmp_path / name).write_bytes(data)
  with config.unlocked():
    config.assets.folder = str(tmp_path)
    config.data.name = 'gone'  # a kept code needs no data
  kept = patch_codes.code(config, options)
  for field in dataclasses.fields(fitted):
    np.testing.assert_array_equal(getattr(kept, field.name), getattr(fitted, field.name))
  with pytest.raises(UserError, match='set config.code as in that run'):
    patch_codes.code(config, dataclasses.replace(options, kept=9))
  (tmp_path / name).write_bytes(data[:50])
  with pytest.raises(UserError, match='damaged'):
    patch_codes.code(config, options)


@pytest.mark.parametrize('changes, message', [
  ({'code.patch': 5}, 'must divide'), ({'code.kept': 500}, 'make it smaller'), ({'code.whitening': 2.0}, 'whitening'),
  ({'data.content': 'latents'}, 'config.code'), ({'parts': {'autoencoder': 'runs/kl'}}, 'leave one of them out')])
def test_codes_that_do_not_fit_are_refused(changes, message):
  config = scenes_config()
  with config.unlocked():
    for key, value in changes.items():
      if key == 'parts':
        config.parts.update(value)
      elif key == 'data.content':
        config.data.content = value
      else:
        config.code[key.partition('.')[2]] = value
  with pytest.raises(UserError, match=message):
    builders.build(config)


@pytest.mark.slow
def test_a_judge_learns_several_attributes(tmp_path):
  """Colours and sides of blocks: a few steps are enough to know nearly all."""
  random = np.random.default_rng(0)
  colour, side = random.integers(0, 3, 512).astype(np.int32), random.integers(0, 2, 512).astype(np.int32)
  image = random.integers(0, 60, (512, 8, 8, 3)).astype(np.uint8)
  for row in range(512):
    image[row, 2:6, 4 * side[row]:4 * side[row] + 4, colour[row]] += 150
  made = Arrays({'image': image, 'colour': colour, 'side': side})
  config = sprites_attributes.get_config('smoke')
  with config.unlocked():
    config.data.update(name='coloured_sides', train='train', heldout='test', shape=(8, 8, 3))
    config.steps, config.batch_size, config.evaluate_every, config.log_every = 120, 64, 120, 60
    config.model.layers = 2
    config.objective = dict(attributes=dict(colour=3, side=2), blur=1)
  with tables.recorded() as added:
    sources.SOURCES.add('coloured_sides', lambda data, split: made)
    try:
      run = genjax.train(config, tmp_path / 'run')
    finally:
      tables.remove(added)
  heldout = json.loads((tmp_path / 'run' / 'summary.json').read_text())['heldout']
  assert heldout['accuracy'] > 0.9 and heldout['accuracy_side'] >= heldout['accuracy']
  part = builder.attributes(run.config, run.experiment)
  assert part.classes == {'colour': 3, 'side': 2} and part.shape == (8, 8, 3)


def test_scenes_are_data_of_images():
  config = scenes_config()
  columns = images.open_data(config, 'heldout', ('text',)).get(np.arange(2))
  assert columns['image'].shape == (2, 36, 36, 3) and len(columns['text']) == 2
  with pytest.raises(UserError, match='split of scenes'):
    images.open_data(config, 'test')
