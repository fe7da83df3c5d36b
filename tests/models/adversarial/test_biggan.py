"""BigGAN: published parameter counts, classes and latents where they enter, sharding rules, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.adversarial.biggan import AXES, VARIANTS, BigGan
from genjax.nn.functional import count
from genjax.types import UserError, named_leaves

SMALL = dict(size=8, channels=2, latent=6, generator_width=8, discriminator_width=8, generator_multiples=(2, 1),
             discriminator_multiples=(1, 2), halvings=1)
TOLD = dict(SMALL, shared=3, chunks=True, num_classes=3)
DEEP = dict(SMALL, shared=3, depth=2, num_classes=3)
COUNTS = {
  'biggan_cifar10': (4_304_387, 4_207_361), 'biggan_128': (31_978_628, 39_448_258),
  'biggan_deep_128': (50_244_484, 34_590_210), 'biggan_deep_256': (55_736_708, 38_247_426),
  'sagan_128': (42_017_412, 39_448_258), 'sngan_128_imagenet': (41_996_931, 30_005_013)}


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


@pytest.mark.parametrize('name', [
  name if name in ('biggan_cifar10', 'biggan_deep_128') else pytest.param(name, marks=pytest.mark.slow)
  for name in VARIANTS])
def test_parameter_counts_of_the_published_scripts(name):
  model = BigGan(**VARIANTS[name])
  assert (count(shapes(model.generator())[0]), count(shapes(model.discriminator())[0])) == COUNTS[name]


@pytest.mark.parametrize('options', [
  TOLD, DEEP, dict(SMALL, num_classes=3, pack=2, wide=False, generator_attention=(8,), discriminator_attention=(4,)),
  dict(SMALL, chunks=True)], ids=['told', 'deep', 'tables', 'unconditional'])
def test_shapes_and_axes(options):
  model, mesh = BigGan(**options), sharding.make_mesh({'data': 1}, jax.devices()[:1])
  label_B = None if model.num_classes is None else jnp.arange(6) % 3

  def run(key):
    (params, mutable), (judging, known) = model.generator().init(key), model.discriminator().init(key)
    image, _ = model.generator().apply(params, mutable, jnp.ones((6, 6)), label_B, key=key)
    told = None if label_B is None else label_B.reshape(-1, model.pack)
    judged = jnp.ones((6 // model.pack, 8, 8, 2 * model.pack))
    return (image, model.discriminator().apply(judging, known, judged, told, key=key)[0]), params, judging

  (image, logit), params, judging = jax.eval_shape(run, jax.random.key(0))
  assert image.shape == (6, 8, 8, 2) and logit.shape == (6 // model.pack,)
  assert image.dtype == logit.dtype == jnp.float32
  sharding.param_shardings(params, mesh, AXES['generator'])
  sharding.param_shardings(judging, mesh, AXES['discriminator'])


def test_chunks_and_classes_enter_the_stages():
  """At zero kernels of the first layer an image depends on the class and on the second chunk, but on the first no
  more; and all kernels and tables begin orthogonal."""
  network = BigGan(**TOLD).generator()

  @jax.jit
  def run(latent, label):
    params, mutable = network.init(jax.random.key(0))
    params['project']['kernel'] = jnp.zeros_like(params['project']['kernel'])
    params['project']['bias'] = jnp.sin(jnp.arange(params['project']['bias'].size, dtype=jnp.float32))
    return network.apply(params, mutable, latent, label)[0], params

  latent = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
  latent[1:] = latent[0]
  latent[1, :3] += 1.0  # the first chunk
  latent[2, 3:] += 1.0  # the second
  image, params = jax.device_get(run(latent, np.array([0, 0, 0, 1])))
  assert (image[1] == image[0]).all()
  assert abs(image[2] - image[0]).max() > 1e-5 and abs(image[3] - image[0]).max() > 1e-5
  for name, leaf in named_leaves(params).items():
    if name.endswith(('kernel', 'embedding')) and not name.startswith('project'):
      matrix = np.reshape(leaf, (-1, leaf.shape[-1]))
      matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
      np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5, err_msg=name)


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=24, generator_multiples=()), 'are needed at size 24'),
  (dict(size=9), 'a side that 2 divides, got 9'), (dict(halvings=3), 'halvings=3 blocks'),
  (dict(generator_attention=(16,)), r'of \[8\], got \[16\]'), (dict(init='zeros'), 'init must be one of'),
  (dict(shared=4), 'an unconditional model has none'), (dict(num_classes=3, chunks=True), 'need config.model.shared'),
  (dict(chunks=True, latent=7), 'take 6'), (dict(depth=1, chunks=True), 'set chunks to False'),
  (dict(depth=1, generator_width=6), 'channels that 4 divides'), (dict(dtype='int8'), 'dtype')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    BigGan(**{**SMALL, **options})
