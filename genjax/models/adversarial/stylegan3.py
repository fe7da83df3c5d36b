"""StyleGAN3 (Karras et al. 2021): a generator without aliasing, equivariant to translation (T) or rotation, too (R).

Sizes, filters and constants are those of NVlabs/stylegan3 (training/networks_stylegan3.py). Maps are samples of signals
with a known band limit: each layer convolves, enlarges, applies its leaky ReLU, and filters and shrinks again. The
first map is made of waves, which an affine function of w shifts and turns. The discriminator is that of StyleGAN2.

The generator has the parts 'all', 'map' and 'synthesize' of `genjax.models.adversarial.stylegan2`, and two averages
that training updates: the mean style, and the mean square of the input of each layer, by whose root the input is
divided. There is no noise.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
import scipy.special

from genjax import checks, reduction, sharding
from genjax.models.adversarial import style_ops
from genjax.models.adversarial.style_ops import EqualDense
from genjax.models.adversarial.stylegan2 import MappingNetwork, StyleDiscriminator, StyleGan2, check
from genjax.nn.cpu_convolutions import NHWC
from genjax.nn.functional import Network, network
from genjax.nn.kernels import dense
from genjax.types import Array, Key, UserError

MARGIN = 10  # pixels around a map, which filters read beyond the edges of the image
TAPS = 6  # of a filter, for each pixel of the lower rate
ENLARGED = 2  # factor by which maps are enlarged for the leaky ReLU
OUTPUT_SCALE = 0.25
FIRST_CUTOFF, FIRST_STOPBAND, LAST_STOPBAND = 2.0, 2.0**2.1, 2.0**0.3  # the last one relative to the last cutoff


@dataclasses.dataclass(frozen=True)
class StyleGan3:
  """StyleGAN3 for square images with a side that is a power of two.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width Z of the latent.
    style: width W of a style.
    mapping: layers of the mapping network.
    mapping_rate: learning rate of the mapping network relative to that of the optimizer, inside of its layers.
    width: maps with a cutoff of f cycles along a side have width / (2 f) channels; in the discriminator, maps of side r
      have width // r;
    width_max: and at most so many.
    rotation: whether the generator is StyleGAN3-R: convolutions of size 1, filters without a direction, and twice the
      channels.
    convolutions: layers of the generator before the one that makes the image.
    critical: the last of these, which keep the band limit of the image and have no margin.
    critic: discriminator, see `StyleGan2`.
    group: examples over which the discriminator's minibatch deviation is taken; it divides the batch.
    clamp: activations are cut off at +-clamp; 0 for no limit.
    average: decay of the mean style, per step; 0 keeps none, and then samples cannot be truncated.
    magnitude: decay of the mean squares of inputs, per step; published is one half in 20,000 images.
    num_classes: number of classes; None for an unconditional model.
    dtype: compute type of convolutions; styles, images and logits are float32.

  Raises:
    UserError: a size that is no power of two, or an option out of range.
  """

  size: int = 256
  channels: int = 3
  latent: int = 512
  style: int = 512
  mapping: int = 2
  mapping_rate: float = 0.01
  width: int = 32_768
  width_max: int = 512
  rotation: bool = False
  convolutions: int = 14
  critical: int = 2
  critic: str = 'residual'
  group: int = 4
  clamp: float = 256.0
  average: float = 0.998
  magnitude: float = 0.999
  num_classes: int | None = None
  dtype: str = 'float32'

  discriminator_norm = 'none'  # it has none: a gradient penalty has a meaning
  pack = 1

  def __post_init__(self):
    check(self, 'StyleGAN3', least=16)
    checks.whole(self, 1, 'critical')
    checks.whole(self, 2, 'convolutions')
    checks.rates(self, 'magnitude')
    if self.critical >= self.convolutions:
      raise UserError(f'config.model.critical={self.critical} must be less than convolutions={self.convolutions}')

  @property
  def layers(self) -> int:
    """Number L of styles: of the waves, of each layer, and of the one that makes the image."""
    return self.convolutions + 2

  @property
  def averaged(self) -> bool:
    """Whether the generator keeps its mean style."""
    return self.average > 0

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C around [-1, 1], float32; see the module for its parts."""
    return network(lambda rngs: AliasFreeGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B H W C, label B 1 or None) -> logits B, float32."""
    shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(StyleGan2)}
    return network(lambda rngs: StyleDiscriminator(StyleGan2(**shared), rngs))


# Options of `StyleGan3` for the configurations of NVlabs/stylegan3 (train.py, --cfg)
VARIANTS: dict[str, Mapping[str, Any]] = {
  f'stylegan3_{kind}_{size}': dict(size=size, rotation=kind == 'r') for kind in 'tr'
  for size in (32, 64, 128, 256, 512, 1024)}


class Band(NamedTuple):
  """A map: side in pixels, sampling rate (pixels for the side of the image), cutoff and half width of the transition
  band (both in cycles along that side), and channels."""

  side: int
  rate: int
  cutoff: float
  half_width: float
  channels: int


def bands(config: StyleGan3) -> list[Band]:
  """The output of each layer, the last one an image (Karras et al. 2021, section 3.2 and appendix D)."""
  count, times = config.convolutions, 2 if config.rotation else 1
  last_cutoff = config.size / 2
  exponent = np.minimum(np.arange(count + 1) / (count - config.critical), 1)
  cutoff = FIRST_CUTOFF * (last_cutoff / FIRST_CUTOFF)**exponent
  stopband = FIRST_STOPBAND * (last_cutoff * LAST_STOPBAND / FIRST_STOPBAND)**exponent
  rate = np.exp2(np.ceil(np.log2(np.minimum(2 * stopband, config.size))))
  half_width = np.maximum(stopband, rate / 2) - cutoff
  side = rate + 2 * MARGIN
  side[-2:] = config.size
  channels = np.rint(np.minimum(times * config.width / 2 / cutoff, times * config.width_max))
  channels[-1] = config.channels
  return [Band(int(side[at]), int(rate[at]), float(cutoff[at]), float(half_width[at]), int(channels[at]))
          for at in range(count + 1)]


def lowpass(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
  """A Kaiser low-pass filter of sum 1.

  Args:
    taps: of the filter; 1 is the identity.
    cutoff: frequency at which the response falls to one half.
    width: of the transition band.
    rate: sampling rate, in the unit of both.
  """
  if taps == 1:
    return np.ones(1)
  return np.asarray(scipy.signal.firwin(taps, cutoff=cutoff, width=width, fs=rate))


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
  """The same in two dimensions with a response that depends on the length of the frequency alone: a jinc, windowed."""
  place = (np.arange(taps) - (taps - 1) / 2) / rate
  radius = np.hypot(*np.meshgrid(place, place))
  scaled = np.where(radius > 0, np.pi * radius, 1.0)
  response = np.where(radius > 0, scipy.special.j1(2 * cutoff * scaled) / scaled, cutoff)
  window = np.kaiser(taps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2))))
  kernel = response * np.outer(window, window)
  return kernel / kernel.sum()


def filter_down(x_BHWC: Array, kernel_HW: np.ndarray, down: int) -> Array:
  """Filters without padding in two dimensions, and keeps every `down`-th pixel. The kernel is symmetric."""
  channels = x_BHWC.shape[-1]
  kernel = jnp.asarray(np.tile(kernel_HW[:, :, None, None], (1, 1, 1, channels)), x_BHWC.dtype)
  return jax.lax.conv_general_dilated(x_BHWC, kernel, (down, down), 'VALID', dimension_numbers=NHWC,
                                      feature_group_count=channels)


class Waves(nnx.Module):
  """Styles -> maps of waves with drawn frequencies and phases, shifted and turned by the style, mixed by a matrix.

  Args:
    band: of the maps.
    config: options.
  """

  def __init__(self, band: Band, config: StyleGan3, rngs: nnx.Rngs):
    wave_C2 = jax.random.normal(rngs.params(), (band.channels, 2))
    length_C1 = jnp.linalg.norm(wave_C2, axis=1, keepdims=True)
    # Lengths that are uniform on the disk of the cutoff
    self.frequency = nnx.Variable(wave_C2 / (length_C1 * jnp.exp(length_C1**2)**0.25) * band.cutoff)
    self.phase = nnx.Variable(jax.random.uniform(rngs.params(), (band.channels,)) - 0.5)
    self.affine = EqualDense(config.style, 4, rngs=rngs)
    assert self.affine.kernel is not None and self.affine.bias is not None
    self.affine.kernel.set_value(jnp.zeros((config.style, 4)))
    self.affine.bias.set_value(jnp.array([1.0, 0.0, 0.0, 0.0]))  # neither turned nor shifted
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (band.channels, band.channels)))
    self.band = band

  def __call__(self, style_BW: Array, transform: Array | None) -> Array:
    """Maps B H W C; `transform` is a 3 x 3 matrix of the user, by which places are mapped at last."""
    band, turn_B4 = self.band, self.affine(style_BW)
    turn_B4 = turn_B4 / jnp.linalg.norm(turn_B4[:, :2], axis=1, keepdims=True)
    cosine, sine, across, down = turn_B4.T
    zero, one = jnp.zeros_like(cosine), jnp.ones_like(cosine)
    matrix = lambda *rows: jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    turned_B33 = matrix((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one))
    shifted_B33 = matrix((one, zero, -across), (zero, one, -down), (zero, zero, one))
    whole_B33 = turned_B33 @ shifted_B33
    whole_B33 = whole_B33 if transform is None else whole_B33 @ transform
    frequency_C2 = self.frequency.get_value()
    phase_BC = self.phase.get_value() + jnp.einsum('cd,bd->bc', frequency_C2, whole_B33[:, :2, 2])
    frequency_BC2 = jnp.einsum('cd,bde->bce', frequency_C2, whole_B33[:, :2, :2])
    # A transform that enlarges may push frequencies past the cutoff; these fade out.
    length_BC = jnp.linalg.norm(frequency_BC2, axis=2)
    amplitude_BC = jnp.clip(1 - (length_BC - band.cutoff) / (band.rate / 2 - band.cutoff), 0, 1)
    place = (np.arange(band.side) + 0.5 - band.side / 2) / band.rate
    angle_BHWC = (frequency_BC2[:, None, None, :, 0] * place[None, None, :, None]
                  + frequency_BC2[:, None, None, :, 1] * place[None, :, None, None] + phase_BC[:, None, None])
    wave_BHWC = jnp.sin(2 * jnp.pi * angle_BHWC) * amplitude_BC[:, None, None]
    return wave_BHWC @ (dense(self.kernel.get_value()) / math.sqrt(band.channels))


class AliasFreeLayer(nnx.Module):
  """A modulated convolution and a leaky ReLU between two filters; or, for the image, a modulated convolution of size 1.

  Args:
    before, after: what it reads and what it makes.
    size: of the kernel.
    radial: whether the filter behind the leaky ReLU has no direction.
    makes_image: whether it makes the image.
    config: options.
  """

  def __init__(self, before: Band, after: Band, size: int, radial: bool, makes_image: bool, config: StyleGan3,
               rngs: nnx.Rngs):
    self.affine = EqualDense(config.style, before.channels, bias=1.0, rngs=rngs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (size, size, before.channels, after.channels)))
    self.bias = nnx.Param(jnp.zeros(after.channels))
    self.square = nnx.Variable(jnp.ones(()))
    self.makes_image, self.clamp, self.decay = makes_image, config.clamp, config.magnitude
    self.scale = 1.0 / math.sqrt(before.channels * size**2)
    inner = max(before.rate, after.rate) * (1 if makes_image else ENLARGED)
    self.up, self.down = round(inner / before.rate), round(inner / after.rate)
    count = lambda factor: TAPS * factor if factor > 1 and not makes_image else 1
    up_taps = lowpass(count(self.up), before.cutoff, 2 * before.half_width, inner)
    self.up_taps = tuple((self.up * up_taps).tolist())
    design = (count(self.down), after.cutoff, 2 * after.half_width, inner)
    self.radial = radial and design[0] > 1
    taps = (radial_lowpass if self.radial else lowpass)(*design)
    self.down_taps: Any = tuple(map(tuple, taps.tolist())) if self.radial else tuple(taps.tolist())
    # The enlarged map has what both filters read, and the grid is shifted by half a pixel of the map before.
    total = (after.side - 1) * self.down + 1 - (before.side + size - 1) * self.up + len(up_taps) + design[0] - 2
    low = (total + self.up) // 2
    self.pad = (low, total - low)

  def __call__(self, x_BHWC: Array, style_BW: Array, key: Key | None) -> Array:
    if key is not None:
      square = jax.lax.stop_gradient(jnp.mean(jnp.square(x_BHWC.astype(jnp.float32))))
      self.square.set_value(square + self.decay * (self.square.get_value() - square))
    gain = jax.lax.rsqrt(self.square.get_value())
    style_BC, kernel_HWIO = self.affine(style_BW), dense(self.kernel.get_value())
    if self.makes_image:
      y_BHWC = style_ops.modulated_conv(x_BHWC, kernel_HWIO, style_BC * self.scale * gain, demodulate=False)
      y_BHWC = y_BHWC + reduction.broadcast(self.bias.get_value(), y_BHWC.shape, y_BHWC.dtype)
      return jnp.clip(y_BHWC, -self.clamp, self.clamp) if self.clamp else y_BHWC
    edge = kernel_HWIO.shape[0] // 2  # maps grow by it on each side
    x_BHWC = jnp.pad(x_BHWC, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    y_BHWC = style_ops.modulated_conv(x_BHWC, kernel_HWIO, style_ops.unit(style_BC)) * gain.astype(x_BHWC.dtype)
    y_BHWC = y_BHWC + reduction.broadcast(self.bias.get_value(), y_BHWC.shape, y_BHWC.dtype)
    y_BHWC = style_ops.upfirdn(y_BHWC, self.up_taps, up=self.up, pad=self.pad)
    y_BHWC = style_ops.activate(y_BHWC, clamp=self.clamp)
    if self.radial:
      return filter_down(y_BHWC, np.asarray(self.down_taps), self.down)
    return style_ops.upfirdn(y_BHWC, self.down_taps, down=self.down)


class AliasFreeGenerator(nnx.Module):
  """See `StyleGan3.generator`."""

  def __init__(self, config: StyleGan3, rngs: nnx.Rngs):
    made = bands(config)
    self.mapping = MappingNetwork(config.latent, config.style, config.mapping, config.mapping_rate, config.num_classes,
                                  rngs)
    self.average = nnx.Variable(jnp.zeros(config.style)) if config.average else None
    self.waves = Waves(made[0], config, rngs)
    size, last = 1 if config.rotation else 3, config.convolutions
    self.layers = nnx.List([
      AliasFreeLayer(made[max(index - 1, 0)], band, 1 if index == last else size,
                     config.rotation and index < last - config.critical, index == last, config, rngs)
      for index, band in enumerate(made)])
    self.decay, self.dtype = config.average, jnp.dtype(config.dtype)

  def __call__(self, given: Array, label_B: Array | None = None, key: Key | None = None, part: str = 'all',
               transform: Array | None = None) -> Array:
    if part == 'synthesize':
      return self._image(given, key, transform)
    style_BW = self.mapping(given, label_B)
    if key is not None and self.average is not None:
      mean_W = jax.lax.stop_gradient(jnp.mean(style_BW, axis=0))
      self.average.set_value(mean_W + self.decay * (self.average.get_value() - mean_W))
    if part == 'map':
      return style_BW
    shape = (len(style_BW), len(self.layers) + 1, style_BW.shape[-1])
    return self._image(jnp.broadcast_to(style_BW[:, None], shape), key, transform)

  def _image(self, style_BLW: Array, key: Key | None, transform: Array | None) -> Array:
    x_BHWC = self.waves(style_BLW[:, 0], transform).astype(self.dtype)
    x_BHWC = sharding.constrain(x_BHWC, 'batch', None, None, None, name='waves B H W C')
    for index, layer in enumerate(self.layers):
      x_BHWC = layer(x_BHWC, style_BLW[:, index + 1], key)
    return OUTPUT_SCALE * x_BHWC.astype(jnp.float32)


# Path regex -> logical axes, by group. Widths of the generator's maps are no multiples: only its mapping is split.
AXES = {
  'generator': ((r'mapping/layers/\d+/kernel', (None, 'mlp')),),
  'discriminator': ((r'(blocks/\d+/(conv_in|conv_out)|conv)/kernel', (None, None, None, 'mlp')),
                    (r'hidden/kernel', ('mlp', None))),
}
