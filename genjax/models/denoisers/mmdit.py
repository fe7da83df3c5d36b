"""MM-DiT: a transformer over latents and tokens of a text, each with weights of its own (Esser et al. 2024).

Both streams attend to the tokens of both together. With the options below it is the network of Stable Diffusion 3 and
3.5 (some blocks with a second attention of the latents alone), or that of Flux: rotary positions along several axes,
and after the joint blocks single ones, in which both streams are one and attention and MLP run side by side (Black
Forest Labs 2024).
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks, sharding
from genjax.models.denoisers import mmdit_blocks
from genjax.nn import conditioning
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.conditioning import Given, Reads
from genjax.nn.conv import Conv
from genjax.nn.embeddings import TimestepEmbedding, sincos, unpatchify
from genjax.nn.functional import Network, network, stack
from genjax.nn.linear import Linear
from genjax.nn.norms import LayerNorm
from genjax.types import Array, Key, Tree, UserError

_ZEROS = nnx.initializers.zeros_init()
_XAVIER = nnx.initializers.xavier_uniform()
POSITIONS = ('sincos', 'rope')
FREQUENCIES = 256  # Fourier features of times and of the scale of guidance


@dataclasses.dataclass(frozen=True)
class MmDit(Reads):
  """Options of the network; the defaults are those of Stable Diffusion 3 medium (2,028,328,000 parameters).

  What it reads of conditions: see `genjax.nn.conditioning.Reads`. It needs tokens.

  Attributes:
    shape: (H, W, C) of the latents. Inputs may have other sizes, multiples of `patch`.
    patch: side of a patch.
    layers: joint blocks.
    dual: how many of them, from the first on, have a second attention, of the latents alone (Stable Diffusion 3.5).
    single: single blocks after the joint ones.
    heads: attention heads.
    head_dim: channels of a head; the width is heads times head_dim.
    norm_queries: whether queries and keys are normalised by their root mean square.
    positions: 'sincos' adds fixed positions to the patches, 'rope' rotates queries and keys.
    grid: of 'sincos', the range of the positions: the patches of the largest grid lie evenly in 0 .. grid.
    largest: of 'sincos', side of the largest grid in patches; smaller ones are cut from its middle.
    rope_axes: of 'rope', channels of a head for each axis: number of the image, row and column.
    guidance: whether the network is told the scale of guidance, as `guidance` (it was distilled, as Flux dev was).
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.

  Raises:
    UserError: sizes that do not divide, an unknown name, no tokens, or what `Reads` refuses.
  """

  shape: tuple[int, int, int]
  patch: int = 2
  layers: int = 24
  dual: int = 0
  single: int = 0
  heads: int = 24
  head_dim: int = 64
  norm_queries: bool = False
  positions: str = 'sincos'
  grid: int = 64
  largest: int = 192
  rope_axes: tuple[int, int, int] = (16, 56, 56)
  guidance: bool = False
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'shape', 'patch', 'layers', 'heads', 'head_dim', 'grid', 'largest')
    checks.whole(self, 0, 'dual', 'single', 'rope_axes')
    checks.dtype(self)
    if self.shape[0] % self.patch or self.shape[1] % self.patch:
      raise checks.OutOfRange(f'patch must divide height and width of the latents, {self.shape[:2]}, got {self.patch}')
    if not self.memory_width:
      raise checks.OutOfRange('half of this network is about tokens; give it token_width or vocabulary')
    if self.dual > self.layers:
      raise checks.OutOfRange(f'dual must be at most layers ({self.layers}), got {self.dual}')
    for name, known in (('positions', POSITIONS), ('attention', IMPLEMENTATIONS)):
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if self.positions == 'rope' and (sum(self.rope_axes) != self.head_dim or any(size % 2 for size in self.rope_axes)):
      raise checks.OutOfRange(f'rope_axes must be even and add up to head_dim ({self.head_dim}), got {self.rope_axes}')
    if self.positions == 'sincos' and self.width % 4:
      raise checks.OutOfRange(f'positions need a width that is a multiple of 4, got heads {self.heads} times head_dim '
                              f'{self.head_dim}')

  @property
  def width(self) -> int:
    """Channels D of both streams."""
    return self.heads * self.head_dim

  @property
  def block(self) -> mmdit_blocks.Options:
    """Options of each block."""
    return mmdit_blocks.Options(self.width, self.head_dim, self.norm_queries, self.dtype, self.attention)


def network_of(config: MmDit) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of the shape of x.

  time_B is in [0, 1000]. `given` is what it reads of conditions, see `genjax.nn.conditioning`, with 'guidance' float B
  beside where `config.guidance` asks for it. The last layer and all gates start at zero, so that a new network
  predicts 0.
  """
  parts: dict[str, Network] = {'embed': network(lambda rngs: _Embed(config, rngs))}
  groups = counts(config)
  for name, count in groups.items():
    if count:
      dual, ends = config.dual == config.layers if name == 'final' else name == 'dual', name == 'final'
      block = network(lambda rngs, dual=dual, ends=ends: mmdit_blocks.Joint(config.block, dual, ends, rngs))
      parts[name] = stack(block, count, remat=config.remat)
  if config.single:
    single = network(lambda rngs: mmdit_blocks.Single(config.block, rngs))
    parts['single'] = stack(single, config.single, remat=config.remat)
  parts['head'] = network(lambda rngs: _Head(config, rngs))

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    return {name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), keys)}, {}

  def apply(params: Tree, mutable: Tree, x_BHWC: Array, time_B: Array, given: Given | None = None,
            key: Key | None = None):
    given = _check(config, given, x_BHWC)

    def run(name: str, *inputs: Any) -> Any:
      return parts[name].apply(params[name], {}, *inputs)[0]

    x_BTD, text_BLD, condition_BD, mask_BL = run('embed', x_BHWC, time_B, given)
    grid = x_BHWC.shape[1] // config.patch, x_BHWC.shape[2] // config.patch
    shared = condition_BD, _turns(config, grid, text_BLD.shape[1]), _visible(mask_BL, x_BTD.shape[1])
    for name in groups:
      if name in parts:
        x_BTD, text_BLD = run(name, (x_BTD, text_BLD), *shared)
    if 'single' in parts:
      length = text_BLD.shape[1]
      x_BTD = run('single', mmdit_blocks.place(jnp.concatenate([text_BLD, x_BTD], axis=1)), *shared)[:, length:]
    return unpatchify(run('head', x_BTD, condition_BD), config.patch, *x_BHWC.shape[1:3]), mutable

  return Network(init, apply)


def counts(config: MmDit) -> dict[str, int]:
  """How many joint blocks of each form there are, in their order: 'dual', 'joint', and 'final'.

  In the final one the text is read for the last time, since there are no single blocks behind it.
  """
  final = 0 if config.single else 1
  dual = min(config.dual, config.layers - final)
  return {'dual': dual, 'joint': config.layers - final - dual, 'final': final}


def _check(config: MmDit, given: Given | None, x_BHWC: Array) -> Given:
  height, width = x_BHWC.shape[1:3]
  if height % config.patch or width % config.patch:
    raise UserError(f'latents need sides that are multiples of {config.patch}, got {height} by {width}')
  if config.positions == 'sincos' and max(height, width) > config.patch * config.largest:
    raise UserError(f'positions reach up to {config.largest} patches of {config.patch} along each side, got latents of '
                    f'{height} by {width}; set config.model.largest')
  if (bool(given) and 'guidance' in given) != config.guidance:
    raise UserError("a network with guidance=True is told the scale of guidance as 'guidance', another one is not; got "
                    f'guidance={config.guidance} and {sorted(given) if given else "no conditions"}')
  return config.check(given, x_BHWC.shape[:3], ('guidance',))


def _visible(mask_BL: Array | None, patches: int) -> Array | None:
  """The mask of text and patches together; None if nothing is padding."""
  if mask_BL is None:
    return None
  return jnp.concatenate([mask_BL, jnp.ones((mask_BL.shape[0], patches), bool)], axis=1)


def _turns(config: MmDit, grid: tuple[int, int], length: int) -> Array | None:
  """Angles of rotary positions, float32 of length + patches by head_dim / 2. All tokens of a text are at 0."""
  if config.positions != 'rope':
    return None
  row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
  places = np.stack([np.zeros_like(row), row, column])
  places = np.concatenate([np.zeros((3, length)), places], axis=1)
  parts = [place[:, None] * 10_000.0 ** (-np.arange(0, size, 2) / size)
           for place, size in zip(places, config.rope_axes)]
  return jnp.asarray(np.concatenate(parts, axis=1), jnp.float32)


class _Embed(nnx.Module):
  """Patches with positions, projected tokens, the condition B D, and the mask of tokens."""

  def __init__(self, config: MmDit, rngs: nnx.Rngs):
    self.config, dtype, width = config, jnp.dtype(config.dtype), config.width
    self.patch = Conv(config.shape[-1] + config.image_channels, width, size=config.patch, stride=config.patch,
                      init=_XAVIER, dtype=dtype, rngs=rngs)
    self.time = TimestepEmbedding(FREQUENCIES, width, dtype=dtype, rngs=rngs)
    self.guidance = TimestepEmbedding(FREQUENCIES, width, dtype=dtype, rngs=rngs) if config.guidance else None
    self.added = conditioning.added(config, width, dtype=dtype, rngs=rngs)
    self.tokens = conditioning.Tokens(config, dtype=config.dtype, attention=config.attention, rngs=rngs)
    self.text = Linear(config.memory_width, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, time_B: Array, given: Given, key: Key | None = None):
    if 'image' in given:
      x_BHWC = jnp.concatenate([x_BHWC, given['image'].astype(x_BHWC.dtype)], axis=-1)
    x_BHWD = self.patch(x_BHWC)
    grid = x_BHWD.shape[1], x_BHWD.shape[2]
    x_BTD = x_BHWD.reshape(x_BHWD.shape[0], -1, x_BHWD.shape[-1])
    if self.config.positions == 'sincos':
      x_BTD = x_BTD + positions(self.config, grid).astype(x_BTD.dtype)
    condition_BD = self.time(time_B)
    if self.guidance is not None:
      condition_BD = condition_BD + self.guidance(1000.0 * given['guidance'])
    if self.added is not None:
      condition_BD = condition_BD + self.added(given)
    text_BLE, mask_BL = self.tokens(given)
    return mmdit_blocks.place(x_BTD), mmdit_blocks.place(self.text(text_BLE)), jax.nn.silu(condition_BD), mask_BL


def positions(config: MmDit, grid: tuple[int, int]) -> np.ndarray:
  """Fixed positions T D of a grid of patches, cut from the middle of the largest grid.

  Columns before rows, sines before cosines; neighbours are grid / largest apart, so that the largest grid
  fills 0 .. grid. Places are rounded to float32, as in diffusers, whose files hold these positions.
  """
  places = np.arange(config.largest, dtype=np.float32) / np.float32(config.largest / config.grid)
  row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
  start = [(config.largest - side) // 2 for side in grid]
  half = config.width // 2
  return np.concatenate([sincos(places[column + start[1]], half), sincos(places[row + start[0]], half)],
                        axis=-1).astype(np.float32)


class _Head(nnx.Module):
  """Layer norm with shift and scale from the condition, and the projection to patches."""

  def __init__(self, config: MmDit, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(config.dtype), config.width
    self.modulation = Linear(width, 2 * width, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)
    self.norm = LayerNorm(width, epsilon=1e-6, use_scale=False, use_bias=False, dtype=dtype, rngs=rngs)
    self.out = Linear(width, config.patch ** 2 * config.shape[-1], kernel_init=_ZEROS, dtype=dtype, rngs=rngs)

  def __call__(self, x_BTD: Array, condition_BD: Array, key: Key | None = None) -> Array:
    shift, scale = jnp.split(self.modulation(condition_BD)[:, None], 2, axis=-1)
    return self.out(self.norm(x_BTD) * (1 + scale) + shift)


def axes(config: MmDit) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  return (*AXES, *(SINGLE_AXES if config.single else ()), *conditioning.axes(config, 'embed/', tokens=False))


_BLOCKS = '(dual|joint|final|single)'
AXES = (
  ('embed/patch/kernel', (None, None, None, 'embed')),
  ('embed/text/kernel', (None, 'embed')),
  ('embed/(time|guidance)/up/kernel', (None, 'mlp')),
  ('embed/(time|guidance)/down/kernel', ('mlp', 'embed')),
  (rf'{_BLOCKS}/.*(query|key|value)/kernel', ('layers', 'embed', 'heads')),
  (rf'{_BLOCKS}/.*(query|key|value)/bias', ('layers', 'heads')),
  ('(dual|joint|final)/.*out/kernel', ('layers', 'heads', 'embed')),
  (rf'{_BLOCKS}/.*up/kernel', ('layers', 'embed', 'mlp')),
  (rf'{_BLOCKS}/.*up/bias', ('layers', 'mlp')),
  (rf'{_BLOCKS}/.*down/kernel', ('layers', 'mlp', 'embed')),
  (rf'{_BLOCKS}/.*modulation/kernel', ('layers', 'embed', None)),
  ('head/modulation/kernel', ('embed', None)),
  ('head/out/kernel', ('embed', None)),
)
SINGLE_AXES = (('single/out/kernel', ('layers', 'mlp', 'embed')),)

# Options of published networks over the defaults; `shape` is the size of the latents that they were trained for.
_SD3 = dict(shape=(128, 128, 16), token_width=4096, vector_width=2048)
_FLUX = dict(shape=(128, 128, 16), token_width=4096, vector_width=768, layers=19, single=38, head_dim=128,
             norm_queries=True, positions='rope')
VARIANTS: dict[str, dict[str, Any]] = {
  'sd3_medium': dict(**_SD3),
  'sd35_medium': dict(dual=13, norm_queries=True, largest=384, **_SD3),
  'sd35_large': dict(layers=38, heads=38, norm_queries=True, **_SD3),
  'flux_schnell': dict(**_FLUX),
  'flux_dev': dict(guidance=True, **_FLUX),
  'flux_fill': dict(guidance=True, image_channels=80, **_FLUX),  # 384 channels a patch of 2 by 2: 64 and 320
  'flux_control': dict(guidance=True, image_channels=16, **_FLUX),
}
