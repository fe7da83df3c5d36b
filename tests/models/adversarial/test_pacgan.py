"""Networks of PacGAN's experiments on stacked MNIST: counts of the published layers, sizes, and enlarging to odd sizes
against the gradient of the convolution that halves them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.configs.gans import stacked_mnist
from genjax.models.adversarial.pacgan import AXES, PacDcgan
from genjax.nn.conv import conv, conv_transpose
from genjax.nn.functional import count
from genjax.types import UserError


def counts(model: PacDcgan) -> list[int]:
  return [count(jax.eval_shape(network.init, jax.random.key(0))[0])
          for network in (model.generator(), model.discriminator())]


def dense(inputs, outputs):
  return inputs * outputs + outputs


def kernels(size, channels, normed):
  """Convolutions between neighbouring channels, with biases, and scale and shift behind those that are normed."""
  return sum(size**2 * a * b + b + 2 * b * norm for a, b, norm in zip(channels, channels[1:], normed))


@pytest.mark.parametrize('pack', [1, 2])
def test_counts_are_those_of_the_published_layers(pack):
  """28, 14, 7, 4 and 2 pixels; layers as they stand in the code of the paper."""
  options = {name: row[0] for name, row in stacked_mnist.SIZES.items()}
  assert counts(PacDcgan(**options['full'], pack=pack)) == [
    dense(100, 2 * 2 * 512) + 2 * 512 + kernels(5, (512, 256, 128, 64, 3), (1, 1, 1, 0)),
    kernels(5, (3 * pack, 64, 128, 256, 512), (0, 1, 1, 1)) + dense(2 * 2 * 512, 1)]
  for name, widths in (('quarter', (2, 4, 8)), ('half', (4, 8, 16))):
    assert counts(PacDcgan(**options[name], pack=pack)) == [
      dense(256, 4 * 4 * 64) + 2 * 64 + kernels(3, (64, 32, 16, 8, 3), (1, 1, 1, 0)),
      kernels(3, (3 * pack, *widths), (1, 1, 1)) + dense(4 * 4 * widths[-1], 1)]


@pytest.mark.parametrize(('kernel', 'side'), [(5, 7), (5, 14), (3, 7), (3, 8)])
def test_enlarging_is_the_gradient_of_the_convolution_that_halves(kernel, side):
  """The definition of TensorFlow's conv2d_transpose, with its kernel turned by 180 degrees."""
  random = np.random.default_rng(0)
  small = jnp.asarray(random.normal(size=(2, -(-side // 2), -(-side // 2), 3)), jnp.float32)
  weight = jnp.asarray(random.normal(size=(kernel, kernel, 3, 4)), jnp.float32)
  turned = weight[::-1, ::-1].swapaxes(2, 3)
  odd = side % 2

  def both(small, weight, turned):
    gradient = jax.vjp(lambda large: conv(large, turned, 2), jnp.zeros((2, side, side, 4)))[1](small)[0]
    return gradient, conv_transpose(small, weight, 2)[:, odd:odd + side, odd:odd + side]

  wanted, found = jax.jit(both)(small, weight, turned)
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_images_and_logits():
  options = dict(size=13, channels=2, latent=3, generator_widths=(6, 5), discriminator_widths=(2, 3), kernel=3,
                 num_classes=3, pack=2)
  model, label_B = PacDcgan(last='convolution', **options), jnp.arange(4) % 3

  def made(key, model):
    generator, judge = (network.init(key) for network in (model.generator(), model.discriminator()))
    image, _ = model.generator().apply(*generator, jax.random.normal(key, (4, 3)), label_B, key=key)
    packed = jnp.concatenate([image[::2], image[1::2]], axis=-1)
    logit, _ = model.discriminator().apply(*judge, packed, label_B.reshape(2, 2), key=key)
    return image, logit

  image, logit = jax.jit(functools.partial(made, model=model))(jax.random.key(0))
  assert image.shape == (4, 13, 13, 2) and float(jnp.abs(image).max()) <= 1 and logit.shape == (2,)
  assert float(image.std()) > 0 and np.isfinite(logit).all()
  enlarged = functools.partial(made, model=PacDcgan(last='transposed', **options))
  assert jax.eval_shape(enlarged, jax.random.key(0))[0].shape == (4, 13, 13, 2)


def test_every_rule_of_axes_matches_every_size():
  for row in stacked_mnist.SIZES.values():
    model = PacDcgan(**row[0])
    for group, network in (('generator', model.generator()), ('discriminator', model.discriminator())):
      leaves, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(network.init, jax.random.key(0))[0])
      paths = ['/'.join(str(part.key) for part in path) for path, _ in leaves]
      assert all(any(re.search(rule, path) for path in paths)
                 for rule, _ in AXES[group])


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=4), 'halves images of 4 pixels 4 times'), (dict(last='none'), "got 'none'"),
  (dict(generator_widths=(8,), last='convolution'), 'a layer each that changes the size'), (dict(kernel=0), 'kernel')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    PacDcgan(**options)
