"""The transformer over the pixels of a map that reads tokens, in U-Nets (Rombach et al. 2022, section 3.3)."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.nn import functional
from genjax.nn.attention.cross_attention import CrossAttention
from genjax.nn.attention.self_attention import Attention
from genjax.nn.conditioning import Memory
from genjax.nn.functional import Network, network
from genjax.nn.linear import Linear
from genjax.nn.norms import GroupNorm, LayerNorm
from genjax.types import Array, Key

_ZEROS = nnx.initializers.zeros_init()


@dataclasses.dataclass(frozen=True)
class Transformer:
  """Options of a transformer over pixels.

  Attributes:
    width: channels of the map and of the tokens inside.
    depth: number of blocks.
    heads: attention heads.
    memory_width: channels of the tokens that are read.
    only_cross: whether the first attention of a block reads the tokens, too, in place of the pixels.
    groups: groups of the norm of the map.
    dtype, attention_kernel, remat: see `genjax.models.denoisers.latent_unet.LatentUNet`.
  """

  width: int
  depth: int
  heads: int
  memory_width: int
  only_cross: bool = False
  groups: int = 32
  dtype: str = 'float32'
  attention_kernel: str = 'auto'
  remat: str = 'none'


def parts(options: Transformer) -> dict[str, Network]:
  """The networks `enter` (maps B H W C -> tokens B T D), `blocks` (tokens, memory -> tokens) and `leave` (tokens ->
  tokens, zero at first)."""
  dtype, width = jnp.dtype(options.dtype), options.width
  block = network(lambda rngs: Block(options, rngs))
  return {
    'enter': network(lambda rngs: Enter(options, rngs)),
    'blocks': functional.stack(block, options.depth, remat=options.remat),
    'leave': network(lambda rngs: Leave(width, dtype, rngs))}


class Enter(nnx.Module):
  """Maps B H W C -> pixels B T D."""

  def __init__(self, options: Transformer, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(options.dtype), options.width
    self.norm = GroupNorm(width, options.groups, epsilon=1e-6, dtype=dtype, rngs=rngs)
    self.project = Linear(width, width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return self.project(self.norm(x_BHWC).reshape(x_BHWC.shape[0], -1, x_BHWC.shape[-1]))


class Leave(nnx.Module):
  """The projection after the blocks, which starts at zero."""

  def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs):
    self.project = Linear(width, width, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)

  def __call__(self, x_BTD: Array, key: Key | None = None) -> Array:
    return self.project(x_BTD)


class Block(nnx.Module):
  """Attention to the pixels, attention to the tokens, and a gated MLP, each after a norm and beside a shortcut."""

  def __init__(self, options: Transformer, rngs: nnx.Rngs):
    dtype, width, hidden = jnp.dtype(options.dtype), options.width, 4 * options.width
    own: dict[str, Any] = dict(qkv_bias=False, dtype=dtype, split=False, implementation=options.attention_kernel,
                               rngs=rngs)
    reading: dict[str, Any] = {**own, 'memory_width': options.memory_width}
    self.attention_norm, self.cross_norm, self.mlp_norm = (
      LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs) for _ in range(3))
    self.attention = (CrossAttention(width, options.heads, **reading) if options.only_cross else
                      Attention(width, options.heads, **own))
    self.cross = CrossAttention(width, options.heads, **reading)
    self.up, self.gate = (Linear(width, hidden, dtype=dtype, rngs=rngs) for _ in range(2))
    self.down = Linear(hidden, width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BTD: Array, memory: Memory, key: Key | None = None) -> Array:
    def read(attention: CrossAttention, y_BTD: Array) -> Array:
      return attention(y_BTD, attention.project(memory[0]), visible_BS=memory[1])

    y_BTD = self.attention_norm(x_BTD)
    own = self.attention
    x_BTD = x_BTD + (read(own, y_BTD) if isinstance(own, CrossAttention) else own(y_BTD))
    x_BTD = x_BTD + read(self.cross, self.cross_norm(x_BTD))
    y_BTD = self.mlp_norm(x_BTD)
    hidden = self.up(y_BTD) * jax.nn.gelu(self.gate(y_BTD), approximate=False)
    hidden = sharding.constrain(hidden, 'batch', None, 'mlp', name='hidden units B T M of the MLP')
    return sharding.constrain(x_BTD + self.down(hidden), 'batch', None, None, name='pixels B T D')
