"""The U-Net of DDPM: residual blocks at several resolutions, attention at some (Ho et al. 2020, appendix B)."""

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
from genjax.nn.conv import Conv, double
from genjax.nn.embeddings import LabelEmbedding, TimestepEmbedding
from genjax.nn.functional import Network
from genjax.nn.linear import Linear
from genjax.nn.norms import NORMS, GroupNorm
from genjax.types import Array, Key

_XAVIER = nnx.initializers.xavier_uniform()
_ZEROS = nnx.initializers.zeros_init()


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

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'shape', 'multipliers', 'blocks', 'attention', 'cross_attention', 'heads', 'groups')
    checks.whole(self, 4, 'base')
    checks.rates(self, 'dropout')
    checks.dtype(self)
    if not self.multipliers or self.base % 2:
      raise checks.OutOfRange(
        f'multipliers must name at least one level, and base be even, got {self.multipliers} and {self.base}')
    if self.shape[0] % self.factor or self.shape[1] % self.factor:
      raise checks.OutOfRange(
        f'multipliers has {len(self.multipliers)} levels, which need an image size that is a multiple of '
        f'{self.factor}, got {self.shape[:2]}; use fewer levels or another size')
    resolutions = [self.shape[0] >> level for level in range(len(self.multipliers))]
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
    for channels in (self.base * multiplier for multiplier in self.multipliers):
      if (self.norm == 'group' and channels % self.groups) or channels % self.heads:
        raise checks.OutOfRange(f'groups ({self.groups}) and heads ({self.heads}) must divide the channels of every '
                                f'level, got a level of {channels}')

  @property
  def factor(self) -> int:
    """By how much the last level is smaller than the input, along each side."""
    return 2 ** (len(self.multipliers) - 1)


def network(config: UNet) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of the shape of x.

  time_B is in [0, 1000]. `given` is what it reads of conditions, see `genjax.nn.conditioning`. The last convolution is
  initialized to zero, so that a new network predicts 0.
  """
  return functional.network(lambda rngs: _Network(config, rngs))


class _Network(nnx.Module):

  def __init__(self, config: UNet, rngs: nnx.Rngs):
    dtype, base, channels = jnp.dtype(config.dtype), config.base, config.shape[-1]
    self.config, self.remat = config, config.remat
    embedding = 4 * base

    def level(inputs: list[int], outputs: int, resolution: int) -> nnx.List:
      return nnx.List(
        [_Stage(config, size, outputs, embedding, resolution in config.attention, resolution in config.cross_attention,
                rngs) for size in inputs])

    self.time = TimestepEmbedding(base, embedding, shift=1, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    # The scale of the time embedding, so that the label has an effect from the first steps on.
    self.label = (LabelEmbedding(config.num_classes, embedding, std=1.0, dtype=dtype, rngs=rngs)
                  if config.num_classes else None)
    self.added = conditioning.added(config, embedding, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.tokens = conditioning.Tokens(config, dtype=config.dtype, attention=config.attention_kernel,
                                      rngs=rngs) if config.memory_width else None
    self.first = Conv(channels + config.image_channels, base, init=_XAVIER, dtype=dtype, rngs=rngs)
    skips, width, resolution = [base], base, config.shape[0]
    down, shrink, up, enlarge = [], [], [], []
    for index, multiplier in enumerate(config.multipliers):
      if index:
        shrink.append(Conv(width, width, stride=2, init=_XAVIER, dtype=dtype, rngs=rngs))
        skips.append(width)
        resolution //= 2
      outputs = base * multiplier
      down.append(level([width] + [outputs] * (config.blocks - 1), outputs, resolution))
      skips.extend([outputs] * config.blocks)
      width = outputs
    self.middle = nnx.List([_Stage(config, width, width, embedding, True, resolution in config.cross_attention, rngs),
                            _Stage(config, width, width, embedding, False, False, rngs)])
    for index, multiplier in reversed(list(enumerate(config.multipliers))):
      inputs = []
      for _ in range(config.blocks + 1):
        inputs.append(width + skips.pop())
        width = base * multiplier
      up.append(level(inputs, width, resolution))
      if index:
        enlarge.append(Conv(width, width, init=_XAVIER, dtype=dtype, rngs=rngs))
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
    stages = sum(map(len, (*self.down, self.middle, *self.up)))
    keys = iter([None] * stages if key is None else jax.random.split(key, stages))

    def run(stage: _Stage, x_BHWC: Array) -> Array:
      return functional.rematerialise(stage, self.remat)(x_BHWC, condition_BD, next(keys), memory)

    x_BHWC = self.first(x_BHWC)
    skips = [x_BHWC]
    for index, stages in enumerate(self.down):
      if index:
        x_BHWC = self.shrink[index - 1](x_BHWC)
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
        x_BHWC = self.enlarge[index - 1](double(x_BHWC))
      for stage in stages:
        x_BHWC = run(stage, jnp.concatenate([x_BHWC, skips.pop()], axis=-1))
    return self.last(jax.nn.silu(self.norm(x_BHWC)))


class _Stage(nnx.Module):
  """A residual block, followed by attention and cross-attention at the resolutions that have them."""

  def __init__(self, config: UNet, inputs: int, outputs: int, embedding: int, attends: bool, crosses: bool,
               rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.dropout = config.dropout
    self.norm_in = _norm(inputs, config, rngs)
    self.conv_in = Conv(inputs, outputs, init=_XAVIER, dtype=dtype, rngs=rngs, axes=(None, 'mlp'))
    self.condition = Linear(embedding, outputs, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.norm_out = _norm(outputs, config, rngs)
    self.conv_out = Conv(outputs, outputs, init=_ZEROS, dtype=dtype, rngs=rngs, axes=('mlp', None))
    resized = inputs != outputs
    self.shortcut = Linear(inputs, outputs, kernel_init=_XAVIER, dtype=dtype, rngs=rngs) if resized else None
    self.norm_attention = _norm(outputs, config, rngs) if attends else None
    self.attention = Attention(outputs, config.heads, dtype=dtype, out_init=_ZEROS, split=False,
                               implementation=config.attention_kernel, rngs=rngs) if attends else None
    self.norm_cross = _norm(outputs, config, rngs) if crosses else None
    self.cross = CrossAttention(outputs, config.heads, memory_width=config.memory_width, dtype=dtype, out_init=_ZEROS,
                                split=False, implementation=config.attention_kernel, rngs=rngs) if crosses else None

  def __call__(self, x_BHWC: Array, condition_BD: Array, key: Key | None = None, memory: Memory | None = None) -> Array:
    hidden = self.conv_in(jax.nn.silu(self.norm_in(x_BHWC))) + self.condition(condition_BD)[:, None, None]
    hidden = sharding.constrain(hidden, 'batch', None, None, 'mlp', name='hidden maps B H W C of a residual block')
    hidden = functional.dropout(jax.nn.silu(self.norm_out(hidden)), self.dropout, key)
    x_BHWC = (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)) + self.conv_out(hidden)
    x_BHWC = sharding.constrain(x_BHWC, 'batch', None, None, None)
    batch, _, _, channels = x_BHWC.shape
    if self.attention is not None and self.norm_attention is not None:
      x_BTD = self.norm_attention(x_BHWC).reshape(batch, -1, channels)
      x_BHWC = x_BHWC + self.attention(x_BTD).reshape(x_BHWC.shape)
    if self.cross is not None and self.norm_cross is not None and memory is not None:
      x_BTD = self.norm_cross(x_BHWC).reshape(batch, -1, channels)
      x_BHWC = x_BHWC + self.cross(x_BTD, self.cross.project(memory[0]), visible_BS=memory[1]).reshape(x_BHWC.shape)
    return x_BHWC


def _norm(channels: int, config: UNet, rngs: nnx.Rngs) -> Any:
  if config.norm != 'group':
    return NORMS[config.norm](channels, epsilon=1e-6, scale=True, bias=True, dtype=jnp.dtype(config.dtype), rngs=rngs)
  # The variance by two passes: E[x^2] - E[x]^2 loses its digits where the mean is large.
  return GroupNorm(channels, config.groups, dtype=jnp.dtype(config.dtype), rngs=rngs)


def axes(config: UNet) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  return (*AXES, *conditioning.axes(config, '', tokens=False))


# Tensor parallelism splits the hidden channels of residual blocks, but not attention, whose maps are small.
AXES = (
  (r'time/up/kernel', (None, 'mlp')),
  (r'time/down/kernel', ('mlp', None)),
  *residual.axes('(down|middle|up)/.*', condition=True),
)
