"""StyleGAN3: published parameter counts, bands and filters, equivariance to translation, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from genjax import sharding
from genjax.models.adversarial.stylegan3 import AXES, VARIANTS, StyleGan3, bands, filter_down, lowpass, radial_lowpass
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = dict(size=16, channels=2, latent=6, style=8, width=64, width_max=8, convolutions=3, critical=1, group=2)
COUNTS = {'t': (37_768_199, 28_472_133), 'r': (24_153_095, 18_816_387)}  # docs/public.md has all


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


@pytest.mark.parametrize('kind', 'tr')
def test_published_parameter_counts(kind):
  for size, expected in zip((32, 256), COUNTS[kind]):
    model = StyleGan3(**VARIANTS[f'stylegan3_{kind}_{size}'])
    assert count(shapes(model.generator())[0]) == expected, size
  assert model.layers == 16


def test_bands():
  """14 layers from a cutoff of 2 to res / 2, of which the last two keep the band limit of the image."""
  found = bands(StyleGan3(size=256))
  assert len(found) == 15 and found[-1].channels == 3
  assert [band.cutoff for band in found[-3:]] == pytest.approx([128.0] * 3)
  assert found[0].cutoff == 2 and found[6].cutoff == pytest.approx(2 * 64**0.5)
  for band in found:
    assert band.side == (256 if band in found[-2:] else band.rate + 20)
    assert band.rate <= 256 and np.log2(band.rate) % 1 == 0
    assert band.channels in (3, min(512, round(16_384 / band.cutoff)))
  # What passes a filter lies below half of the sampling rate, but in the critical layers.
  assert all(band.cutoff + band.half_width >= band.rate / 2 - 1e-9 for band in found)
  assert all(band.cutoff < band.rate / 2 for band in found[:12]) and found[-1].cutoff == found[-1].rate / 2


def test_filters_are_kaiser_designs():
  taps, cutoff, width, rate = 12, 5.0, 6.0, 32.0
  beta = signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2)))
  place = np.arange(taps) - (taps - 1) / 2
  expected = np.sinc(2 * cutoff * place / rate) * np.kaiser(taps, beta)
  np.testing.assert_allclose(lowpass(taps, cutoff, width, rate), expected / expected.sum(), rtol=1e-9)
  np.testing.assert_array_equal(lowpass(1, cutoff, width, rate), [1.0])
  kernel = radial_lowpass(24, cutoff, width, rate)
  assert kernel.sum() == pytest.approx(1.0)
  for turned in (kernel.T, kernel[::-1], kernel[:, ::-1]):
    np.testing.assert_allclose(kernel, turned, atol=1e-12)
  # Of equal length in frequency, equal response along an axis and along the diagonal; halved at the cutoff.
  response = lambda down, across: np.real(np.sum(kernel * np.exp(-2j * np.pi / rate * np.add.outer(
    down * (np.arange(24) - 11.5), across * (np.arange(24) - 11.5)))))
  assert response(cutoff, 0) == pytest.approx(response(cutoff / 2**0.5, cutoff / 2**0.5), abs=0.01)
  assert response(cutoff, 0) == pytest.approx(0.5, abs=0.05) and response(12, 0) == pytest.approx(0, abs=0.02)
  x = np.random.default_rng(0).standard_normal((2, 30, 27, 3)).astype(np.float32)
  found = jax.jit(lambda x: filter_down(x, kernel, 2))(x)
  expected = np.stack([np.stack([signal.convolve2d(image[..., at], kernel, 'valid')[::2, ::2] for at in range(3)], -1)
                       for image in x])
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('rotation', [False, True])
def test_images_averages_and_sharding_rules(rotation):
  model = StyleGan3(**SMALL, rotation=rotation, average=0.9, magnitude=0.5)
  generator = model.generator()
  latent = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)

  @jax.jit
  def run(key):
    params, mutable = generator.init(key)
    trained, updated = generator.apply(params, mutable, latent, key=key)
    settled = generator.apply(params, updated, latent)[0]
    return trained, settled, updated, generator.apply(params, updated, latent[1:2])[0]

  trained, settled, updated, alone = run(jax.random.key(0))
  assert trained.shape == (3, 16, 16, 2) and trained.dtype == np.float32 and np.isfinite(trained).all()
  np.testing.assert_allclose(settled, trained, rtol=1e-4, atol=1e-5)  # there is no noise
  np.testing.assert_allclose(settled[1:2], alone, rtol=1e-3, atol=1e-4)
  # Waves are mixed by a matrix of unit gain: a sine has the mean square 1/2 before, and half of it is 1 / 2 of old 1.
  squares = np.array([layer['square'] for layer in updated['layers'].values()])
  assert (squares > 0.5).all() and (squares < 5).all()
  assert np.abs(updated['average']).max() > 0
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  for group in ('generator', 'discriminator'):
    sharding.param_shardings(shapes(getattr(model, group)())[0], mesh, AXES[group])


def test_translated_waves_give_translated_images():
  """The synthesis of T is equivariant to translation: waves moved by two pixels of the image, against its pixels moved
  by two; StyleGAN2, which the paper calls not equivariant, has noise and corners that stand still."""
  generator = StyleGan3(**{**SMALL, 'size': 32, 'width_max': 16, 'convolutions': 4}).generator()
  latent = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)
  moved = np.eye(3, dtype=np.float32)
  moved[0, 2] = -2 / 32  # waves are read to the left of their places: the image moves right

  @jax.jit
  def run(key):
    params, mutable = generator.init(key)
    draw = lambda transform: generator.apply(params, mutable, latent, transform=transform)[0]
    return draw(jnp.eye(3)), draw(moved)

  still, shifted = run(jax.random.key(0))
  error = np.mean((shifted[:, 2:-2, 4:-2] - still[:, 2:-2, 2:-4])**2)
  assert error < 1e-2 * np.var(still)
  assert np.mean((shifted - still)**2) > 10 * error


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=48), 'a power of two and at least 16, got 48'), (dict(size=8), 'at least 16, got 8'),
  (dict(critical=3), 'critical=3 must be less than convolutions=3'), (dict(magnitude=1.0), 'magnitude'),
  (dict(critic='patch'), 'critic must be one of'), (dict(width=8), 'leaves no channel'), (dict(dtype='int8'), 'dtype')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    StyleGan3(**{**SMALL, **options})
