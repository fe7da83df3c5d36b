"""Feature networks as parts: Inception, VGG16 and AlexNet with LPIPS heads, ViT; their names, sizes and refusals."""

import json
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from genjax import interop
from genjax.experiments.measuring import extracting
from genjax.interop import origins
from genjax.models.features import inception, lpips
from genjax.models.transformers import vit
from genjax.runs import importing
from genjax.types import UserError

MODELS = {
  'inception_fid': (inception.network, inception.InceptionConfig(10, 16)),
  'vgg16_lpips': (lpips.network, lpips.LpipsConfig('vgg16', 16)),
  'alexnet_lpips': (lpips.network, lpips.LpipsConfig('alexnet', 16)),
  'vit': (vit.encoder, vit.VitConfig((8, 8, 3), 0, patch=4, layers=1, heads=2, width=8)),
  'vit_classes': (vit.encoder, vit.VitConfig((8, 8, 3), 10, patch=4, layers=1, heads=2, width=8))}


@pytest.fixture
def public(tmp_path):
  def save(name):
    network, options = MODELS[name]
    interop.save(tmp_path / name, options, network(options).init(jax.random.key(1))[0],
                 architecture=name.removesuffix('_classes'))
    return tmp_path / name

  return save


@pytest.mark.parametrize('name', ['vgg16_lpips', 'alexnet_lpips'])
def test_perceptual(name, public, opened, images):
  folder = public(name)
  judge, group = opened(folder, 'perceptual')
  assert (judge.name, judge.shape, judge.resize) == (name, None, 'none') and judge.least in (16, 31)
  a, b = images(2, 2, 40, 36, 3)
  measure = jax.jit(judge.distance)
  distance = measure(group, a, b)
  network, options = MODELS[name]
  expected, _ = jax.jit(network(options).apply)(interop.load(folder).params, {}, a / np.float32(127.5) - 1,
                                                b / np.float32(127.5) - 1)
  np.testing.assert_allclose(distance, expected, rtol=1e-5)
  grey = measure(group, a[..., :1], b[..., :1])
  np.testing.assert_allclose(grey, measure(group, a[..., :1].repeat(3, -1), b[..., :1].repeat(3, -1)), rtol=1e-5)
  if name == 'alexnet_lpips':
    features, group = opened(folder, 'features')
    found = jax.jit(features.extract)(group, a[:, :31, :31])
    assert found.shape == (2, 16) == (2, features.width) and features.resize == 'bilinear antialias 224'
    with pytest.raises(UserError, match='alexnet_lpips has no classes'):
      features.predict(group, a)


def test_features_of_pictures_at_their_own_side(public, images):
  folder = public('vgg16_lpips')
  open_at = lambda side, kind='features', folder=folder: extracting.open(ml_collections.ConfigDict(dict(
    seed=0, evaluation=dict(parts=dict(vgg=dict(path=str(folder), side=side))))), 'vgg', kind, 'extractor')
  extractor, image = open_at(32), images(3, 32, 32, 3)
  functions = extractor.functions
  assert (functions.width, functions.shape, functions.resize) == (32, (32, 32, 3), 'bilinear antialias 32')
  network, options = MODELS['vgg16_lpips']
  maps = jax.jit(network(options).apply)(interop.load(folder).params, {}, image / np.float32(127.5) - 1)[0]
  assert maps[-1].shape == (3, 2, 2, 32)
  np.testing.assert_allclose(extractor.apply(functions.extract)(image), maps[-1].mean((1, 2)), rtol=1e-4, atol=1e-6)
  assert open_at(0).functions.shape == (224, 224, 3) and open_at(0).card['resize'] == 'bilinear antialias 224'
  with pytest.raises(UserError, match='reads pictures of at least 16 pixels a side, got side=15'):
    open_at(15)
  with pytest.raises(UserError, match=r'config.evaluation.parts.vgg.side=32 is of features, and a part of the kind'):
    open_at(32, 'perceptual')
  with pytest.raises(UserError, match='genjax.experiments.extractors has no such option; leave it out'):
    open_at(32, folder=public('inception_fid'))


@pytest.mark.parametrize(('shape', 'rows', 'at_a_time'), [
  ((8, 8, 3), (30, 8, 8, 3), 10), (None, (30, 16, 8, 3), 5), ((8, 8, 3), (30, 4, 4, 3), 10), ((4, 4, 3), (30, 9), 12),
  ((2, 2, 3), (30, 2, 2, 3), 12), ((4, 8, 8, 3), (30, 4, 8, 8, 3), 2), ((40, 40, 3), (30, 40, 40, 3), 1)])
def test_large_pictures_are_read_few_at_a_time(shape, rows, at_a_time, monkeypatch):
  monkeypatch.setattr(extracting, 'CHUNK', 12)
  monkeypatch.setattr(extracting, 'PIXELS', 640)
  read = []

  def extract(group, row_BX):
    read.append(len(row_BX))
    return row_BX.reshape(len(row_BX), -1).sum(axis=1) * group['one']

  extractor = extracting.Extractor(types.SimpleNamespace(shape=shape), {'one': jnp.ones(())}, {})
  given = np.random.default_rng(0).integers(0, 9, rows)
  np.testing.assert_array_equal(extractor.apply(extract)(given), given.reshape(30, -1).sum(axis=1))
  assert read == [at_a_time]  # traced once


def test_inception(public, opened, images):
  folder = public('inception_fid')
  features, group = opened(folder, 'features')
  told = (features.name, features.resize, features.shape, features.width, features.classes)
  assert told == ('inception_fid', 'tf bilinear 299', (299, 299, 3), 128, 10)
  shapes = jax.eval_shape(features.extract, group, images(3, 32, 32, 1)), jax.eval_shape(
    features.predict, group, images(3, 32, 32, 3))
  assert [shape.shape for shape in shapes] == [(3, 128), (3, 10)]
  with pytest.raises(UserError, match='has no heads of LPIPS'):
    opened(folder, 'perceptual')
  with pytest.raises(UserError, match='is no joint: its builder is genjax.experiments.extractors'):
    opened(folder, 'joint')


def test_weights_that_are_not_those_of_the_name(public, monkeypatch, opened):
  folder = public('alexnet_lpips')
  path = folder / 'config.json'
  described = json.loads(path.read_text())
  entry = origins.entry(folder, folder / 'published.ckpt', 'digest')
  monkeypatch.setitem(origins.PUBLISHED, 'digest', 'fid')
  path.write_text(json.dumps({**described, origins.ENTRY: entry}))
  assert opened(folder, 'perceptual')[0].name == 'fid'
  path.write_text(json.dumps({**described, origins.ENTRY: {**entry, 'sha256': 'other'}}))
  with pytest.raises(UserError, match='weights are not those that config.json names'):
    opened(folder, 'perceptual')


@pytest.mark.parametrize('name', ['vit', 'vit_classes'])
def test_vit(name, public, opened, images):
  folder = public(name)
  features, group = opened(folder, 'features')
  assert (features.name, features.resize, features.shape) == ('vit', 'bilinear antialias 8', (8, 8, 3))
  image = images(2, 8, 8, 3)
  network, options = MODELS[name]
  outputs, _ = network(options).apply(interop.load(folder).params, {}, image / np.float32(127.5) - 1)
  np.testing.assert_allclose(features.extract(group, image), outputs['hidden'][:, 0], rtol=1e-4, atol=1e-5)
  assert features.extract(group, images(2, 20, 11, 3)).shape == (2, 8)
  assert features.classes == (10 if 'classes' in name else 0)


def test_means_of_channels(public, opened, images):
  folder = public('vit')
  mean, deviation = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]
  (folder / 'preprocessor_config.json').write_text(json.dumps({'image_mean': mean, 'image_std': deviation}))
  features, group = opened(folder, 'features')
  image, (network, options) = images(2, 8, 8, 3), MODELS['vit']
  outputs, _ = network(options).apply(interop.load(folder).params, {}, (image / np.float32(255) - mean) / deviation)
  np.testing.assert_allclose(features.extract(group, image), outputs['hidden'][:, 0], rtol=1e-3, atol=1e-4)
  (folder / 'preprocessor_config.json').write_text(json.dumps({'image_mean': [1, 2]}))
  with pytest.raises(UserError, match='image_mean must have 3 numbers'):
    opened(folder, 'features')


def test_nothing_trains_them(public, tmp_path):
  with pytest.raises(UserError, match='only extracts features, and no experiment trains one'):
    importing.import_model(public('vgg16_lpips'), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
