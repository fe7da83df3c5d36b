"""R3GAN: published parameter counts, its filter against scipy, grouped convolutions, and what is refused."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from genjax import sharding
from genjax.models.adversarial import r3gan
from genjax.models.adversarial.r3gan import AXES, VARIANTS, R3Gan
from genjax.nn.conv import Grouped, conv
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = dict(size=8, channels=2, latent=4, widths=(8, 4), groups=(4, 2), blocks=1, num_classes=3)


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


@pytest.mark.parametrize(('name', 'counts'), [
  ('r3gan_cifar10', (20_781_952, 21_280_512)),
  pytest.param('r3gan_ffhq_64', (22_429_824, 22_381_440), marks=pytest.mark.slow),
  pytest.param('r3gan_ffhq_256', (23_057_952, 23_009_568), marks=pytest.mark.slow)])
def test_parameter_counts_of_the_published_presets(name, counts):
  model = R3Gan(**VARIANTS[name])
  assert (count(shapes(model.generator())[0]), count(shapes(model.discriminator())[0])) == counts


def test_filters_are_those_of_scipy():
  """Zeros between pixels and a filter, and a filter and every second pixel: [1, 2, 1] of doubled pixels."""
  x = np.random.default_rng(0).standard_normal((2, 6, 4, 3)).astype(np.float32)
  taps = np.convolve([1, 2, 1], [1, 1]) / 8
  large, small = jax.jit(lambda x: (r3gan.enlarge(x), r3gan.reduce(x)))(x)
  doubled, halved = x, x
  for axis in (1, 2):
    doubled = np.apply_along_axis(lambda line: signal.upfirdn(2 * taps, line, up=2)[1:1 + 2 * len(line)], axis, doubled)
    halved = np.apply_along_axis(lambda line: signal.upfirdn(taps, np.pad(line, 1))[3:-3:2], axis, halved)
  np.testing.assert_allclose(large, doubled, atol=1e-5)
  np.testing.assert_allclose(small, halved, atol=1e-5)


def test_groups_are_convolutions_of_their_own():
  x = np.random.default_rng(0).standard_normal((2, 5, 4, 6)).astype(np.float32)

  @jax.jit
  def run(x):
    layer = Grouped(6, 4, 2, rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.arange(4.0))
    parts = [conv(x[..., 3 * group:3 * group + 3], layer.kernel.get_value()[..., 2 * group:2 * group + 2])
             for group in range(2)]
    return layer(x), jnp.concatenate(parts, axis=-1) + jnp.arange(4.0)

  np.testing.assert_allclose(*run(x), atol=1e-5)


def test_networks_begin_as_their_filters_alone():
  """Blocks are the identity at first, so that the generator is linear in latent and class: enlarged learned maps."""
  model = R3Gan(**SMALL)
  network, judge, mesh = model.generator(), model.discriminator(), sharding.make_mesh({'data': 1}, jax.devices()[:1])

  @jax.jit
  def run(latent, label):
    params, mutable = network.init(jax.random.key(0))
    image, _ = network.apply(params, mutable, latent, label, key=jax.random.key(1))
    hot = jnp.concatenate([latent, params['embed']['kernel'][label]], -1)
    x = (hot @ params['project']['kernel'])[:, None, None] * params['basis']
    x = r3gan.enlarge(x @ params['changes']['stage_0']['kernel'][0, 0]) @ params['out']['kernel'][0, 0]
    judging, known = judge.init(jax.random.key(2))
    return image, x, judge.apply(judging, known, image, label[:, None])[0], params, judging

  label = np.array([0, 2, 1])
  image, expected, logit, params, judging = run(np.random.default_rng(0).standard_normal((3, 4), np.float32), label)
  assert image.shape == (3, 8, 8, 2) and logit.shape == (3,) and image.dtype == logit.dtype == jnp.float32
  np.testing.assert_allclose(image, expected, atol=1e-5)
  sharding.param_shardings(params, mesh, AXES['generator'])
  sharding.param_shardings(judging, mesh, AXES['discriminator'])


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=16), 'which make images of 8 pixels, got size 16'), (dict(groups=(4,)), 'one number for each'),
  (dict(groups=(4, 3)), 'groups=3 does not divide the 8 inner channels'), (dict(dtype='int8'), 'dtype'),
  (dict(blocks=0), 'blocks')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    R3Gan(**{**SMALL, **options})
