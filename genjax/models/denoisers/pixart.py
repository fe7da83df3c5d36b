"""PixArt: a DiT that attends to a text, with one modulation for all blocks (Chen et al. 2023 and 2024).

Shift, scale and gate of a block are the sum of a table of its own and of what one layer makes of the embedded time
(adaLN-single, Chen et al. 2023, section 2.3). The network of PixArt-alpha at 1024 pixels is told height, width and
aspect ratio of the picture, too; those of PixArt-alpha at 256 and 512 and of PixArt-Sigma are not.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction, sharding
from genjax.models.denoisers import dit
from genjax.nn.conditioning import Given, Memory
from genjax.nn.embeddings import TimestepEmbedding
from genjax.nn.functional import Network
from genjax.nn.linear import Linear
from genjax.types import Array, Key

_NORMAL, _ZEROS = nnx.initializers.normal(0.02), nnx.initializers.zeros_init()
SIZES = 3  # numbers that are embedded: height, width and height / width
Condition = tuple[Array, Array]  # the embedded time B D, and what all blocks add to their tables, B 6 D as one axis


@dataclasses.dataclass(frozen=True)
class PixArt(dit.DiT):
  """Options of the network; the defaults are those of PixArt-Sigma at 1024 pixels (610,856,096 parameters).

  Attributes: see `genjax.models.denoisers.dit.DiT`. `numbers` is 0, or 3 for height and width in pixels and height /
  width, each embedded by Fourier features of its own; with 2 the last one is computed from the others.

  Raises:
    UserError: no tokens, a vector, other numbers, another block, or what `DiT` refuses.
  """

  shape: tuple[int, int, int] = (128, 128, 4)
  width: int = 1152
  depth: int = 28
  heads: int = 16
  learn_sigma: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not self.memory_width or self.tokens_enter != 'cross':
      raise checks.OutOfRange('PixArt attends to a text by cross-attention: it needs token_width or vocabulary, and '
                              f"tokens_enter='cross', got tokens_enter={self.tokens_enter!r}")
    if self.block != 'adaln_zero':
      raise checks.OutOfRange(f'block is of model dit: PixArt has a block of its own, got {self.block!r}')
    if self.vector_width:
      raise checks.OutOfRange(f'PixArt reads no vector; vector_width must be 0, got {self.vector_width}')
    if self.numbers not in (0, SIZES - 1, SIZES):
      raise checks.OutOfRange(f'numbers must be 0, 2 (height and width) or 3 (and height / width), got {self.numbers}')
    if self.numbers and self.width % SIZES:
      raise checks.OutOfRange(f'width must be a multiple of {SIZES}, of which each number has an equal share, got '
                              f'{self.width}')


def network(config: PixArt) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of shape B H W C (2 C with `learn_sigma`).

  time_B is in [0, 1000]. `given` is what it reads of conditions, see `genjax.nn.conditioning`. The last layer starts at
  zero, so that a fresh network predicts 0.
  """
  return dit.network(config, Block, Embed, Head)


class Embed(dit.Embed):
  """Patches with positions, the condition, and projected tokens."""

  def __init__(self, config: PixArt, rngs: nnx.Rngs):
    super().__init__(dataclasses.replace(config, numbers=0), rngs)
    dtype, width, share = jnp.dtype(config.dtype), config.width, config.width // SIZES
    self.modulation = Linear(width, 6 * width, kernel_init=_NORMAL, dtype=dtype, rngs=rngs)
    size = lambda: TimestepEmbedding(config.number_features, share, dtype=dtype, rngs=rngs) if config.numbers else None
    self.resolution, self.aspect = size(), size()

  def __call__(self, x_BHWC: Array, time_B: Array, given: Given, key: Key | None = None):
    x_BTD, condition_BD, memory = super().__call__(x_BHWC, time_B, given)
    if self.resolution is not None and self.aspect is not None:
      height_B, width_B, *more = given['numbers'].T
      aspect_B = more[0] if more else height_B / jnp.maximum(width_B, 1.0)
      parts = [self.resolution(height_B), self.resolution(width_B), self.aspect(aspect_B)]
      condition_BD = condition_BD + jnp.concatenate(parts, axis=-1)
    return x_BTD, (condition_BD, self.modulation(jax.nn.silu(condition_BD))), memory


class Block(dit.Block):
  """A block of `genjax.models.denoisers.dit` whose modulation is a table, added to what all blocks share."""

  def make_modulation(self, config: dit.DiT, rngs: nnx.Rngs) -> Any:
    return _table(6, config.width, rngs)

  def __call__(self, x_BTD: Array, condition: Condition, key: Key | None = None,  # type: ignore[override]
               memory: Memory | None = None, mask_BT: Array | None = None) -> Array:
    return super().__call__(x_BTD, condition, memory=memory, mask_BT=mask_BT)  # type: ignore[arg-type]

  def modulate(self, condition: Condition) -> list[Array]:  # type: ignore[override]
    shared_B6D = condition[1].reshape(-1, 6, self.modulation.get_value().shape[-1]).astype(self.residual)
    return _rows(self.modulation, shared_B6D)


class Head(nnx.Module):
  """Layer norm with shift and scale, a table and the embedded time, and the projection to patches."""

  def __init__(self, config: PixArt, channels: int, rngs: nnx.Rngs):
    dtype, self.residual = jnp.dtype(config.dtype), jnp.dtype(config.residual_dtype or config.dtype)
    self.modulation = _table(2, config.width, rngs)
    self.out = Linear(config.width, config.patch ** 2 * channels, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)
    self.norm = dit.make_norm(config, rngs)

  def __call__(self, x_BTD: Array, condition: Condition, key: Key | None = None) -> Array:
    shift, scale = _rows(self.modulation, condition[0][:, None].astype(self.residual))
    return self.out(self.norm(x_BTD) * (1 + scale) + shift)


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
  """A table of deviation 1 / sqrt(width), as in the published code."""
  return nnx.Param(nnx.initializers.normal(width ** -0.5)(rngs.params(), (rows, width), jnp.float32))


def _rows(table: nnx.Param, added_BND: Array) -> list[Array]:
  """Each row of a table with what is added to it, B 1 D."""
  table_ND = reduction.plain(table.get_value()).astype(added_BND.dtype)
  return jnp.split(table_ND + added_BND, len(table_ND), axis=1)


def axes(config: PixArt) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  kept = [row for row in dit.axes(dataclasses.replace(config, numbers=0)) if row[0] not in _OTHERS]
  sizes = [('embed/(resolution|aspect)/up/kernel', (None, 'mlp')),
           ('embed/(resolution|aspect)/down/kernel', ('mlp', None))] if config.numbers else []
  return (*kept, ('embed/modulation/kernel', ('embed', None)), *sizes)


_OTHERS = ('blocks/modulation/kernel', 'head/modulation/kernel')  # of DiT, where they are layers

# Options of published networks over the defaults; `shape` is the size of the latents that they were trained for.
_PIXART = dict(token_width=4096, span=32.0)
VARIANTS: dict[str, dict[str, Any]] = {
  'pixart_alpha_512': dict(shape=(64, 64, 4), **_PIXART),
  'pixart_alpha_1024': dict(numbers=SIZES, **_PIXART),
  'pixart_sigma_1024': dict(**_PIXART),
}
