"""Operations of style-based networks against independent definitions: scipy's filters, loops over examples."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from genjax.models.adversarial import style_ops

RANDOM = np.random.default_rng(0)


def draw(*shape):
  return RANDOM.standard_normal(shape).astype(np.float32)


def filtered(x, taps, up=1, down=1, pad=(0, 0)):
  """`upfirdn` of both axes of images in float64, with scipy's zeros and filter."""
  for axis in (1, 2):
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    x = signal.upfirdn([1.0], x, up=up)  # zeros between pixels
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(max(pad[0], 0), max(pad[1], 0) + up - 1)])
    x = x[..., max(-pad[0], 0):x.shape[-1] - max(-pad[1], 0)]
    x = signal.upfirdn(taps, x)[..., len(taps) - 1:x.shape[-1]][..., ::down]
    x = np.moveaxis(x, -1, axis)
  return x


def correlated(x_HWI, kernel_HWIO, mode):
  return np.stack([sum(signal.correlate2d(x_HWI[..., i], kernel_HWIO[..., i, o], mode)
                       for i in range(x_HWI.shape[-1])) for o in range(kernel_HWIO.shape[-1])], axis=-1)


def test_filters_are_those_of_scipy():
  cases = [(1, 1, (1, 1), 4), (2, 1, (2, 1), 4), (1, 2, (1, 1), 4), (4, 1, (5, 3), 12), (1, 2, (-1, 3), 5),
           (2, 3, (2, 0), 5), (2, 1, (-1, 1), 3)]
  x, all_taps = draw(2, 6, 8, 3), [RANDOM.standard_normal(case[-1]) for case in cases]
  shifted = lambda x, taps, case: style_ops._shifted(
    style_ops._shifted(x, taps[::-1], *case, 1), taps[::-1], *case, 2)  # as on accelerators
  run = jax.jit(lambda x: [(style_ops.upfirdn(x, taps, *case[:-1]), shifted(x, taps, case[:-1]))
                           for case, taps in zip(cases, all_taps)])
  for found, case, taps in zip(run(x), cases, all_taps):
    for one in found:
      np.testing.assert_allclose(one, filtered(x, taps, *case[:-1]), rtol=1e-4, atol=1e-5)
  doubled, halved = jax.jit(lambda x: (style_ops.enlarge(x), style_ops.shrink(x)))(x)
  blur = np.array([1, 3, 3, 1]) / 8
  np.testing.assert_allclose(doubled, filtered(x, 2 * blur, up=2, pad=(2, 1)), atol=1e-5)
  np.testing.assert_allclose(halved, filtered(x, blur, down=2, pad=(1, 1)), atol=1e-5)
  assert doubled.shape == (2, 12, 16, 3) and halved.shape == (2, 3, 4, 3)


def test_convolutions_that_double_and_halve():
  """The definition: zeros between pixels, a convolution whose result is as large as can be, the blur; and the blur, a
  convolution without padding, every second pixel. With their gradients, as matrix products and as convolutions."""
  x, kernel, weight = draw(2, 4, 6, 3), draw(3, 3, 3, 5), draw(2, 8, 12, 5)
  blur = np.array([1, 3, 3, 1]) / 8
  spaced = filtered(x, [1.0], up=2)[:, :-1, :-1]
  expected = filtered(np.stack([correlated(image, kernel, 'full') for image in spaced]), 2 * blur, pad=(1, 1))
  narrow = np.stack([correlated(image, kernel, 'valid') for image in filtered(x, blur, pad=(2, 2))])[:, ::2, ::2]
  one = jax.jit(lambda x, kernel: (style_ops.conv_double(x, kernel), style_ops.conv_halve(x, kernel)))
  doubled, halved = one(x, kernel)
  np.testing.assert_allclose(doubled, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(halved, narrow, rtol=1e-4, atol=1e-4)

  def slopes(cpu):
    def loss(x, kernel):
      wide = style_ops.Strided(True, cpu)(x, kernel)
      return jnp.vdot(wide[:, 1:, 1:], weight) + jnp.vdot(style_ops.Strided(False, cpu)(wide, kernel.swapaxes(2, 3)),
                                                          x**2)

    return jax.grad(loss, (0, 1))(x, kernel)

  for here, there in zip(*jax.jit(lambda: (slopes(True), slopes(False)))()):
    np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-3)


def test_modulated_convolution_is_a_loop_over_examples():
  x, kernel, style = draw(3, 5, 5, 4), draw(3, 3, 4, 6), 1 + draw(3, 4)
  run = jax.jit(lambda x, kernel, style: [
    style_ops.modulated_conv(x, kernel, style), style_ops.modulated_conv(x, kernel, style, demodulate=False),
    style_ops.modulated_conv(x, kernel, style, double=True)])
  normal, plain, doubled = run(x, kernel, style)
  blur = np.array([1, 3, 3, 1]) / 4
  for row in range(3):
    own = kernel.astype(np.float64) * style[row][:, None]
    np.testing.assert_allclose(plain[row], correlated(x[row], own, 'same'), rtol=1e-4, atol=1e-4)
    own = own / np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
    np.testing.assert_allclose(normal[row], correlated(x[row], own, 'same'), rtol=1e-4, atol=1e-5)
    spaced = filtered(x[row:row + 1], [1.0], up=2)[0, :-1, :-1]
    np.testing.assert_allclose(doubled[row], filtered(correlated(spaced, own, 'full')[None], blur, pad=(1, 1))[0],
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('group', [2, 3, 6])
def test_minibatch_deviation_is_a_loop_over_groups(group):
  x = draw(6, 2, 3, 4)
  found = np.asarray(jax.jit(lambda x: style_ops.with_deviation(x, group))(x))
  np.testing.assert_array_equal(found[..., :4], x)
  for row in range(6):
    members = [other for other in range(6) if other % (6 // group) == row % (6 // group)]
    spread = np.sqrt(np.mean((x[members] - x[members].mean(0))**2, axis=0) + 1e-8)
    np.testing.assert_allclose(found[row, ..., 4], spread.mean(), rtol=1e-5)
    assert len(members) == group


def test_equalised_layers():
  """Parameters are N(0, 1), or larger by 1 / rate, and outputs have unit variance."""
  x, image = draw(512, 256), draw(2, 18, 18, 16)

  @jax.jit
  def run():
    dense = style_ops.EqualDense(256, 64, rate=0.01, bias=1.0, rngs=nnx.Rngs(0))
    conv = style_ops.EqualConv(16, 64, 3, halve=True, active=False, bias=False, rngs=nnx.Rngs(1))
    return dense.kernel.get_value(), dense.bias.get_value(), conv.kernel.get_value(), dense(x), conv(image)

  kernel, bias, filters, y, small = run()
  np.testing.assert_allclose(np.std(kernel), 100.0, rtol=0.05)
  np.testing.assert_allclose(bias, 100.0)
  np.testing.assert_allclose(y, 1.0 + x @ (np.asarray(kernel, np.float64) * 0.01 / 16), rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(np.std(filters), 1.0, rtol=0.05)
  np.testing.assert_allclose(np.std(y), 1.0, rtol=0.1)
  assert small.shape == (2, 9, 9, 64)
  np.testing.assert_allclose(jax.jit(style_ops.activate)(np.array([-1.0, 2.0])), np.sqrt(2) * np.array([-0.2, 2.0]),
                             rtol=1e-6)
  np.testing.assert_allclose(jax.jit(lambda x: style_ops.activate(x, clamp=1.5))(np.array([-1.0, 2.0])),
                             [-0.2 * np.sqrt(2), 1.5], rtol=1e-6)
