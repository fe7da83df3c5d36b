"""The U-Net of DDPM: residual blocks at several resolutions, attention at some (Ho et al. 2020, appendix B).

The options from `channels` on are those in which `UNet2DModel` of diffusers differs from it, with the residual blocks
of Dhariwal and Nichol (2021) among them.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn import conditioning, functional, residual
from genjax.nn.attention.cross_attention import CrossAttention
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.attention.self_attention import Attention
from genjax.nn.conditioning import Given, Memory, Reads
from genjax.nn.conv import Conv, around, double, halve
from genjax.nn.embeddings import TimestepEmbedding, label_table
from genjax.nn.functional import Network
from genjax.nn.linear import Linear
from genjax.nn.norms import NORMS, GroupNorm
from genjax.types import Array, Key

_XAVIER = nnx.initializers.xavier_uniform()
_ZEROS = nnx.initializers.zeros_init()
_NAMED = {'padding': ('after', 'around'), 'resample': ('conv', 'residual'),
          'middle_attention': ('normed', 'plain', 'none')}


@dataclasses.dataclass(frozen=True)
class UNet(Reads):
  """Options of the network; the defaults are DDPM's for CIFAR-10 (35.7 M parameters).

  What it reads of conditions: see `genjax.nn.conditioning.Reads`.

  Attributes:
    shape: (H, W, C) of the images.
    base: channels of the first level.
    multipliers: channels of each level over `base`; each level but the first has half the resolution of the one before.
    blocks: residual blocks of a level (one more on the way up).
    attention: resolutions (heights in pixels) that have attention.
    heads: number of attention heads.
    groups: groups of the group norms.
    dropout: dropout rate in the residual blocks.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention_kernel: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    norm: 'group', or one of `genjax.nn.norms.NORMS`, over the channels.
    cross_attention: resolutions that attend to tokens, after self-attention if they have that. The middle counts as one
      of the last resolution. Latent diffusion (Rombach et al. 2022) has a transformer block with a feed-forward layer
      here; this is the attention alone.
    channels: of each level, in place of `base` and `multipliers`, where they are no multiples of the first.
    head_dim: channels of an attention head, in place of `heads`; 0 for `heads` heads.
    epsilon: added to the variance in a norm.
    time_shift: see `genjax.nn.embeddings.timestep_embedding`.
    sines_first: whether sines stand before cosines in the features of the time.
    padding: 'after', where a convolution of stride 2 pads below and to the right, or 'around', one pixel on each side.
    resample: 'conv', convolutions between the levels, or 'residual', residual blocks that average or repeat pixels.
    scale_shift: the condition scales and shifts the second norm of a residual block, and is not added before it.
    middle_attention: attention in the middle: 'normed', 'plain' without a norm before it, or 'none'.
    null_class: whether the table of classes has one more row, for "no class".

  Raises:
    UserError: sizes that do not divide, an attention resolution that no level has, an unknown attention kernel,
      cross-attention without tokens or tokens without it, or what `Reads` refuses.
  """

  shape: tuple[int, int, int]
  base: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  blocks: int = 2
  attention: tuple[int, ...] = (16,)
  heads: int = 1
  groups: int = 32
  dropout: float = 0.1
  dtype: str = 'float32'
  attention_kernel: str = 'auto'
  remat: str = 'none'
  norm: str = 'group'
  cross_attention: tuple[int, ...] = ()
  channels: tuple[int, ...] = ()
  head_dim: int = 0
  epsilon: float = 1e-6
  time_shift: int = 1
  sines_first: bool = False
  padding: str = 'after'
  resample: str = 'conv'
  scale_shift: bool = False
  middle_attention: str = 'normed'
  null_class: bool = True

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'shape', 'multipliers', 'blocks', 'attention', 'cross_attention', 'heads', 'groups',
                 'channels')
    checks.whole(self, 4, 'base')
    checks.whole(self, 0, 'head_dim', 'time_shift')
    checks.positive(self, 'epsilon')
    checks.rates(self, 'dropout')
    checks.dtype(self)
    if not self.widths or self.widths[0] % 2 or self.base % 2:
      raise checks.OutOfRange(f'multipliers must name at least one level, and base and the first of channels be even, '
                              f'got {self.multipliers}, {self.base} and {self.channels}')
    for name, known in _NAMED.items():
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if self.shape[0] % self.factor or self.shape[1] % self.factor:
      raise checks.OutOfRange(
        f'multipliers has {len(self.widths)} levels, which need an image size that is a multiple of '
        f'{self.factor}, got {self.shape[:2]}; use fewer levels or another size')
    resolutions = [self.shape[0] >> level for level in range(len(self.widths))]
    for name in ('attention', 'cross_attention'):
      if set(getattr(self, name)) - set(resolutions):
        raise checks.OutOfRange(f'{name} must be resolutions among {resolutions}, got {getattr(self, name)}')
    if bool(self.cross_attention) != bool(self.memory_width):
      raise checks.OutOfRange(
        f'cross_attention must name resolutions among {resolutions} for a network that reads tokens (token_width or '
        f'vocabulary), and none for another one, got {self.cross_attention} and tokens of {self.memory_width} channels')
    if self.attention_kernel not in IMPLEMENTATIONS:
      raise checks.OutOfRange(f'attention_kernel must be one of {IMPLEMENTATIONS}, got {self.attention_kernel!r}')
    if self.norm not in (known := ('group', *NORMS)):
      raise checks.OutOfRange(f'norm must be one of {known}, got {self.norm!r}')
    for channels in self.widths:
      if (self.norm == 'group' and channels % self.groups) or (not self.head_dim and channels % self.heads):
        raise checks.OutOfRange(f'groups ({self.groups}) and heads ({self.heads}) must divide the channels of every '
                                f'level, got a level of {channels}')
    attend = {*self.attention, *self.cross_attention}
    attended = [width for width, size in zip(self.widths, resolutions) if size in attend]
    for channels in (*attended, *([self.widths[-1]] if self.middle_attention != 'none' else [])):
      if self.head_dim and channels % self.head_dim:
        raise checks.OutOfRange(f'head_dim must divide the channels of every level with attention and of the last one, '
                                f'got {self.head_dim} and a level of {channels}')

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each level."""
    return tuple(self.channels) or tuple(self.base * multiplier for multiplier in self.multipliers)

  @property
  def factor(self) -> int:
    """By how much the last level is smaller than the input, along each side."""
    return 2 ** (len(self.widths) - 1)


def network(config: UNet) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of the shape of x.

  time_B is in [0, 1000]. `given` is what it reads of conditions, see `genjax.nn.conditioning`. The last convolution is
  initialized to zero, so that a new network predicts 0.
  """
  return functional.network(lambda rngs: _Network(config, rngs))


class _Network(nnx.Module):

  def __init__(self, config: UNet, rngs: nnx.Rngs):
    dtype, base, channels = jnp.dtype(config.dtype), config.widths[0], config.shape[-1]
    self.config, self.remat = config, config.remat
    embedding = 4 * base

    def level(inputs: list[int], outputs: int, resolution: int) -> nnx.List:
      attends = 'normed' if resolution in config.attention else 'none'
      return nnx.List([_Stage(config, size, outputs, embedding, attends, resolution in config.cross_attention, rngs)
                       for size in inputs])

    def between(way: str, width: int) -> nnx.Module:
      if config.resample == 'residual':
        return _Stage(config, width, width, embedding, 'none', False, rngs, way)
      return _Shrink(config, width, rngs) if way == 'down' else Conv(width, width, init=_XAVIER, dtype=dtype, rngs=rngs)

    self.time = TimestepEmbedding(base, embedding, shift=config.time_shift, sines_first=config.sines_first,
                                  kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    # The scale of the time embedding, so that the label has an effect from the first steps on.
    self.label = label_table(config.num_classes, config.null_class, embedding, dtype=dtype, rngs=rngs)
    self.added = conditioning.added(config, embedding, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.tokens = conditioning.Tokens(config, dtype=config.dtype, attention=config.attention_kernel,
                                      rngs=rngs) if config.memory_width else None
    self.first = Conv(channels + config.image_channels, base, init=_XAVIER, dtype=dtype, rngs=rngs)
    skips, width, resolution = [base], base, config.shape[0]
    down, shrink, up, enlarge = [], [], [], []
    for index, outputs in enumerate(config.widths):
      if index:
        shrink.append(between('down', width))
        skips.append(width)
        resolution //= 2
      down.append(level([width] + [outputs] * (config.blocks - 1), outputs, resolution))
      skips.extend([outputs] * config.blocks)
      width = outputs
    self.middle = nnx.List([_Stage(config, width, width, embedding, config.middle_attention,
                                   resolution in config.cross_attention, rngs),
                            _Stage(config, width, width, embedding, 'none', False, rngs)])
    for index, outputs in reversed(list(enumerate(config.widths))):
      inputs = []
      for _ in range(config.blocks + 1):
        inputs.append(width + skips.pop())
        width = outputs
      up.append(level(inputs, width, resolution))
      if index:
        enlarge.append(between('up', width))
        resolution *= 2
    self.down, self.shrink, self.up, self.enlarge = nnx.List(down), nnx.List(shrink), nnx.List(up), nnx.List(enlarge)
    self.norm = _norm(width, config, rngs)
    self.last = Conv(width, channels, init=_ZEROS, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, time_B: Array, given: Given | None = None, key: Key | None = None) -> Array:
    given = self.config.check(given, x_BHWC.shape[:3], ('residuals',))
    if 'image' in given:
      x_BHWC = jnp.concatenate([x_BHWC, given['image'].astype(x_BHWC.dtype)], axis=-1)
    memory = None if self.tokens is None else self.tokens(given)
    if memory is not None and memory[1] is not None:
      memory = memory[0], conditioning.visible(memory[1])
    condition_BD = self.time(time_B)
    if self.label is not None:
      condition_BD = condition_BD + self.label(given['label'])
    if self.added is not None:
      condition_BD = condition_BD + self.added(given)
    condition_BD = jax.nn.silu(condition_BD)
    blocks = self.config.resample == 'residual'
    stages = sum(map(len, (*self.down, self.middle, *self.up, *((self.shrink, self.enlarge) if blocks else ()))))
    keys = iter([None] * stages if key is None else jax.random.split(key, stages))

    def run(stage: _Stage, x_BHWC: Array) -> Array:
      return functional.rematerialise(stage, self.remat)(x_BHWC, condition_BD, next(keys), memory)

    x_BHWC = self.first(x_BHWC)
    skips = [x_BHWC]
    for index, stages in enumerate(self.down):
      if index:
        x_BHWC = run(self.shrink[index - 1], x_BHWC) if blocks else self.shrink[index - 1](x_BHWC)
        skips.append(x_BHWC)
      for stage in stages:
        x_BHWC = run(stage, x_BHWC)
        skips.append(x_BHWC)
    for stage in self.middle:
      x_BHWC = run(stage, x_BHWC)
    if 'residuals' in given:
      *skips, x_BHWC = conditioning.controlled([*skips, x_BHWC], given['residuals'])
    for index, stages in enumerate(self.up):
      if index:
        x_BHWC = run(self.enlarge[index - 1], x_BHWC) if blocks else self.enlarge[index - 1](double(x_BHWC))
      for stage in stages:
        x_BHWC = run(stage, jnp.concatenate([x_BHWC, skips.pop()], axis=-1))
    return self.last(jax.nn.silu(self.norm(x_BHWC)))


class _Shrink(Conv):
  """A convolution of size 3 and stride 2."""

  def __init__(self, config: UNet, width: int, rngs: nnx.Rngs):
    super().__init__(width, width, stride=2, init=_XAVIER, dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.around = config.padding == 'around'

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return around(super().__call__, x_BHWC) if self.around else super().__call__(x_BHWC)


class _Stage(nnx.Module):
  """A residual block, followed by attention and cross-attention at the resolutions that have them.

  Args:
    config: options.
    inputs, outputs: channels.
    embedding: channels of the condition.
    attends: 'normed', 'plain' or 'none', see `UNet.middle_attention`.
    crosses: whether it attends to tokens.
    way: 'down' or 'up' for a block that halves or doubles the resolution, else ''.
  """

  def __init__(self, config: UNet, inputs: int, outputs: int, embedding: int, attends: str, crosses: bool,
               rngs: nnx.Rngs, way: str = ''):
    dtype = jnp.dtype(config.dtype)
    self.dropout, self.way, self.scale_shift = config.dropout, way, config.scale_shift
    heads = outputs // config.head_dim if config.head_dim else config.heads
    self.norm_in = _norm(inputs, config, rngs)
    self.conv_in = Conv(inputs, outputs, init=_XAVIER, dtype=dtype, rngs=rngs, axes=(None, 'mlp'))
    self.condition = Linear(embedding, outputs * (1 + config.scale_shift), kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.norm_out = _norm(outputs, config, rngs)
    self.conv_out = Conv(outputs, outputs, init=_ZEROS, dtype=dtype, rngs=rngs, axes=('mlp', None))
    resized = inputs != outputs
    self.shortcut = Linear(inputs, outputs, kernel_init=_XAVIER, dtype=dtype, rngs=rngs) if resized else None
    self.norm_attention = _norm(outputs, config, rngs) if attends == 'normed' else None
    self.attention = Attention(outputs, heads, dtype=dtype, out_init=_ZEROS, split=False,
                               implementation=config.attention_kernel, rngs=rngs) if attends != 'none' else None
    self.norm_cross = _norm(outputs, config, rngs) if crosses else None
    self.cross = CrossAttention(outputs, heads, memory_width=config.memory_width, dtype=dtype, out_init=_ZEROS,
                                split=False, implementation=config.attention_kernel, rngs=rngs) if crosses else None

  def __call__(self, x_BHWC: Array, condition_BD: Array, key: Key | None = None, memory: Memory | None = None) -> Array:
    hidden = jax.nn.silu(self.norm_in(x_BHWC))
    if self.way:
      resize = halve if self.way == 'down' else double
      x_BHWC, hidden = resize(x_BHWC), resize(hidden)
    hidden, condition_BC = self.conv_in(hidden), self.condition(condition_BD)[:, None, None]
    hidden = hidden if self.scale_shift else hidden + condition_BC
    hidden = sharding.constrain(hidden, 'batch', None, None, 'mlp', name='hidden maps B H W C of a residual block')
    hidden = self.norm_out(hidden)
    if self.scale_shift:
      scale_BC, shift_BC = jnp.split(condition_BC, 2, axis=-1)
      hidden = hidden * (1 + scale_BC) + shift_BC
    hidden = functional.dropout(jax.nn.silu(hidden), self.dropout, key)
    x_BHWC = (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)) + self.conv_out(hidden)
    x_BHWC = sharding.constrain(x_BHWC, 'batch', None, None, None)
    batch, _, _, channels = x_BHWC.shape
    if self.attention is not None:
      normed = x_BHWC if self.norm_attention is None else self.norm_attention(x_BHWC)
      x_BHWC = x_BHWC + self.attention(normed.reshape(batch, -1, channels)).reshape(x_BHWC.shape)
    if self.cross is not None and self.norm_cross is not None and memory is not None:
      x_BTD = self.norm_cross(x_BHWC).reshape(batch, -1, channels)
      x_BHWC = x_BHWC + self.cross(x_BTD, self.cross.project(memory[0]), visible_BS=memory[1]).reshape(x_BHWC.shape)
    return x_BHWC


def _norm(channels: int, config: UNet, rngs: nnx.Rngs) -> Any:
  if config.norm != 'group':
    return NORMS[config.norm](channels, epsilon=config.epsilon, scale=True, bias=True, dtype=jnp.dtype(config.dtype),
                              rngs=rngs)
  # The variance by two passes: E[x^2] - E[x]^2 loses its digits where the mean is large.
  return GroupNorm(channels, config.groups, epsilon=config.epsilon, dtype=jnp.dtype(config.dtype), rngs=rngs)


def axes(config: UNet) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  return (*AXES, *conditioning.axes(config, '', tokens=False))


# Tensor parallelism splits the hidden channels of residual blocks, but not attention, whose maps are small.
AXES = (
  (r'time/up/kernel', (None, 'mlp')),
  (r'time/down/kernel', ('mlp', None)),
  *residual.axes('(down|middle|up)/.*', condition=True),
)

# Options of published networks over the defaults.
_MANY = dict(shape=(256, 256, 3), multipliers=(1, 1, 2, 2, 4, 4), attention=(16,), sines_first=True, dropout=0.0)
VARIANTS: dict[str, dict[str, Any]] = {
  'ddpm_cifar10': dict(shape=(32, 32, 3), sines_first=True),
  'ddpm_celebahq_256': _MANY, 'ddpm_church_256': _MANY, 'ddpm_bedroom_256': _MANY,
  'ddpm_butterflies_128': dict(
    _MANY, shape=(128, 128, 3), attention=(8,), head_dim=8, epsilon=1e-5, time_shift=0, sines_first=False,
    padding='around'),
  # of consistency models; the pipeline's scheduler is not read
  'cd_imagenet64': dict(
    shape=(64, 64, 3), base=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8), head_dim=64, epsilon=1e-5,
    time_shift=0, padding='around', resample='residual', scale_shift=True, num_classes=1000, null_class=False,
    dropout=0.0),
}
