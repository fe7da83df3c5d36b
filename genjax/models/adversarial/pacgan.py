"""Generators and discriminators of PacGAN's experiments on stacked MNIST (Lin et al. 2018, section 4.2).

They are DCGANs whose maps halve with rounding up, as TensorFlow's 'SAME' padding does: 28, 14, 7, 4 and 2 pixels. Every
layer has a bias, as in the code of the paper (fjxmlzn/PacGAN). Labels enter as in `genjax.models.adversarial.dcgan`.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.adversarial.dcgan import Head
from genjax.nn.conv import Conv, ConvTranspose, Dense
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, network
from genjax.nn.norms import BatchNorm
from genjax.types import Array, Key, UserError

_NORMAL = nnx.initializers.normal(0.02)
_TRUNCATED = nnx.initializers.truncated_normal(0.02)  # of deviation 0.02 before it is cut off at two deviations
LASTS = ('transposed', 'convolution')


@dataclasses.dataclass(frozen=True)
class PacDcgan:
  """A DCGAN at any size; the defaults are the networks of the comparison with VEEGAN.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width of the latent.
    generator_widths: channels of the generator's first map and of those that follow, each of which is twice as large.
    discriminator_widths: channels of the discriminator's maps, each half as large as the one before.
    kernel: size of every kernel, in pixels.
    last: last layer of the generator: 'transposed' enlarges once more, 'convolution' keeps the size.
    first_norm: whether the discriminator's first map, too, has batch normalisation.
    slope: of the discriminator's leaky ReLU below 0.
    num_classes: number of classes, as in `genjax.models.adversarial.dcgan.Dcgan`; None for an unconditional model.
    pack: samples that the discriminator judges together, stacked along the channels.
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    UserError: an option out of range, or a size that is halved to nothing.
  """

  size: int = 28
  channels: int = 3
  latent: int = 100
  generator_widths: tuple[int, ...] = (512, 256, 128, 64)
  discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)
  kernel: int = 5
  last: str = 'transposed'
  first_norm: bool = False
  slope: float = 0.2
  num_classes: int | None = None
  pack: int = 1
  momentum: float = 0.9
  dtype: str = 'float32'

  discriminator_norm = 'batch'
  spectral = False

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'channels', 'latent', 'generator_widths', 'discriminator_widths', 'kernel', 'pack',
                 'num_classes')  # num_classes None: unconditional
    checks.between(self, ('slope',), at_least=0)
    checks.rates(self, 'momentum')
    checks.dtype(self)
    if self.last not in LASTS:
      raise UserError(f'config.model.last must be one of {LASTS}, got {self.last!r}')
    if not self.generator_widths or not self.discriminator_widths or len(self.generator_sides) < 2:
      raise UserError('config.model.generator_widths and discriminator_widths need a layer each that changes the size, '
                      f'got {self.generator_widths} and {self.discriminator_widths}')
    for name, sides in (('generator_widths', self.generator_sides), ('discriminator_widths',
                                                                     self.discriminator_sides)):
      if 1 in sides[:-1]:
        raise UserError(f'config.model.{name} halves images of {self.size} pixels {len(sides) - 1} times, and they are '
                        f'a single pixel after {sides.index(1)}; take fewer widths, or larger images')

  @property
  def generator_sides(self) -> tuple[int, ...]:
    """Side of an image, and of the generator's maps from the last to the first."""
    return _halved(self.size, len(self.generator_widths) - (self.last == 'convolution'))

  @property
  def discriminator_sides(self) -> tuple[int, ...]:
    """Side of an image, and of the discriminator's maps from the first to the last."""
    return _halved(self.size, len(self.discriminator_widths))

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C in [-1, 1], float32."""
    return network(lambda rngs: PacGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B/p H W pC, label B/p p or None) -> logits B/p, float32."""
    return network(lambda rngs: PacDiscriminator(self, rngs))


class PacGenerator(nnx.Module):
  """See `PacDcgan.generator`."""

  def __init__(self, config: PacDcgan, rngs: nnx.Rngs):
    dtype, widths = jnp.dtype(config.dtype), config.generator_widths
    norm = lambda width: BatchNorm(width, momentum=config.momentum, dtype=dtype, rngs=rngs)
    self.sides = config.generator_sides[::-1]
    classes = config.num_classes
    self.embed = None if classes is None else Embed(classes, config.latent, rngs=rngs,
                                                    embedding_init=nnx.initializers.normal(1.0))
    inputs = config.latent if classes is None else 2 * config.latent
    self.project = Dense(inputs, self.sides[0]**2 * widths[0], init=_NORMAL, dtype=dtype, rngs=rngs)
    following = widths[1:] + ((config.channels,) if config.last == 'transposed' else ())
    self.stages = nnx.List([Enlarging(ConvTranspose(width, wider, config.kernel, 2, init=_NORMAL, dtype=dtype,
                                                    rngs=rngs))
                            for width, wider in zip(widths, following)])
    self.norms = nnx.List([norm(width) for width in widths])
    self.last = None if config.last == 'transposed' else Conv(widths[-1], config.channels, config.kernel,
                                                              init=_TRUNCATED, dtype=dtype, rngs=rngs)

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    if self.embed is not None:
      latent_BZ = jnp.concatenate([latent_BZ, self.embed(jnp.asarray(label_B))], axis=-1)
    x_BHWC = self.project(latent_BZ).reshape(len(latent_BZ), self.sides[0], self.sides[0], -1)
    for norm, stage, side in zip(self.norms, self.stages, self.sides[1:]):
      x_BHWC = stage(jax.nn.relu(norm(x_BHWC, key)), side)
    if self.last is not None:
      x_BHWC = self.last(jax.nn.relu(self.norms[-1](x_BHWC, key)))
    return jnp.tanh(x_BHWC.astype(jnp.float32))


class Enlarging(nnx.Module):
  """A transposed convolution to any size that halves to that of its input, as `conv2d_transpose` of TensorFlow."""

  def __init__(self, linear: ConvTranspose):
    self.linear = linear

  def __call__(self, x_BHWC: Array, side: int) -> Array:
    # To an odd side, the padding that TensorFlow takes away is one pixel more above and to the left.
    odd = side % 2
    return self.linear(x_BHWC)[:, odd:odd + side, odd:odd + side]


class PacDiscriminator(nnx.Module):
  """See `PacDcgan.discriminator`."""

  def __init__(self, config: PacDcgan, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    widths = (config.pack * config.channels, *config.discriminator_widths)
    self.stages = nnx.List([Conv(width, following, config.kernel, 2, init=_TRUNCATED, dtype=dtype, rngs=rngs)
                            for width, following in zip(widths, widths[1:])])
    first = 0 if config.first_norm else 1
    self.norms = nnx.List([BatchNorm(width, momentum=config.momentum, dtype=dtype, rngs=rngs)
                           for width in config.discriminator_widths[first:]])
    self.head = Head(config.discriminator_sides[-1]**2 * widths[-1], config, True, _NORMAL, rngs)
    self.slope = config.slope

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None) -> Array:
    without = len(self.stages) - len(self.norms)
    for number, stage in enumerate(self.stages):
      x_BHWC = stage(x_BHWC)
      x_BHWC = x_BHWC if number < without else self.norms[number - without](x_BHWC, key)
      x_BHWC = jax.nn.leaky_relu(x_BHWC, self.slope)
    return self.head(x_BHWC.reshape(len(x_BHWC), -1), label_BP, key)


def _halved(size: int, times: int) -> tuple[int, ...]:
  sides = [size]
  for _ in range(times):
    sides.append(-(-sides[-1] // 2))
  return tuple(sides)


# Path regex -> logical axes, by group, as of `genjax.models.adversarial.dcgan`
AXES = {
  'generator': ((r'project/kernel', (None, 'mlp')), (r'stages/\d+/linear/kernel', (None, None, 'mlp', None))),
  'discriminator': ((r'stages/\d+/kernel', (None, None, None, 'mlp')), (r'head/output/kernel', ('mlp', None))),
}
