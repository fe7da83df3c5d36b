"""The convolutional autoencoder of latent diffusion (Rombach et al. 2022, appendix G; Esser et al. 2021, table 7).

Residual blocks at several resolutions, attention at the smallest. A stage but the first halves the image, so that the
latent is a picture of a 2^(stages - 1)-th of the side. With the defaults it is the autoencoder of Stable Diffusion.

Parameters map one to one to those of published weights: `encoder/down/1/blocks/0/conv_in` is
`encoder.down.1.block.0.conv1` there, `encoder/moments` is `quant_conv`, `decoder/latent` is `post_quant_conv`.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.autoencoders.stages import Stages
from genjax.nn import functional, residual
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.attention.self_attention import Attention
from genjax.nn.conv import Conv, double
from genjax.nn.functional import Network, network
from genjax.nn.norms import GroupNorm
from genjax.types import Array, Key, Tree

_EPSILON = 1e-6  # of group norms
LOG_VARIANCES = (-30.0, 20.0)  # bounds of log variances, as in the published code


@dataclasses.dataclass(frozen=True)
class Kl(Stages):
  """Options of the networks; the defaults are those of Stable Diffusion (83.7 M parameters).

  Attributes:
    shape: (H, W, C) of the images.
    latent: channels Z of the latent.
    base: channels of the first stage.
    multipliers: channels of each stage over `base`; each stage but the first has half the resolution of the one before.
    blocks: residual blocks of a stage (one more in the decoder).
    attention: factors by which an image is smaller at the stages that have attention after each block, such as 16.
    heads: number of attention heads.
    groups: groups of the group norms.
    dropout: dropout rate in the residual blocks.
    projections: whether 1 x 1 convolutions stand around the latent; those of Stable Diffusion 3 and Flux have none.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention_kernel: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    channels: of each stage, in place of `base` and `multipliers`, where they are no multiples of the first.
    middle_attention: whether the middle has attention.

  Raises:
    UserError: sizes that do not divide, an attention factor that no stage has, or an unknown attention kernel.
  """

  shape: tuple[int, int, int]
  latent: int = 4
  base: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int = 2
  attention: tuple[int, ...] = ()
  heads: int = 1
  groups: int = 32
  dropout: float = 0.0
  projections: bool = True
  dtype: str = 'float32'
  attention_kernel: str = 'auto'
  remat: str = 'none'
  channels: tuple[int, ...] = ()
  middle_attention: bool = True

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'latent', 'base', 'multipliers', 'blocks', 'attention', 'heads', 'groups',
                 'channels')
    checks.rates(self, 'dropout')
    checks.dtype(self)
    if not self.widths:
      raise checks.OutOfRange(f'multipliers must name at least one stage, got {self.multipliers}')
    self.check_size('multipliers')
    factors = [2 ** stage for stage in range(len(self.widths))]
    if set(self.attention) - set(factors):
      raise checks.OutOfRange(f'attention must be factors among {factors}, got {self.attention}')
    if self.attention_kernel not in IMPLEMENTATIONS:
      raise checks.OutOfRange(f'attention_kernel must be one of {IMPLEMENTATIONS}, got {self.attention_kernel!r}')
    for channels in self.widths:
      if channels % self.groups or channels % self.heads:
        raise checks.OutOfRange(f'groups ({self.groups}) and heads ({self.heads}) must divide the channels of every '
                                f'stage, got a stage of {channels}')

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each stage."""
    return tuple(self.channels) or tuple(self.base * multiplier for multiplier in self.multipliers)

  @property
  def stages(self) -> int:
    """Number of stages."""
    return len(self.widths)


def networks(config: Kl) -> tuple[Network, Network]:
  """Encoder: images B H W C in [-1, 1] -> (mean, log variance), each float32 B H/f W/f Z. Decoder: latents -> images
  B H W C of about that range."""
  return network(lambda rngs: Encoder(config, rngs)), network(lambda rngs: Decoder(config, rngs))


def autoencoder(config: Kl) -> Network:
  """Both networks as one, see `joined`."""
  return joined(*networks(config))


def joined(encoder: Network, decoder: Network) -> Network:
  """Encoder and decoder as one network: images B H W C in [-1, 1] -> (mean, log variance) and what the decoder makes of
  the mean.

  Parameters: {'encoder': ..., 'decoder': ...}.
  """

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key)
    return {'encoder': encoder.init(keys[0])[0], 'decoder': decoder.init(keys[1])[0]}, {}

  def apply(params: Tree, mutable: Tree, x_BHWC: Array, key: Key | None = None):
    keys = (None, None) if key is None else jax.random.split(key)
    posterior, _ = encoder.apply(params['encoder'], {}, x_BHWC, key=keys[0])
    return (*posterior, decoder.apply(params['decoder'], {}, posterior[0], key=keys[1])[0]), mutable

  return Network(init, apply)


class Encoder(nnx.Module):
  """Images B H W C -> mean and log variance of the latent.

  Args:
    config: options.
    widths: channels of the last convolution, and of the 1 x 1 convolution after it; None for twice those of the latent.
  """

  def __init__(self, config: Kl, rngs: nnx.Rngs, widths: tuple[int, int] | None = None):
    dtype, width = jnp.dtype(config.dtype), config.widths[0]
    outputs, projected = widths or (2 * config.latent,) * 2
    self.remat = config.remat
    self.first = Conv(config.shape[-1], width, dtype=dtype, rngs=rngs)
    stages = []
    for index, channels in enumerate(config.widths):
      stages.append(Stage(config, width, channels, config.blocks, index, rngs))
      width = channels
    self.down = nnx.List(stages)
    # On an even size, 'SAME' pads below and to the right alone, as the published code does.
    self.shrink = nnx.List([Conv(channels, channels, stride=2, dtype=dtype, rngs=rngs)
                            for channels in config.widths[:-1]])
    self.middle = Middle(config, width, rngs)
    self.norm = _norm(width, config, rngs)
    self.last = Conv(width, outputs, dtype=dtype, rngs=rngs)
    self.moments = Conv(outputs, projected, 1, dtype=dtype, rngs=rngs) if config.projections else None

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> tuple[Array, Array]:
    mean_BHWZ, log_variance_BHWZ = jnp.split(self.maps(x_BHWC, key), 2, axis=-1)
    return mean_BHWZ, jnp.clip(log_variance_BHWZ, *LOG_VARIANCES)

  def maps(self, x_BHWC: Array, key: Key | None = None) -> Array:
    """What comes out, in one piece, float32."""
    keys = _Keys(key, sum(len(stage.blocks) for stage in self.down) + 2)
    x_BHWC = self.first(x_BHWC)
    for index, stage in enumerate(self.down):
      x_BHWC = self.shrink[index - 1](x_BHWC) if index else x_BHWC
      x_BHWC = stage(x_BHWC, keys, self.remat)
    x_BHWC = self.middle(x_BHWC, keys, self.remat)
    x_BHWC = self.last(jax.nn.silu(self.norm(x_BHWC)))
    return (x_BHWC if self.moments is None else self.moments(x_BHWC)).astype(jnp.float32)


class Decoder(nnx.Module):
  """Latents B H/f W/f Z -> images B H W C.

  `part` 'hidden' ends before the last convolution, and 'last' is that convolution alone: a loss may ask for its
  gradient.

  Args:
    config: options.
    inputs: channels of what is read; None for those of the latent.
  """

  def __init__(self, config: Kl, rngs: nnx.Rngs, inputs: int | None = None):
    dtype, width = jnp.dtype(config.dtype), config.widths[-1]
    self.remat = config.remat
    inputs = inputs or config.latent
    self.latent = Conv(inputs, config.latent, 1, dtype=dtype, rngs=rngs) if config.projections else None
    self.first = Conv(config.latent, width, dtype=dtype, rngs=rngs)
    self.middle = Middle(config, width, rngs)
    stages = []
    for index, channels in reversed(list(enumerate(config.widths))):
      stages.append(Stage(config, width, channels, config.blocks + 1, index, rngs))
      width = channels
    self.up = nnx.List(stages)
    self.enlarge = nnx.List([Conv(channels, channels, dtype=dtype, rngs=rngs) for channels in config.widths[:0:-1]])
    self.norm = _norm(width, config, rngs)
    self.last = Conv(width, config.shape[-1], dtype=dtype, rngs=rngs)

  def __call__(self, z_BHWZ: Array, key: Key | None = None, part: str = 'all') -> Array:
    x_BHWC = z_BHWZ if part == 'last' else self._hidden(z_BHWZ, key)
    return x_BHWC if part == 'hidden' else self.last(x_BHWC).astype(jnp.float32)

  def _hidden(self, z_BHWZ: Array, key: Key | None) -> Array:
    keys = _Keys(key, sum(len(stage.blocks) for stage in self.up) + 2)
    x_BHWC = z_BHWZ if self.latent is None else self.latent(z_BHWZ)
    x_BHWC = self.middle(self.first(x_BHWC), keys, self.remat)
    for index, stage in enumerate(self.up):
      x_BHWC = self.enlarge[index - 1](double(x_BHWC)) if index else x_BHWC
      x_BHWC = stage(x_BHWC, keys, self.remat)
    return jax.nn.silu(self.norm(x_BHWC))


class Stage(nnx.Module):
  """The residual blocks of one resolution, each followed by attention where the options ask for it.

  Args:
    config: options.
    inputs, outputs: channels.
    count: number of blocks.
    index: of the resolution, from 0.
  """

  def __init__(self, config: Kl, inputs: int, outputs: int, count: int, index: int, rngs: nnx.Rngs):
    widths = [inputs] + [outputs] * (count - 1)
    attends = 2 ** index in config.attention
    self.blocks = nnx.List([_residual(config, width, outputs, rngs) for width in widths])
    self.attention = nnx.List([Attend(config, outputs, rngs) for _ in widths]) if attends else None

  def __call__(self, x_BHWC: Array, keys: '_Keys', remat: str) -> Array:
    for index, block in enumerate(self.blocks):
      x_BHWC = functional.rematerialise(block, remat)(x_BHWC, None, keys.next())
      x_BHWC = x_BHWC if self.attention is None else self.attention[index](x_BHWC)
    return x_BHWC


class Middle(nnx.Module):
  """A residual block, attention if there is any, and another residual block at the smallest resolution."""

  def __init__(self, config: Kl, width: int, rngs: nnx.Rngs):
    self.blocks = nnx.List([_residual(config, width, width, rngs) for _ in range(2)])
    self.attention = Attend(config, width, rngs) if config.middle_attention else None

  def __call__(self, x_BHWC: Array, keys: '_Keys', remat: str) -> Array:
    first, last = (functional.rematerialise(block, remat) for block in self.blocks)
    x_BHWC = first(x_BHWC, None, keys.next())
    return last(x_BHWC if self.attention is None else self.attention(x_BHWC), None, keys.next())


class Attend(nnx.Module):
  """Self-attention over the pixels of a map, after a group norm and beside a shortcut."""

  def __init__(self, config: Kl, width: int, rngs: nnx.Rngs):
    self.norm = _norm(width, config, rngs)
    self.attention = Attention(width, config.heads, dtype=jnp.dtype(config.dtype), split=False,
                               implementation=config.attention_kernel, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    x_BTD = self.norm(x_BHWC).reshape(x_BHWC.shape[0], -1, x_BHWC.shape[-1])
    return x_BHWC + self.attention(x_BTD).reshape(x_BHWC.shape)


class _Keys:
  """The keys of the blocks, one after the other; None in inference."""

  def __init__(self, key: Key | None, count: int):
    self._keys = iter([None] * count if key is None else jax.random.split(key, count))

  def next(self) -> Key | None:
    return next(self._keys)


def _residual(config: Kl, inputs: int, outputs: int, rngs: nnx.Rngs) -> residual.Residual:
  return residual.Residual(inputs, outputs, groups=config.groups, epsilon=_EPSILON, dropout=config.dropout,
                           dtype=jnp.dtype(config.dtype), rngs=rngs)


def _norm(channels: int, config: Kl, rngs: nnx.Rngs) -> Any:
  return GroupNorm(channels, config.groups, epsilon=_EPSILON, dtype=jnp.dtype(config.dtype), rngs=rngs)


# Options of published networks over the defaults; `shape` is the size of the images that they were trained for.
_F16 = dict(latent=16, multipliers=(1, 1, 2, 2, 4), attention=(16,))
VARIANTS: dict[str, dict[str, Any]] = {
  'sd_vae': dict(shape=(512, 512, 3)), 'sdxl_vae': dict(shape=(1024, 1024, 3)),
  'sd3_vae': dict(shape=(1024, 1024, 3), latent=16, projections=False),
  'flux_vae': dict(shape=(1024, 1024, 3), latent=16, projections=False),
  'x4_upscaler_vae': dict(shape=(512, 512, 3), multipliers=(1, 2, 4)),
  'kl_f4': dict(shape=(256, 256, 3), latent=3, multipliers=(1, 2, 4)), 'kl_f8': dict(shape=(256, 256, 3)),
  'kl_f16': dict(shape=(256, 256, 3), **_F16),
  'kl_f32': dict(shape=(256, 256, 3), latent=64, multipliers=(1, 1, 2, 2, 4, 4), attention=(16, 32))}

# Tensor parallelism splits the hidden channels of residual blocks, but not attention, whose maps are small.
AXES = residual.axes('(encoder|decoder)/(down|middle|up)/.*', condition=False)
