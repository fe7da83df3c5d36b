"""Aspect buckets: the nearest proportions, one shape a batch, every picture of a bucket once an epoch, and models that
take several shapes."""

import collections
import pathlib
import runpy
import types

import jax
import numpy as np
from PIL import Image
import pytest

from genjax.configs.diffusion import digits_edm
from genjax.data import folder, kinds
from genjax.data.images import aspect
from genjax.data.sources import Arrays
from genjax.experiments import diffusion, images
from genjax.models.denoisers import dit, unet
from genjax.types import UserError

pictures = types.SimpleNamespace(**runpy.run_path(str(pathlib.Path(__file__).with_name('pictures.py'))))
BUCKETS = ((8, 8), (4, 16), (12, 4))
BATCH = 6


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path_factory.mktemp('cache')))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """40 pictures: 20 about square, 10 wide, 8 wider, 2 upright."""
  path = tmp_path_factory.mktemp('pictures')
  sizes = [(20, 22), (20, 22), (10, 30), (21, 20), (16, 60)]
  for number in range(40):
    height, width = (60, 14) if number in (4, 9) else sizes[number % 5]
    Image.fromarray(pictures.smooth(height, width, number)).save(path / f'{number:02d}.png')
  return path


def make(root, **options):
  decoding = folder.Options(decoding=kinds.Pictures(3))
  return aspect.AspectBuckets(lambda: folder.open_folder(root, options=decoding), BATCH, options.pop('seed', 1),
                              sizes=options.pop('sizes', BUCKETS), **options)


def test_sizes_of_an_area():
  found = aspect.sizes((1024 * 1024,), 64)
  assert {(1024, 1024), (512, 2048), (2048, 512), (832, 1216), (1216, 832), (768, 1344)} <= set(found)  # SDXL's list
  for height, width in found:
    assert height % 64 == width % 64 == 0 and height * width <= 1024 * 1024 < height * width + 64 * max(height, width)
    assert max(height / width, width / height) <= 4
  assert aspect.sizes(((4, 8), 64, (4, 8)), 4) == ((4, 8), (4, 12), (4, 16), (8, 8), (12, 4), (16, 4))
  for wrong, message in (((3,), 'an area of 3 pixels has no sizes in multiples of 4'),
                         (((1, 2, 3),), 'height and a width'), ((-5,), 'at least 1'), ((), 'names no sizes')):
    with pytest.raises(UserError, match=message):
      aspect.sizes(wrong, 4)


def test_sizes_of_an_area_are_as_many_wide_as_upright():
  found = set(aspect.sizes((1024 * 1024,), 64))
  assert found == {(width, height) for height, width in found}
  # The wide half of SDXL's table (Podell et al. 2023, appendix I), where it has the largest height of a width
  table = {(512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600),
           (640, 1536), (704, 1472), (704, 1408), (768, 1344), (768, 1280), (832, 1216), (896, 1152), (960, 1088)}
  assert table == {(height, width) for height, width in found if height < width}


def test_the_nearest_proportions_and_then_the_nearest_area():
  sizes = ((10, 10), (20, 20), (10, 20), (20, 10))
  assert aspect.nearest(np.array([[9, 9], [500, 500], [10, 19], [7, 5], [14, 20], [15, 20]]), sizes).tolist() == [
    0, 1, 2, 0, 2, 1]  # 14 x 20 is nearer to 1 : 2 than to 1 : 1 on the logarithmic scale, 15 x 20 is not


def test_batches_have_one_shape_and_hold_what_pillow_makes(root):
  pipeline = make(root, filter='bicubic')
  names = folder.Files(root, folder.Options()).names
  seen = collections.Counter()
  for step in range(20):
    image_BHWC = pipeline.batch(step)['image']
    index_B = pipeline.indices(step * BATCH + np.arange(BATCH))
    height, width = image_BHWC.shape[1:3]
    seen[height, width] += BATCH
    for image, index in zip(image_BHWC, index_B):
      picture = Image.open(root / names[index])
      nearest = min(BUCKETS, key=lambda size: abs(np.log(size[1] / size[0]) - np.log(picture.width / picture.height)))
      assert nearest == (height, width)
      scale = max(height / picture.height, width / picture.width)
      inside = width / scale, height / scale
      left, top = (picture.width - inside[0]) / 2, (picture.height - inside[1]) / 2
      expected = picture.resize((width, height), Image.Resampling.BICUBIC,
                                (left, top, left + inside[0], top + inside[1]))
      np.testing.assert_array_equal(image, np.asarray(expected))
  assert set(seen) == set(BUCKETS)


def test_buckets_have_their_own_epochs_and_come_in_proportion(root):
  pipeline = make(root)
  counts = list(map(len, pipeline.members))
  assert sum(counts) == 40 and counts[2] == 2  # fewer than a batch
  drawn = [pipeline.indices(step * BATCH + np.arange(BATCH)) for step in range(40)]  # a whole block of turns
  for member_N in pipeline.members:
    own = np.concatenate([index_B for index_B in drawn if index_B[0] in member_N])
    assert len(own) == len(member_N) * BATCH
    epochs = own.reshape(BATCH, len(member_N))
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(member_N, epochs.shape))


def test_a_batch_is_a_function_of_seed_and_step(root):
  image = make(root).batch(33)['image']
  np.testing.assert_array_equal(next(make(root, threads=2).iterate(33))['image'], image)
  parts = [make(root).batch(33, np.arange(start, start + 2))['image'] for start in range(0, BATCH, 2)]
  np.testing.assert_array_equal(np.concatenate(parts), image)
  others = [make(root, seed=2).batch(step)['image'] for step in range(8)]
  same = [np.array_equal(make(root).batch(step)['image'], other) for step, other in enumerate(others)]
  assert not all(same)


def test_an_evaluation_reads_every_picture_once(root):
  pipeline = make(root, shuffle=False)
  batches = list(pipeline.epoch())
  assert sum(columns['mask'].sum() for columns in batches) == 40
  assert len({columns['image'].shape for columns in batches}) == 3
  parts = [list(make(root, shuffle=False).epoch(slice(start, start + 3))) for start in (0, 3)]
  for whole, *halves in zip(batches, *parts):
    np.testing.assert_array_equal(np.concatenate([half['image'] for half in halves]), whole['image'])


def test_the_fill_is_told(root):
  lines = make(root, sizes=(*BUCKETS, (4, 4000))).describe().splitlines()
  counts = {line[:11].strip(): line[11:].split() for line in lines[1:]}
  assert [counts[f'{height} x {width}'][0] for height, width in BUCKETS] == ['24', '14', '2']
  assert counts['4 x 4000'] == ['0'] and counts['12 x 4'][:3] == ['2', '5.0%', '0.33']
  cut = 1 - 14 * 42 / (14 * 60)
  assert counts['12 x 4'][3:] == [f'{cut:.1%}', '0.0%']


def test_sources_without_sizes_are_refused():
  pipeline = aspect.AspectBuckets(lambda: Arrays({'image': np.zeros((3, 4, 4, 3), np.uint8)}), 2, sizes=BUCKETS)
  with pytest.raises(UserError, match='needs the sizes of all pictures, .*Arrays has not'):
    pipeline.batch(0)


@pytest.mark.parametrize(('make_network', 'options'), [
  (dit.network, dit.DiT((8, 8, 1), width=16, depth=1, heads=2)),
  (unet.network, unet.UNet((8, 8, 1), base=8, multipliers=(1, 2), blocks=1, attention=(), groups=4))])
def test_a_network_on_another_size_is_the_network_of_that_size(make_network, options):
  params, mutable = jax.jit(make_network(options).init)(jax.random.key(0))
  params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
  x_BHWC, time_B = jax.random.normal(jax.random.key(1), (2, 4, 12, 1)), np.array([3.0, 400.0])
  found, _ = jax.jit(make_network(options).apply)(params, mutable, x_BHWC, time_B, None)
  other = type(options)(**{**{name: getattr(options, name) for name in options.__dataclass_fields__},
                           'shape': (4, 12, 1)})
  expected, _ = jax.jit(make_network(other).apply)(params, mutable, x_BHWC, time_B, None)
  assert found.shape == (2, 4, 12, 1) and np.abs(found).max() > 0
  np.testing.assert_array_equal(found, expected)


def config_of(root, **data):
  config = digits_edm.get_config('smoke')
  config.batch_size = BATCH
  config.data.update(dict(name=str(root), train='train[:90%]', heldout='train[90%:]', shape=(8, 8, 3), num_classes=0,
                          buckets=BUCKETS))
  config.sampler.guidance = 1.0
  config.data.update(data)
  return config


def test_a_step_is_compiled_for_each_bucket(root, tmp_path, capsys):
  from genjax.runs import training
  config = config_of(root)
  config.model.depth = 1
  config.steps, config.sample_every, config.evaluate_every, config.checkpoint.every = 5, 0, 0, 5
  run = training.train(config, str(tmp_path / 'run'))
  said = capsys.readouterr()
  shapes = {images.batches(config, config.data.train).batch(step)['image'].shape for step in range(5)}
  assert len(shapes) > 1
  assert run.program.step._cache_size() == len(shapes)
  text = said.out + said.err
  assert text.index('batches an epoch') < text.index('step 1/5')


def test_what_buckets_exclude(root):
  for data, message in (
      (dict(shape=(16, 16, 3)), r'config\.data\.shape \(16, 16, 3\) must have the size of a bucket.*8 x 8, 4 x 16'),
      (dict(buckets=((8, 8), (3, 8))), 'has 3 x 8, and dit needs multiples of 2'),
      (dict(binarize='fixed'), 'binarize.*does not go with config.data.buckets'),
      (dict(mixture={'a': 1.0}), 'mixture.*does not go with config.data.buckets')):
    with pytest.raises(UserError, match=message):
      diffusion.build(config_of(root, **data))
  from genjax.experiments import vae
  with pytest.raises(UserError, match='batches of several shapes, which models of diffusion take and this one does'):
    vae.build(config_of(root))
