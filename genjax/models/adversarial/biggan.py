"""BigGAN and BigGAN-deep (Brock et al. 2019), with SAGAN and SNGAN as options, as in ajbrock/BigGAN-PyTorch.

Channels of all maps are multiples of one width. Classes enter the generator's norms, by one embedding that all norms
share or by tables of each, and the discriminator by projection. The latent enters the first layer, and in equal chunks
the norms too; in BigGAN-deep all of it enters all norms.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.adversarial import biggan_blocks as blocks
from genjax.models.adversarial.dcgan import Head
from genjax.models.adversarial.residual import SelfAttention
from genjax.nn.conv import Conv, Dense
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, network
from genjax.nn.norms import BatchNorm
from genjax.types import Array, Key, UserError

INITS = {'orthogonal': nnx.initializers.orthogonal(), 'normal': nnx.initializers.normal(0.02),
         'xavier': nnx.initializers.glorot_uniform()}
# Size of the images -> multiples of the width of the generator's first map and after each stage; the same of the
# discriminator after each block (of BigGAN-deep: after its first convolution and each stage), and how many halve
MULTIPLES = {
  32: ((4, 4, 4, 4), (4, 4, 4, 4), 2), 64: ((16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
  128: ((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5), 256: ((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 6)}


@dataclasses.dataclass(frozen=True)
class BigGan:
  """Networks for square images; the defaults are those of the script for CIFAR-10.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width Z of the latent.
    generator_width: channels that the generator's multiples multiply.
    discriminator_width: channels that the discriminator's multiples multiply.
    generator_multiples: of the generator's first map, and after each of its stages, each of which doubles the size;
      () for those that are published for this size, see `MULTIPLES`.
    discriminator_multiples: after each block of the discriminator; () as above. In BigGAN-deep the first is that of a
      convolution, and a stage of blocks follows for each other.
    halvings: how many of the discriminator's blocks or stages halve the size; 0 for what is published.
    depth: bottlenecks of a stage of BigGAN-deep; 0 for the blocks of BigGAN.
    generator_attention: sides of the maps, in pixels, behind which the generator has an attention.
    discriminator_attention: the same of the discriminator: behind the first block or stage with maps of a side.
    shared: width of the embedding of classes that all norms of the generator share; 0: tables of each norm.
    chunks: whether the latent is cut into equal chunks, one for the first map and one for each stage. BigGAN-deep has
      none: all of its norms read the whole latent.
    wide: whether a discriminator's block changes the channels in its first convolution, as in BigGAN and SAGAN, or in
      its second, as in SNGAN.
    init: initializer of kernels and tables: 'orthogonal', 'normal' (deviation 0.02) or 'xavier'. Biases are 0.
    num_classes: number of classes; None for an unconditional model.
    pack: samples that the discriminator judges together, stacked along the channels (PacGAN).
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters, softmax and outputs are float32.

  Raises:
    UserError: a size that the blocks do not divide, a latent that chunks do not divide, or an option out of range.
  """

  size: int = 32
  channels: int = 3
  latent: int = 128
  generator_width: int = 64
  discriminator_width: int = 64
  generator_multiples: tuple[int, ...] = ()
  discriminator_multiples: tuple[int, ...] = ()
  halvings: int = 0
  depth: int = 0
  generator_attention: tuple[int, ...] = ()
  discriminator_attention: tuple[int, ...] = ()
  shared: int = 0
  chunks: bool = False
  wide: bool = True
  init: str = 'orthogonal'
  num_classes: int | None = None
  pack: int = 1
  momentum: float = 0.9
  dtype: str = 'float32'

  spectral = True  # what `dcgan.Head` reads
  discriminator_norm = 'none'  # a gradient penalty has a meaning

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'channels', 'latent', 'generator_width', 'discriminator_width', 'pack',
                 'generator_multiples', 'discriminator_multiples', 'generator_attention', 'discriminator_attention',
                 'num_classes')  # num_classes None: unconditional
    checks.whole(self, 0, 'halvings', 'depth', 'shared')
    checks.rates(self, 'momentum')
    checks.dtype(self)
    if self.init not in INITS:
      raise UserError(f'config.model.init must be one of {tuple(INITS)}, got {self.init!r}')
    self._check_sizes()
    self._check_told()

  def _check_sizes(self) -> None:
    known = self.size in MULTIPLES
    given = self.generator_multiples and self.discriminator_multiples and self.halvings
    if not (known or given):
      raise UserError(f'config.model.generator_multiples, discriminator_multiples and halvings are needed at size '
                      f'{self.size}; they are published for {tuple(MULTIPLES)}')
    generator, discriminator, halvings = self.shape
    if len(generator) < 2 or len(discriminator) - bool(self.depth) < max(halvings, 1):
      raise UserError(f'config.model.generator_multiples needs the first map and a stage, and discriminator_multiples '
                      f'halvings={halvings} {"stages and the first convolution" if self.depth else "blocks"}, got '
                      f'{generator} and {discriminator}')
    for name, doublings in (('generator_multiples', len(generator) - 1), ('halvings', halvings)):
      if self.size % 2**doublings:
        raise UserError(f'config.model.{name} has {doublings} stages that change the size by two, so that the images '
                        f'need a side that {2**doublings} divides, got {self.size}; resize them or take fewer')
    for name, sides in (('generator_attention', self.generator_sides),
                        ('discriminator_attention', self.discriminator_sides)):
      if wrong := [side for side in getattr(self, name) if side not in sides or side % 2]:
        raise UserError(f'config.model.{name} must have even sides of maps behind a stage, of '
                        f'{sorted({side for side in sides if side % 2 == 0})}, got {wrong}')
    if self.depth and (self.generator_width * min(generator) % blocks.RATIO
                       or self.discriminator_width * min(discriminator) % blocks.RATIO
                       or any(after < before for before, after in zip(discriminator, discriminator[1:]))
                       or any(after > before for before, after in zip(generator, generator[1:]))):
      raise UserError(f'bottlenecks of config.model.depth={self.depth} need channels that {blocks.RATIO} divides, '
                      'which do not grow in the generator and do not fall in the discriminator; change widths or '
                      'multiples')

  def _check_told(self) -> None:
    if self.shared and self.num_classes is None:
      raise UserError(f'config.model.shared={self.shared} embeds classes, and an unconditional model has none; set it '
                      'to 0, or config.objective.conditional to True')
    if self.depth and self.chunks:
      raise UserError('config.model.chunks is an option of BigGAN; BigGAN-deep (depth above 0) gives its whole latent '
                      'to all norms: set chunks to False')
    if (self.depth or self.chunks) and self.num_classes and not self.shared:
      raise UserError('norms that read latents and classes need config.model.shared, the width of the embedding of '
                      'classes that they share (128 in BigGAN); got 0')
    if self.chunks and self.latent % len(self.shape[0]):
      raise UserError(f'config.model.chunks cuts the latent into {len(self.shape[0])} equal parts, one for the first '
                      f'map and one for each stage, which do not divide latent={self.latent}; take '
                      f'{self.latent // len(self.shape[0]) * len(self.shape[0])}')

  @property
  def shape(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Multiples of the generator and the discriminator, and how many blocks halve."""
    published = MULTIPLES.get(self.size, ((), (), 0))
    return (tuple(self.generator_multiples) or published[0], tuple(self.discriminator_multiples) or published[1],
            self.halvings or published[2])

  @property
  def generator_sides(self) -> tuple[int, ...]:
    """Side of the maps after each stage of the generator."""
    stages = len(self.shape[0]) - 1
    return tuple(self.size >> (stages - 1 - index) for index in range(stages))

  @property
  def discriminator_sides(self) -> tuple[int, ...]:
    """Side of the maps after each block or stage of the discriminator."""
    stages = len(self.shape[1]) - bool(self.depth)
    return tuple(self.size >> min(index + 1, self.shape[2]) for index in range(stages))

  @property
  def making(self) -> blocks.Making:
    """How layers are made."""
    return blocks.Making(INITS[self.init], self.momentum, jnp.dtype(self.dtype))

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C in [-1, 1], float32."""
    return network(lambda rngs: BigGanGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B/p H W pC, label B/p p or None) -> logits B/p, float32."""
    return network(lambda rngs: BigGanDiscriminator(self, rngs))


_LARGE: dict[str, Any] = dict(size=128, num_classes=1000, generator_attention=(64,), discriminator_attention=(64,))
_DEEP = dict(_LARGE, latent=128, shared=128, generator_width=128, discriminator_width=128, depth=2)

# Options of `BigGan` for the scripts of ajbrock/BigGAN-PyTorch
VARIANTS: dict[str, Mapping[str, Any]] = {
  'biggan_cifar10': dict(num_classes=10, init='normal'),
  'biggan_128': dict(_LARGE, latent=120, shared=128, chunks=True),
  'biggan_deep_128': _DEEP, 'biggan_deep_256': dict(_DEEP, size=256),
  'sagan_128': dict(_LARGE, init='xavier'),
  'sngan_128_imagenet': dict(_LARGE, init='xavier', generator_attention=(), discriminator_attention=(), wide=False),
}


class BigGanGenerator(nnx.Module):
  """See `BigGan.generator`."""

  def __init__(self, config: BigGan, rngs: nnx.Rngs):
    making, multiples = config.making, config.shape[0]
    widths = [config.generator_width * multiple for multiple in multiples]
    self.start, self.parts = config.size >> (len(widths) - 1), len(widths) if config.chunks else 1
    part, classes = config.latent // self.parts, config.num_classes or 0
    read = config.latent if config.depth else part if config.chunks else 0
    told = blocks.Told(read + config.shared, 0) if read or config.shared else blocks.Told(0, classes)
    self.deep, self.by_class = bool(config.depth), bool(told.classes)
    self.embed = Embed(classes, config.shared, embedding_init=making.init, rngs=rngs) if config.shared else None
    self.project = Dense(part + config.shared if self.deep else part, self.start**2 * widths[0], spectral=True,
                         init=making.init, dtype=making.dtype, rngs=rngs)
    self.stages = nnx.List([nnx.List(self._stage(before, after, config, told, rngs))
                            for before, after in zip(widths, widths[1:])])
    self.attentions = _attentions(config.generator_attention, config.generator_sides, widths[1:], config, rngs)
    self.norm = BatchNorm(widths[-1], momentum=config.momentum, dtype=making.dtype, rngs=rngs)
    self.out = Conv(widths[-1], config.channels, spectral=True, init=making.init, dtype=making.dtype, rngs=rngs)

  def _stage(self, inputs: int, outputs: int, config: BigGan, told: blocks.Told, rngs: nnx.Rngs) -> list[nnx.Module]:
    if not config.depth:
      return [blocks.GeneratorBlock(inputs, outputs, told, config.making, rngs)]
    # The first block keeps its channels, as in the published code at depth 2; those that follow have the new number.
    widths = [inputs, inputs, *[outputs] * (config.depth - 1)] if config.depth > 1 else [inputs, outputs]
    return [blocks.DeepGeneratorBlock(before, after, index + 1 == config.depth, told, config.making, rngs)
            for index, (before, after) in enumerate(zip(widths, widths[1:]))]

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    first_BZ, told = self._told(latent_BZ, label_B)
    x = self.project(first_BZ, key)
    x_BHWC = x.reshape(x.shape[0], self.start, self.start, -1)
    for index, stage in enumerate(self.stages):
      for block in stage:
        x_BHWC = block(x_BHWC, told[index], key)
      if (name := f'stage_{index}') in self.attentions:
        x_BHWC = self.attentions[name](x_BHWC, key)
    x_BHWC = self.out(jax.nn.relu(self.norm(x_BHWC, key)), key)
    return jnp.tanh(x_BHWC.astype(jnp.float32))

  def _told(self, latent_BZ: Array, label_B: Array | None) -> tuple[Array, list[Array | None]]:
    """What the first layer reads, and what the norms of each stage do."""
    class_BE = []
    if self.embed is not None:
      assert label_B is not None
      class_BE = [self.embed(label_B)]
    if self.deep:
      whole_BZ = jnp.concatenate([*class_BE, latent_BZ], axis=-1)
      return whole_BZ, [whole_BZ] * len(self.stages)
    first_BZ, *others = jnp.split(latent_BZ, self.parts, axis=-1)
    if others:
      return first_BZ, [jnp.concatenate([*class_BE, chunk_BZ], axis=-1) for chunk_BZ in others]
    told_B = label_B if self.by_class else class_BE[0] if class_BE else None
    return first_BZ, [told_B] * len(self.stages)


class BigGanDiscriminator(nnx.Module):
  """See `BigGan.discriminator`."""

  def __init__(self, config: BigGan, rngs: nnx.Rngs):
    making, (_, multiples, halvings) = config.making, config.shape
    widths, inputs = [config.discriminator_width * multiple for multiple in multiples], config.pack * config.channels
    self.stem = Conv(inputs, widths[0], spectral=True, init=making.init, dtype=making.dtype,
                     rngs=rngs) if config.depth else None
    pairs = list(zip(widths, widths[1:]) if config.depth else zip([inputs, *widths], widths))
    self.stages = nnx.List([nnx.List([
      blocks.DeepDiscriminatorBlock(before if not deep else after, after, index < halvings and not deep, making, rngs)
      if config.depth else
      blocks.DiscriminatorBlock(before, after, index < halvings, index == 0, config.wide, making, rngs)
      for deep in range(max(config.depth, 1))]) for index, (before, after) in enumerate(pairs)])
    self.attentions = _attentions(config.discriminator_attention, config.discriminator_sides,
                                  [after for _, after in pairs], config, rngs)
    self.head = Head(widths[-1], config, True, making.init, rngs)

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None) -> Array:
    x_BHWC = x_BHWC if self.stem is None else self.stem(x_BHWC, key)
    for index, stage in enumerate(self.stages):
      for block in stage:
        x_BHWC = block(x_BHWC, key)
      if (name := f'stage_{index}') in self.attentions:
        x_BHWC = self.attentions[name](x_BHWC, key)
    return self.head(jnp.sum(jax.nn.relu(x_BHWC.astype(jnp.float32)), axis=(1, 2)), label_BP, key)


def _attentions(chosen: tuple[int, ...], sides: tuple[int, ...], widths: list[int], config: BigGan,
                rngs: nnx.Rngs) -> nnx.Dict:
  """The attentions by the stage that they follow."""
  return nnx.Dict({f'stage_{index}': SelfAttention(widths[index], True, config.making.dtype, rngs, config.making.init)
                   for index in sorted(sides.index(side) for side in chosen)})


# Path regex -> logical axes, by group, as for `dcgan.DCGAN_AXES`.
_BLOCKS = r'stages/\d+/\d+/(conv_in|conv_out|convs/\d+|shortcut)'
_ATTENTION = r'attentions/\w+/(query|key|value|out)'
AXES = {
  'generator': ((r'project/kernel', (None, 'mlp')), (rf'({_BLOCKS}|{_ATTENTION}|out)/kernel',
                                                     (None, None, 'mlp', None))),
  'discriminator': ((rf'({_BLOCKS}|{_ATTENTION})/kernel', (None, None, None, 'mlp')),
                    (r'head/output/kernel', ('mlp', None))),
}
