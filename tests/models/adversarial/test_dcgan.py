"""Published parameter counts, shapes, labels and packs of the GAN networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.adversarial.dcgan import DCGAN_AXES, POINT_AXES, Dcgan, PointGan
from genjax.nn.functional import count
from genjax.types import UserError


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


def test_published_parameter_counts_at_64_pixels():
  """pytorch/examples dcgan with nz=100, ngf=ndf=64: generator 3,576,704, discriminator 2,765,568."""
  model = Dcgan()
  assert count(shapes(model.generator())[0]) == 3_576_704
  assert count(shapes(model.discriminator())[0]) == 2_765_568


def test_initial_kernels_are_those_of_dcgan():
  params, _ = jax.jit(Dcgan(size=16, generator_width=64).generator().init)(jax.random.key(0))
  kernel = params['stages']['0']['linear']['kernel']
  assert kernel.shape == (4, 4, 128, 64)
  np.testing.assert_allclose(jnp.std(kernel), 0.02, rtol=0.02)
  np.testing.assert_allclose(jnp.mean(params['norm']['norm']['scale']), 1.0, atol=0.01)


@pytest.mark.parametrize(('size', 'pack', 'classes', 'spectral', 'norm'), [
  (28, 1, None, False, 'batch'), (32, 2, None, True, 'none'), (64, 1, 5, True, 'none'), (8, 4, 10, False, 'none'),
])
def test_image_shapes(size, pack, classes, spectral, norm):
  model = Dcgan(size=size, channels=3, latent=4, generator_width=2, discriminator_width=2, num_classes=classes,
                pack=pack, spectral=spectral, norm=norm, discriminator_norm=norm)
  label_B = None if classes is None else jnp.arange(8) % classes
  label_BP = None if label_B is None else label_B.reshape(-1, pack)

  def run(key):
    generator, discriminator = model.generator(), model.discriminator()
    image, _ = generator.apply(*generator.init(key), jnp.ones((8, 4)), label_B, key=key)
    logit, mutable = discriminator.apply(*discriminator.init(key), jnp.ones((8 // pack, size, size, 3 * pack)),
                                         label_BP, key=key)
    return image, logit, mutable

  image, logit, mutable = jax.eval_shape(run, jax.random.key(0))
  assert image.shape == (8, size, size, 3) and logit.shape == (8 // pack,)
  assert image.dtype == logit.dtype == jnp.float32
  assert bool(jax.tree.leaves(mutable)) == (spectral or norm == 'batch')


def test_images_lie_in_the_range_of_pixels():
  generator = Dcgan(size=8, channels=1, latent=4, generator_width=4).generator()
  image, _ = generator.apply(*jax.jit(generator.init)(jax.random.key(0)), 100 * jnp.ones((2, 4)))
  assert float(jnp.max(jnp.abs(image))) <= 1.0


def test_both_networks_read_the_label():
  model = Dcgan(size=8, channels=1, latent=4, generator_width=4, discriminator_width=4, num_classes=3,
                discriminator_norm='none')
  generator, discriminator = model.generator(), model.discriminator()
  label_B = jnp.arange(3)
  image, _ = generator.apply(*jax.jit(generator.init)(jax.random.key(0)), jnp.ones((3, 4)), label_B)
  logit, _ = discriminator.apply(*jax.jit(discriminator.init)(jax.random.key(1)), jnp.ones((3, 8, 8, 1)), label_B[:,
                                                                                                                  None])
  assert len(np.unique(np.asarray(image).reshape(3, -1), axis=0)) == 3
  assert len(np.unique(logit)) == 3


def test_labels_of_a_pack_keep_their_place():
  discriminator = PointGan(discriminator_widths=(8,), num_classes=3, pack=2).discriminator()
  variables = jax.jit(discriminator.init)(jax.random.key(0))
  logits, _ = discriminator.apply(*variables, jnp.ones((2, 4)), jnp.array([[0, 2], [2, 0]]))
  assert logits[0] != logits[1]


def test_maxout_is_the_largest_piece():
  """With one hidden layer the logit is a maximum over affine pieces, computed here by hand."""
  discriminator = PointGan(discriminator_widths=(3,), pieces=5, scale=2.0).discriminator()
  params, mutable = jax.jit(discriminator.init)(jax.random.key(0))
  x = jax.random.normal(jax.random.key(1), (7, 2))
  layer, output = params['layers']['0']['linear'], params['head']['output']
  pieces = (np.asarray(x) / 2.0 @ layer['kernel'] + layer['bias']).reshape(7, 3, 5)
  expected = pieces.max(-1) @ output['kernel'] + output['bias']
  np.testing.assert_allclose(discriminator.apply(params, mutable, x)[0], expected[:, 0], rtol=1e-5, atol=1e-6)


def test_pacgan_network_sizes():
  """Generator 2-400-400-400-400-2 with batch normalisation, discriminator 4-(200 x 5)^3-1 for packs of two."""
  model = PointGan(pack=2)
  norms = 4 * 2 * 400
  assert count(shapes(model.generator())[0]) == 2 * 400 + 3 * 400 * 400 + norms + 400 * 2 + 2
  assert count(shapes(model.discriminator())[0]) == (4 + 1) * 1000 + 2 * (200 + 1) * 1000 + 201


@pytest.mark.parametrize(('model', 'axes'),
                         [(Dcgan(size=8, channels=1, generator_width=4, discriminator_width=4), DCGAN_AXES),
                          (PointGan(generator_widths=(8,), discriminator_widths=(4,)), POINT_AXES)])
def test_axes_fit_the_parameters(model, axes):
  """Every rule matches, with the right rank: `param_shardings` raises otherwise."""
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  for group in ('generator', 'discriminator'):
    params, _ = shapes(getattr(model, group)())
    sharding.param_shardings(params, mesh, axes[group])


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=30), 'image size of 4 or 7 times a power of two'),
  (dict(size=4), 'image size of 4 or 7 times a power of two'),
  (dict(norm='instance'), 'config.model.norm must be one of'),
  (dict(pack=0), 'pack must be at least 1'),
])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    Dcgan(**options)
