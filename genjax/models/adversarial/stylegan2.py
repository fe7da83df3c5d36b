"""StyleGAN2 (Karras et al. 2020b): a generator with skips to the image, and a residual discriminator.

Sizes, initial values and constants are those of NVlabs/stylegan2-ada-pytorch (training/networks.py). A mapping network
turns a latent into a style w; each convolution scales its kernel by an affine function of w. The generator's parts can
be called alone, for mixed styles, path lengths, truncation and projection:

- part 'all': (latent B Z, label) -> images.
- part 'map': (latent B Z, label) -> styles B W.
- part 'synthesize': (styles B L W, one for each of L layers, None) -> images.

The mean of all styles is kept as a moving average, which training updates and truncation reads: 'average' among the
variables that change without gradients. With a key, noise is drawn; without one it is a fixed picture for each layer.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction
from genjax.models.adversarial import style_ops
from genjax.models.adversarial.style_ops import EqualConv, EqualDense
from genjax.nn.functional import Network, network
from genjax.nn.kernels import dense
from genjax.types import Array, Key, UserError

CRITICS = ('residual', 'original')
PARTS = ('all', 'map', 'synthesize')
START = 4  # side of the first map
CRITIC_MAPPING = 8  # layers of a conditional discriminator's mapping network
_HALF = math.sqrt(0.5)


def check(options: Any, name: str, least: int) -> None:
  """Checks what StyleGAN2 and StyleGAN3 have alike.

  Args:
    options: of either.
    name: of the architecture, for messages.
    least: smallest side of its images.

  Raises:
    UserError: a size that is no power of two, or an option out of range.
  """
  checks.whole(options, 1, 'size', 'channels', 'latent', 'style', 'mapping', 'width', 'width_max', 'group',
               'num_classes')  # num_classes None: unconditional
  checks.positive(options, 'mapping_rate')
  checks.between(options, ('clamp',), at_least=0)
  checks.rates(options, 'average')
  checks.dtype(options)
  if options.critic not in CRITICS:
    raise UserError(f'config.model.critic must be one of {CRITICS}, got {options.critic!r}')
  if options.size < least or options.size & (options.size - 1):
    raise UserError(f'config.model: {name} makes images with a side that is a power of two and at least {least}, got '
                    f'{options.size}; resize them by config.data.shape, resize and crop')
  if options.width < options.size:
    raise UserError(f'config.model.width={options.width} leaves no channel at {options.size} pixels; it must be at '
                    f'least {options.size}')


@dataclasses.dataclass(frozen=True)
class StyleGan2:
  """StyleGAN2 for square images with a side that is a power of two.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width Z of the latent.
    style: width W of a style.
    mapping: layers of the mapping network.
    mapping_rate: learning rate of the mapping network relative to that of the optimizer, inside of its layers.
    width: maps of side r have width // r channels,
    width_max: and at most so many.
    critic: discriminator, 'residual' or 'original', which has no shortcuts.
    group: examples over which the discriminator's minibatch deviation is taken; it divides the batch.
    clamp: activations are cut off at +-clamp, for compute types of a small range; 0 for no limit.
    average: decay of the mean style, per step; 0 keeps none, and then samples cannot be truncated.
    num_classes: number of classes; None for an unconditional model.
    dtype: compute type of convolutions; styles, images and logits are float32.

  Raises:
    UserError: a size that is no power of two, or an option out of range.
  """

  size: int = 256
  channels: int = 3
  latent: int = 512
  style: int = 512
  mapping: int = 8
  mapping_rate: float = 0.01
  width: int = 16_384
  width_max: int = 512
  critic: str = 'residual'
  group: int = 4
  clamp: float = 256.0
  average: float = 0.995
  num_classes: int | None = None
  dtype: str = 'float32'

  discriminator_norm = 'none'  # it has none: a gradient penalty has a meaning
  pack = 1

  def __post_init__(self):
    check(self, 'StyleGAN2', least=2 * START)

  @property
  def sides(self) -> tuple[int, ...]:
    """Sides of the maps, from the smallest."""
    return tuple(START << index for index in range(int(math.log2(self.size)) - 1))

  @property
  def layers(self) -> int:
    """Number L of styles."""
    return 2 * len(self.sides)

  def widths(self, side: int) -> int:
    """Channels of the maps of a side."""
    return min(self.width // side, self.width_max)

  @property
  def averaged(self) -> bool:
    """Whether the generator keeps its mean style."""
    return self.average > 0

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C around [-1, 1], float32; see the module for its parts."""
    return network(lambda rngs: StyleGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B H W C, label B 1 or None) -> logits B, float32."""
    return network(lambda rngs: StyleDiscriminator(self, rngs))


# Options of `StyleGan2` for the configurations of NVlabs/stylegan2-ada-pytorch (train.py, --cfg)
_AUTO: dict[str, Any] = dict(mapping=2)
VARIANTS: dict[str, Mapping[str, Any]] = {
  **{f'stylegan2_auto_{size}': dict(_AUTO, size=size, width=32_768 if size >= 512 else 16_384)
     for size in (32, 64, 128, 256, 512, 1024)},
  'stylegan2_paper_256': dict(size=256, group=8), 'stylegan2_paper_1024': dict(size=1024, width=32_768),
  'stylegan2_cifar': dict(_AUTO, size=32, width=32_768, critic='original', group=32),
  'stylegan2_cifar_conditional': dict(_AUTO, size=32, width=32_768, critic='original', group=32, num_classes=10),
}


class MappingNetwork(nnx.Module):
  """Latents and labels -> styles, by dense layers with leaky ReLUs.

  Args:
    inputs: width of the latent; 0 for none.
    outputs: width of a style.
    layers: number of dense layers.
    rate: see `EqualDense`.
    num_classes: number of classes; None for no label.
  """

  def __init__(self, inputs: int, outputs: int, layers: int, rate: float, num_classes: int | None, rngs: nnx.Rngs):
    self.classes = num_classes or 0
    self.embed = EqualDense(self.classes, outputs, rngs=rngs) if self.classes else None
    widths = [inputs + (outputs if self.classes else 0)] + [outputs] * layers
    self.layers = nnx.List([EqualDense(width, following, rate=rate, active=True, rngs=rngs)
                            for width, following in zip(widths, widths[1:])])

  def __call__(self, latent_BZ: Array | None, label_B: Array | None) -> Array:
    given = [] if latent_BZ is None else [style_ops.unit(latent_BZ.astype(jnp.float32))]
    if self.embed is not None:
      given.append(style_ops.unit(self.embed(jax.nn.one_hot(label_B, self.classes))))
    x_BW = jnp.concatenate(given, axis=-1)
    for layer in self.layers:
      x_BW = layer(x_BW)
    return x_BW


class StyleConv(nnx.Module):
  """A modulated convolution, noise, a bias and a leaky ReLU."""

  def __init__(self, inputs: int, outputs: int, side: int, double: bool, config: StyleGan2, rngs: nnx.Rngs):
    self.affine = EqualDense(config.style, inputs, bias=1.0, rngs=rngs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))
    self.strength = nnx.Param(jnp.zeros(()))
    self.noise = nnx.Variable(jax.random.normal(rngs.params(), (side, side)))
    self.double, self.clamp = double, config.clamp

  def __call__(self, x_BHWC: Array, style_BW: Array, key: Key | None) -> Array:
    y_BHWC = style_ops.modulated_conv(x_BHWC, dense(self.kernel.get_value()), self.affine(style_BW),
                                      double=self.double)
    rows, side = y_BHWC.shape[:2]
    noise = self.noise.get_value()[None] if key is None else jax.random.normal(key, (rows, side, side))
    y_BHWC = y_BHWC + (self.strength.get_value() * noise).astype(y_BHWC.dtype)[..., None]
    y_BHWC = y_BHWC + reduction.broadcast(self.bias.get_value(), y_BHWC.shape, y_BHWC.dtype)
    return style_ops.activate(y_BHWC, clamp=self.clamp)


class ToImage(nnx.Module):
  """A modulated convolution of size 1, not demodulated, to the channels of an image."""

  def __init__(self, inputs: int, config: StyleGan2, rngs: nnx.Rngs):
    self.affine = EqualDense(config.style, inputs, bias=1.0, rngs=rngs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (1, 1, inputs, config.channels)))
    self.bias = nnx.Param(jnp.zeros(config.channels))
    self.scale, self.clamp = 1.0 / math.sqrt(inputs), config.clamp

  def __call__(self, x_BHWC: Array, style_BW: Array) -> Array:
    style_BC = self.affine(style_BW) * self.scale
    y_BHWC = style_ops.modulated_conv(x_BHWC, dense(self.kernel.get_value()), style_BC, demodulate=False)
    y_BHWC = y_BHWC + reduction.broadcast(self.bias.get_value(), y_BHWC.shape, y_BHWC.dtype)
    y_BHWC = jnp.clip(y_BHWC, -self.clamp, self.clamp) if self.clamp else y_BHWC
    return y_BHWC.astype(jnp.float32)


class StyleGenerator(nnx.Module):
  """See `StyleGan2.generator`."""

  def __init__(self, config: StyleGan2, rngs: nnx.Rngs):
    sides = config.sides
    widths = [config.widths(side) for side in sides]
    self.mapping = MappingNetwork(config.latent, config.style, config.mapping, config.mapping_rate, config.num_classes,
                                  rngs)
    self.average = nnx.Variable(jnp.zeros(config.style)) if config.average else None
    self.start = nnx.Param(jax.random.normal(rngs.params(), (START, START, widths[0])))
    convolutions = [StyleConv(widths[0], widths[0], START, False, config, rngs)]
    for side, before, width in zip(sides[1:], widths, widths[1:]):
      convolutions += [StyleConv(before, width, side, True, config, rngs),
                       StyleConv(width, width, side, False, config, rngs)]
    self.layers = nnx.List(convolutions)
    self.images = nnx.List([ToImage(width, config, rngs) for width in widths])
    self.decay, self.dtype = config.average, jnp.dtype(config.dtype)

  def __call__(self, given: Array, label_B: Array | None = None, key: Key | None = None, part: str = 'all') -> Array:
    if part == 'synthesize':
      return self._image(given, key)
    style_BW = self.mapping(given, label_B)
    if key is not None and self.average is not None:
      mean_W = jax.lax.stop_gradient(jnp.mean(style_BW, axis=0))
      self.average.set_value(mean_W + self.decay * (self.average.get_value() - mean_W))
    if part == 'map':
      return style_BW
    count = len(self.layers) + 1
    return self._image(jnp.broadcast_to(style_BW[:, None], (len(style_BW), count, style_BW.shape[-1])), key)

  def _image(self, style_BLW: Array, key: Key | None) -> Array:
    start = self.start.get_value().astype(self.dtype)
    x_BHWC, image_BHWC = jnp.broadcast_to(start, (len(style_BLW), *start.shape)), None
    for index, layer in enumerate(self.layers):
      x_BHWC = layer(x_BHWC, style_BLW[:, index], None if key is None else jax.random.fold_in(key, index))
      if index % 2 == 0:  # the last convolution of a side; its image has the style of the convolution that follows
        shown = self.images[index // 2](x_BHWC, style_BLW[:, index + 1])
        image_BHWC = shown if image_BHWC is None else style_ops.enlarge(image_BHWC) + shown
    assert image_BHWC is not None
    return image_BHWC


class CriticBlock(nnx.Module):
  """Two convolutions, the second of which halves, beside a shortcut if the discriminator is residual."""

  def __init__(self, inputs: int, outputs: int, config: StyleGan2, rngs: nnx.Rngs):
    gain = _HALF if config.critic == 'residual' else 1.0
    self.conv_in = EqualConv(inputs, inputs, 3, clamp=config.clamp, rngs=rngs)
    self.conv_out = EqualConv(inputs, outputs, 3, halve=True, gain=gain, clamp=config.clamp, rngs=rngs)
    self.shortcut = EqualConv(inputs, outputs, 1, halve=True, bias=False, active=False, gain=gain,
                              rngs=rngs) if config.critic == 'residual' else None

  def __call__(self, x_BHWC: Array) -> Array:
    y_BHWC = self.conv_out(self.conv_in(x_BHWC))
    return y_BHWC if self.shortcut is None else self.shortcut(x_BHWC) + y_BHWC


class StyleDiscriminator(nnx.Module):
  """See `StyleGan2.discriminator`."""

  def __init__(self, config: StyleGan2, rngs: nnx.Rngs):
    sides = config.sides[::-1]
    widths = [config.widths(side) for side in sides]
    self.from_image = EqualConv(config.channels, widths[0], 1, clamp=config.clamp, rngs=rngs)
    self.blocks = nnx.List([CriticBlock(width, following, config, rngs) for width, following in zip(widths,
                                                                                                    widths[1:])])
    last = widths[-1]
    self.conv = EqualConv(last + 1, last, 3, clamp=config.clamp, rngs=rngs)
    self.hidden = EqualDense(START**2 * last, last, active=True, rngs=rngs)
    self.output = EqualDense(last, last if config.num_classes else 1, rngs=rngs)
    self.mapping = MappingNetwork(0, last, CRITIC_MAPPING, config.mapping_rate, config.num_classes,
                            rngs) if config.num_classes else None
    self.group, self.dtype = config.group, jnp.dtype(config.dtype)

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None) -> Array:
    x_BHWC = self.from_image(x_BHWC.astype(self.dtype))
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    x_BHWC = self.conv(style_ops.with_deviation(x_BHWC.astype(jnp.float32), self.group))
    y_BC = self.output(self.hidden(x_BHWC.reshape(len(x_BHWC), -1)))
    if self.mapping is None:
      return y_BC[:, 0]
    assert label_BP is not None
    return jnp.sum(y_BC * self.mapping(None, label_BP[:, 0]), axis=-1) / math.sqrt(y_BC.shape[-1])


# Path regex -> logical axes, by group, as for `dcgan.DCGAN_AXES`.
AXES = {
  'generator': ((r'mapping/layers/\d+/kernel', (None, 'mlp')),
                (r'(layers|images)/\d+/kernel', (None, None, 'mlp', None))),
  'discriminator': ((r'(blocks/\d+/(conv_in|conv_out)|conv)/kernel', (None, None, None, 'mlp')),
                    (r'hidden/kernel', ('mlp', None))),
}
