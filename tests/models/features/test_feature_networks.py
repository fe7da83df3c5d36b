"""Inception of FID, VGG16 and AlexNet of LPIPS: counts, shapes, and what sets them apart, on narrow networks."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from genjax.models.features import inception, layers, lpips, resizing
from genjax.nn.functional import count, network

# pytorch-fid's network with its statistics; torchvision's features with the heads of lpips
COUNTS = {'inception': 23_885_392, 'vgg16': 14_714_688 + 1_472, 'alexnet': 2_469_696 + 1_152}


def test_counts_of_the_published_networks():
  nets = {'inception': inception.network(inception.InceptionConfig()),
          **{trunk: lpips.network(lpips.LpipsConfig(trunk)) for trunk in lpips.TRUNKS}}
  assert {name: count(jax.eval_shape(net.init, jax.random.key(0))[0]) for name, net in nets.items()} == COUNTS


def test_inception_reads_images_of_any_size():
  config = inception.InceptionConfig(classes=10, divisor=16)
  net = inception.network(config)
  params, mutable = net.init(jax.random.key(0))
  image = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 1), dtype=np.uint8)
  apply = jax.jit(net.apply)
  found, _ = apply(params, mutable, image)
  assert found['features'].shape == (2, 128) == (2, config.width) and found['logits'].shape == (2, 10)
  assert np.ptp(np.asarray(found['features']), axis=0).max() > 0
  params['fc']['bias'] = params['fc']['bias'] + 7.0  # which the logits of the inception score leave out
  moved, _ = apply(params, mutable, image)
  np.testing.assert_array_equal(moved['logits'], found['logits'])


def test_grey_images_are_coloured():
  grey = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
  assert np.array_equal(layers.coloured(grey), np.repeat(grey, 3, axis=-1)) and layers.coloured(
    np.zeros((1, 2, 2, 3))).shape == (1, 2, 2, 3)


@pytest.mark.parametrize(('side', 'size'), [(1, 3), (2, 3), (3, 3), (2, 1), (4, 5)])
def test_convolutions_of_images_that_are_smaller_than_the_kernel(side, size):
  """The values and the gradients of lax; XLA does not let the image and the kernel trade places."""

  class Conv(layers.Conv):

    def __call__(self, x_BHWC, key=None):
      return super().__call__(x_BHWC)

  net = network(lambda rngs: Conv(5, 4, (size, size), padding=size // 2, rngs=rngs))
  params, _ = net.init(jax.random.key(0))
  x_BHWC = jax.random.normal(jax.random.key(1), (2, side, side, 5))
  weight = jnp.sin(jnp.arange(2.0 * side * side * 4)).reshape(2, side, side, 4)

  def lax(params, x_BHWC):
    return jax.lax.conv_general_dilated(x_BHWC, params['kernel'], (1, 1), 'SAME',
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + params['bias']

  both = [jax.jit(jax.value_and_grad(lambda *given, apply=apply: jnp.sum(weight * apply(*given)**2), (0, 1)))(
    params, x_BHWC) for apply in (lambda params, x_BHWC: net.apply(params, {}, x_BHWC)[0], lax)]
  jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4), *both)
  compiled = jax.jit(lambda x_BHWC: net.apply(params, {}, x_BHWC)[0]).lower(x_BHWC).compile().as_text()
  assert 'rhs_reversal' not in compiled


def test_pools_of_inception():
  x = jnp.full((1, 5, 5, 1), -2.0)
  np.testing.assert_allclose(inception._pool(x, inception.MEAN), -2.0)  # padding does not count
  np.testing.assert_allclose(inception._pool(x, inception.MAX), -2.0)
  assert inception._pool(x, inception.HALVE).shape == (1, 2, 2, 1)
  pools = {name: [branch[0] for branch in branches if isinstance(branch[0], str)]
           for name, branches in inception.BLOCKS.items()}
  assert pools['Mixed_7b'] == [inception.MEAN] and pools['Mixed_7c'] == [inception.MAX]


def test_resizing_of_tensorflow_1():
  image = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
  assert np.array_equal(resizing.bilinear_tf1(image, 3, 4), image)
  double = resizing.bilinear_tf1(image, 6, 8)[0, :, :, 0]
  np.testing.assert_allclose(double[0], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])  # the left edge stays where it is
  np.testing.assert_allclose(double[:, 0], [0, 2, 4, 6, 8, 8])
  np.testing.assert_allclose(resizing.bilinear_tf1(image, 1, 2)[0, 0, :, 0], [0, 2])  # no filter


@pytest.mark.parametrize('filter', resizing.FILTERS)
@pytest.mark.parametrize('size', [(17, 20), (64, 23)])
def test_resizing_of_pillow(filter, size):
  coarse = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
  image = np.asarray(Image.fromarray(coarse).resize((33, 30), Image.Resampling.BICUBIC))
  expected = np.asarray(Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, filter.upper())))
  found = np.asarray(resizing.antialiased(image[None], *size, filter)[0])
  off = np.abs(found - expected)
  if filter == 'nearest':
    assert np.mean(off == 0) > 0.9  # centres that fall between two pixels may go either way
  else:
    assert off.max() <= 1 and np.mean(off) < 0.03  # Pillow has weights of 22 bits
  assert np.array_equal(found, np.round(found)) and 0 <= found.min() and found.max() <= 255


def test_resizing_with_a_crop():
  image = np.zeros((1, 10, 30, 1), np.uint8)
  image[:, :, 10:20] = 200
  assert np.all(resizing.antialiased(image, 10, 10, 'bicubic', crop=True) == 200)
  assert resizing.antialiased(image, 20, 20, 'bicubic', crop=True).shape == (1, 20, 20, 1)
  wide = np.arange(110, dtype=np.uint8)[None, None, :, None].repeat(55, axis=1)  # comes to 224 by 448
  expected = np.asarray(Image.fromarray(wide[0, :, :, 0]).resize((448, 224), Image.Resampling.BICUBIC))[:, 112:336]
  for image, right in ((wide, expected), (wide.transpose(0, 2, 1, 3), expected.T)):
    found = resizing.antialiased(image, 224, 224, 'bicubic', crop=True)[0, :, :, 0]
    assert np.abs(found - right).max() <= 1 and np.mean(found != right) < 0.03
  wide = np.random.default_rng(0).integers(0, 256, (20, 45, 3), np.uint8)  # 45 * (224 / 20) is below 504 in floats
  whole = np.asarray(Image.fromarray(wide).resize((504, 224), Image.Resampling.BILINEAR), np.float32)
  assert np.abs(resizing.antialiased(wide[None], 224, 224, 'bilinear', crop=True)[0] - whole[:, 140:364]).max() <= 1
  assert resizing.resize_name('bicubic', 20, 20, True) == 'bicubic antialias 20 crop'


@pytest.mark.parametrize('trunk', lpips.TRUNKS)
def test_lpips_is_a_distance(trunk):
  net = lpips.network(lpips.LpipsConfig(trunk, divisor=16))
  params, _ = net.init(jax.random.key(0))
  a, b = jax.random.uniform(jax.random.key(1), (2, 3, 40, 33, 3), minval=-1.0)
  apply = jax.jit(lambda a, b: net.apply(params, {}, a, b)[0])
  there, back = apply(a, b), apply(b, a)
  assert there.shape == (3,) and np.all(there > 0) and np.all(apply(a, a) == 0)
  np.testing.assert_allclose(there, back, rtol=1e-5)
  near = apply(a, a + 0.05 * (b - a))
  assert np.all(near < there)
  least = lpips.TRUNKS[trunk].least
  maps, _ = jax.eval_shape(lambda a: net.apply(params, {}, a), a[:, :least, :least])
  assert [part.shape[-1] for part in maps] == list(lpips.LpipsConfig(trunk, 16).channels)
  assert maps[-1].shape[1:3] == (1, 1)
  smaller, _ = jax.eval_shape(lambda a: net.apply(params, {}, a), a[:, :least - 1, :least - 1])
  assert 0 in smaller[-1].shape  # there is no pixel left


@pytest.mark.parametrize(('make', 'message'), [
  (lambda: inception.InceptionConfig(divisor=3), 'divisor must be one of'),
  (lambda: lpips.LpipsConfig('vgg'), "trunk must be one of .*, got 'vgg'"),
  (lambda: lpips.LpipsConfig('vgg16', 128), 'divisor must be one of')])
def test_options_that_cannot_be_built(make, message):
  with pytest.raises(ValueError, match=message):
    make()
