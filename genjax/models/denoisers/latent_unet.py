"""The U-Net of latent diffusion: residual blocks, and transformers that read tokens (Rombach et al. 2022).

Each residual block of a level with a depth is followed by a transformer over the pixels, whose blocks attend to the
pixels, then to the tokens of a text, and end with a gated MLP. With the options below it is the network of Stable
Diffusion 1 and 2 (inpainting, depth and InstructPix2Pix join an image to the input), of SDXL and its refiner (Podell
et al. 2023: a vector of the text and six numbers are added to the embedded time), and of the enlarger by 4.
"""

import dataclasses
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.models.denoisers import pixel_transformer
from genjax.nn import conditioning, functional, residual
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.conditioning import Given, Memory, Reads
from genjax.nn.conv import Conv, around, double
from genjax.nn.embeddings import label_table, timestep_embedding
from genjax.nn.functional import Network, network
from genjax.nn.linear import Linear
from genjax.nn.norms import GroupNorm
from genjax.types import Array, Key, Tree, UserError

_ZEROS = nnx.initializers.zeros_init()


@dataclasses.dataclass(frozen=True)
class LatentUNet(Reads):
  """Options of the network; the defaults are those of Stable Diffusion 1.5 (859,520,964 parameters).

  What it reads of conditions: see `genjax.nn.conditioning.Reads`. Tokens are read by every transformer.

  Attributes:
    shape: (H, W, C) of the latents. Inputs may have other sizes, multiples of 2^(levels - 1).
    channels: of each level; each level but the first has half the resolution of the one before.
    blocks: residual blocks of a level (one more on the way up).
    depths: transformer blocks after each residual block of a level; 0 for none.
    middle_depth: transformer blocks in the middle.
    heads: attention heads of each level; the middle has those of the last one.
    only_cross: of each level, whether the first attention of its blocks reads the tokens, too, in place of the pixels.
    groups: groups of the group norms.
    null_class: whether the table of classes has one more row, for "no class".
    guidance_features: Fourier features of the scale of guidance, which a distilled network is told as `guidance` (Luo
      et al. 2023, section 4.2); 0 for a network that is not told.
    linear_projection: whether public files hold the projections around transformers as matrices, and not as
      convolutions of size 1. It changes no result.
    dropout: dropout rate in the residual blocks.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention_kernel: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.

  Raises:
    UserError: options of several lengths, sizes that do not divide, transformers without tokens, or what `Reads`
      refuses.
  """

  shape: tuple[int, int, int]
  channels: tuple[int, ...] = (320, 640, 1280, 1280)
  blocks: int = 2
  depths: tuple[int, ...] = (1, 1, 1, 0)
  middle_depth: int = 1
  heads: tuple[int, ...] = (8, 8, 8, 8)
  only_cross: tuple[bool, ...] = ()
  groups: int = 32
  null_class: bool = True
  guidance_features: int = 0
  linear_projection: bool = False
  dropout: float = 0.0
  dtype: str = 'float32'
  attention_kernel: str = 'auto'
  remat: str = 'none'

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'shape', 'channels', 'blocks', 'heads', 'groups')
    checks.whole(self, 0, 'depths', 'middle_depth', 'guidance_features')
    checks.rates(self, 'dropout')
    checks.dtype(self)
    levels = len(self.channels)
    if not levels:
      raise checks.OutOfRange(f'channels must name at least one level, got {self.channels}')
    for name in ('depths', 'heads', *(('only_cross',) if self.only_cross else ())):
      if len(getattr(self, name)) != levels:
        raise checks.OutOfRange(f'{name} must have an entry for each of the {levels} levels of channels, got '
                                f'{getattr(self, name)}')
    if self.shape[0] % self.factor or self.shape[1] % self.factor:
      raise checks.OutOfRange(f'channels has {levels} levels, which need latents whose sides are multiples of '
                              f'{self.factor}, got {self.shape[:2]}; use fewer levels or another size')
    if bool(any(self.depths) or self.middle_depth) != bool(self.memory_width):
      raise checks.OutOfRange('transformers read tokens: a network with depths or middle_depth needs token_width or '
                              f'vocabulary, and another one neither, got depths={self.depths}, '
                              f'middle_depth={self.middle_depth} and tokens of {self.memory_width} channels')
    if self.guidance_features % 2 or self.channels[0] % 2:
      raise checks.OutOfRange('guidance_features and the first of channels must be even, got '
                              f'{self.guidance_features} and {self.channels[0]}')
    if self.attention_kernel not in IMPLEMENTATIONS:
      raise checks.OutOfRange(f'attention_kernel must be one of {IMPLEMENTATIONS}, got {self.attention_kernel!r}')
    for width, heads in zip(self.channels, self.heads):
      if width % self.groups or width % heads:
        raise checks.OutOfRange(f'groups ({self.groups}) and heads {self.heads} must divide the channels of their '
                                f'level, got a level of {width} with {heads} heads')

  @property
  def factor(self) -> int:
    """By how much the last level is smaller than the input, along each side."""
    return 2 ** (len(self.channels) - 1)


class _Place(NamedTuple):
  """A residual block with its transformer: its path, its channels, and those of the transformer."""

  path: str
  inputs: int
  outputs: int
  depth: int
  heads: int
  only_cross: bool


def _places(config: LatentUNet) -> tuple[list[list[_Place]], list[_Place], list[list[_Place]]]:
  """The residual blocks on the way down, in the middle and on the way up, by level, in the order of computation."""
  only, levels = config.only_cross or (False,) * len(config.channels), list(enumerate(config.channels))
  skips, width = [config.channels[0]], config.channels[0]
  down, up = [], []
  for level, outputs in levels:
    skips += [width] if level else []
    widths = [width] + [outputs] * (config.blocks - 1)
    down.append([_Place(f'down/{level}/{index}', inputs, outputs, config.depths[level], config.heads[level],
                        only[level]) for index, inputs in enumerate(widths)])
    skips += [outputs] * config.blocks
    width = outputs
  middle = [_Place('middle/0', width, width, config.middle_depth, config.heads[-1], False),
            _Place('middle/1', width, width, 0, config.heads[-1], False)]
  for order, (level, outputs) in enumerate(reversed(levels)):
    places = []
    for index in range(config.blocks + 1):
      places.append(_Place(f'up/{order}/{index}', width + skips.pop(), outputs, config.depths[level],
                           config.heads[level], only[level]))
      width = outputs
    up.append(places)
  return down, middle, up


def network_of(config: LatentUNet) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of the shape of x.

  time_B is in [0, 1000]. `given` is what it reads of conditions, see `genjax.nn.conditioning`, with 'guidance' float B
  beside where `guidance_features` asks for it. The last convolution is initialized to zero, so that a new network
  predicts 0.
  """
  down, middle, up = _places(config)
  dtype, widths = jnp.dtype(config.dtype), config.channels
  parts: dict[str, Network] = {
    'embed': network(lambda rngs: _Embed(config, rngs)),
    'first': network(lambda rngs: Conv(config.shape[-1] + config.image_channels, widths[0], dtype=dtype, rngs=rngs)),
    'last': network(lambda rngs: _Last(config, rngs))}
  for place in (place for level in (*down, middle, *up) for place in level):
    parts[f'{place.path}/residual'] = _residual(config, place)
    if place.depth:
      transformer = pixel_transformer.parts(_options(config, place))
      parts.update({f'{place.path}/{name}': part for name, part in transformer.items()})
  for level in range(len(widths) - 1):
    parts[f'shrink/{level}'] = network(lambda rngs, width=widths[level]: _Shrink(width, dtype, rngs))
    parts[f'enlarge/{level}'] = network(lambda rngs, width=widths[::-1][level]: Conv(width, width, dtype=dtype,
                                                                                     rngs=rngs))

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    params: dict[str, Any] = {}
    for (path, part), part_key in zip(parts.items(), keys):
      *folders, name = path.split('/')
      slot = params
      for folder in folders:
        slot = slot.setdefault(folder, {})
      slot[name] = part.init(part_key)[0]
    return params, {}

  def apply(params: Tree, mutable: Tree, x_BHWC: Array, time_B: Array, given: Given | None = None,
            key: Key | None = None):
    given = _check(config, given, x_BHWC)

    def run(path: str, *inputs: Any, **options: Any) -> Any:
      slot = params
      for name in path.split('/'):
        slot = slot[name]
      return parts[path].apply(slot, {}, *inputs, **options)[0]

    condition_BD, memory = run('embed', time_B, given)
    stages = sum(map(len, (*down, middle, *up)))
    keys = iter([None] * stages if key is None else jax.random.split(key, stages))

    def stage(place: _Place, x_BHWC: Array) -> Array:
      x_BHWC = run(f'{place.path}/residual', x_BHWC, condition_BD, key=next(keys))
      if not place.depth:
        return x_BHWC
      y_BTD = run(f'{place.path}/enter', x_BHWC)
      y_BTD = run(f'{place.path}/blocks', y_BTD, memory)
      return x_BHWC + run(f'{place.path}/leave', y_BTD).reshape(x_BHWC.shape)

    if 'image' in given:
      x_BHWC = jnp.concatenate([x_BHWC, given['image'].astype(x_BHWC.dtype)], axis=-1)
    x_BHWC = run('first', x_BHWC)
    skips = [x_BHWC]
    for level, places in enumerate(down):
      if level:
        x_BHWC = run(f'shrink/{level - 1}', x_BHWC)
        skips.append(x_BHWC)
      for place in places:
        x_BHWC = stage(place, x_BHWC)
        skips.append(x_BHWC)
    for place in middle:
      x_BHWC = stage(place, x_BHWC)
    if 'residuals' in given:
      *skips, x_BHWC = conditioning.controlled([*skips, x_BHWC], given['residuals'])
    for level, places in enumerate(up):
      if level:
        x_BHWC = run(f'enlarge/{level - 1}', double(x_BHWC))
      for place in places:
        x_BHWC = stage(place, jnp.concatenate([x_BHWC, skips.pop()], axis=-1))
    return run('last', x_BHWC), mutable

  return Network(init, apply)


def _check(config: LatentUNet, given: Given | None, x_BHWC: Array) -> Given:
  """Checks the conditions, the scale of guidance among them, and the size of the input."""
  height, width = x_BHWC.shape[1:3]
  if height % config.factor or width % config.factor:
    raise UserError(f'latents need sides that are multiples of {config.factor}, got {height} by {width}')
  guided = bool(given) and 'guidance' in given
  if guided != bool(config.guidance_features):
    raise UserError("a network with guidance_features is told the scale of guidance as 'guidance', another one is not; "
                    f'got guidance_features={config.guidance_features} and '
                    f'{sorted(given) if given else "no conditions"}')
  return config.check(given, x_BHWC.shape[:3], ('residuals', 'guidance'))


class _Embed(nnx.Module):
  """The condition B D, which is the embedded time, class, vector, numbers and scale of guidance; and the tokens."""

  def __init__(self, config: LatentUNet, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(config.dtype), 4 * config.channels[0]
    self.features, self.guided = config.channels[0], config.guidance_features
    self.guidance = Linear(self.guided, self.features, use_bias=False, kernel_init=_ZEROS, dtype=dtype,
                           rngs=rngs) if self.guided else None
    self.time = nnx.Dict(up=Linear(self.features, width, dtype=dtype, rngs=rngs),
                         down=Linear(width, width, dtype=dtype, rngs=rngs))
    self.label = label_table(config.num_classes, config.null_class, width, dtype=dtype, rngs=rngs)
    self.added = conditioning.added(config, width, dtype=dtype, rngs=rngs)
    self.tokens = conditioning.Tokens(config, dtype=config.dtype, attention=config.attention_kernel,
                                      rngs=rngs) if config.memory_width else None

  def __call__(self, time_B: Array, given: Given, key: Key | None = None) -> tuple[Array, Memory | None]:
    features_BF = timestep_embedding(time_B, self.features)
    if self.guidance is not None:
      features_BF = features_BF + self.guidance(_guidance_features(given['guidance'], self.guided))
    condition_BD = self.time.down(jax.nn.silu(self.time.up(features_BF)))
    if self.label is not None:
      condition_BD = condition_BD + self.label(given['label'])
    if self.added is not None:
      condition_BD = condition_BD + self.added(given)
    memory = None if self.tokens is None else self.tokens(given)
    if memory is not None and memory[1] is not None:
      memory = memory[0], conditioning.visible(memory[1])
    return jax.nn.silu(condition_BD), memory


def _guidance_features(scale_B: Array, features: int) -> Array:
  """Sines, then cosines, of a scale of guidance, minus 1 and times 1000, as published distilled networks have it."""
  both_BF = timestep_embedding(1000.0 * (scale_B - 1.0), features, shift=1)
  return jnp.roll(both_BF, features // 2, axis=-1)


def _residual(config: LatentUNet, place: _Place) -> Network:
  made = network(lambda rngs: residual.Residual(
    place.inputs, place.outputs, groups=config.groups, epsilon=1e-5, condition=4 * config.channels[0],
    dropout=config.dropout, out_init=_ZEROS, dtype=jnp.dtype(config.dtype), rngs=rngs))
  return made._replace(apply=functional.rematerialise(made.apply, config.remat))


def _options(config: LatentUNet, place: _Place) -> pixel_transformer.Transformer:
  return pixel_transformer.Transformer(
    place.outputs, place.depth, place.heads, config.memory_width, place.only_cross, config.groups, config.dtype,
    config.attention_kernel, config.remat)


class _Shrink(nnx.Module):
  """A convolution of size 3 and stride 2 with one pixel of zeros on every side, as `Conv2d(..., 3, 2, 1)` of torch."""

  def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs):
    self.conv = Conv(width, width, stride=2, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return around(self.conv, x_BHWC)


class _Last(nnx.Module):
  """Group norm, SiLU and the convolution to the channels of the prediction."""

  def __init__(self, config: LatentUNet, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(config.dtype), config.channels[0]
    self.norm = GroupNorm(width, config.groups, epsilon=1e-5, dtype=dtype, rngs=rngs)
    self.conv = Conv(width, config.shape[-1], init=_ZEROS, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return self.conv(jax.nn.silu(self.norm(x_BHWC)))


def axes(config: LatentUNet) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  return (*AXES, *conditioning.axes(config, 'embed/', tokens=False))


# Tensor parallelism splits the hidden channels of residual blocks and of MLPs, but not attention, whose heads are few.
_BLOCKS = r'(down|middle|up)/.*/blocks'
AXES = (
  (r'embed/time/up/kernel', (None, 'mlp')),
  (r'embed/time/down/kernel', ('mlp', None)),
  *residual.axes('(down|middle|up)/.*/residual', condition=True),
  (rf'{_BLOCKS}/(up|gate)/kernel', ('layers', None, 'mlp')),
  (rf'{_BLOCKS}/(up|gate)/bias', ('layers', 'mlp')),
  (rf'{_BLOCKS}/down/kernel', ('layers', 'mlp', None)),
  (rf'{_BLOCKS}/(attention|cross)/(query|key|value)/kernel', ('layers', None, None)),
  (rf'{_BLOCKS}/(attention|cross)/out/kernel', ('layers', None, None)),
)

# Options of published networks over the defaults; `shape` is the size of the latents that they were trained for.
_TEXT2 = dict(token_width=1024, heads=(5, 10, 20, 20), linear_projection=True)
VARIANTS: dict[str, dict[str, Any]] = {
  'sd1': dict(shape=(64, 64, 4), token_width=768),
  'sd1_inpainting': dict(shape=(64, 64, 4), token_width=768, image_channels=5),
  'instruct_pix2pix': dict(shape=(64, 64, 4), token_width=768, image_channels=4),
  'sd1_lcm': dict(shape=(64, 64, 4), token_width=768, guidance_features=256),
  'sd2': dict(shape=(96, 96, 4), **_TEXT2),
  'sd2_inpainting': dict(shape=(64, 64, 4), image_channels=5, **_TEXT2),
  'sd2_depth': dict(shape=(64, 64, 4), image_channels=1, **_TEXT2),
  'x4_upscaler': dict(shape=(128, 128, 4), channels=(256, 512, 512, 1024), depths=(0, 1, 1, 1), token_width=1024,
                      image_channels=3, num_classes=1000, null_class=False, only_cross=(True, True, True, False),
                      linear_projection=True),
  'sdxl': dict(shape=(128, 128, 4), channels=(320, 640, 1280), depths=(0, 2, 10), middle_depth=10, heads=(5, 10, 20),
               token_width=2048, vector_width=1280, numbers=6, linear_projection=True),
  'sdxl_refiner': dict(shape=(128, 128, 4), channels=(384, 768, 1536, 1536), depths=(0, 4, 4, 0), middle_depth=4,
                       heads=(6, 12, 24, 24), token_width=1280, vector_width=1280, numbers=5, linear_projection=True),
}
