"""The blocks of MM-DiT: joint ones of two streams, and single ones (Esser et al. 2024; Black Forest Labs 2024)."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.nn.attention.dot_product_attention import attend
from genjax.nn.linear import Linear
from genjax.nn.norms import LayerNorm, RMSNorm
from genjax.types import Array, Key

_ZEROS = nnx.initializers.zeros_init()
_XAVIER = nnx.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a block.

  Attributes:
    width: channels D of both streams.
    head_dim, norm_queries, dtype, attention: see `genjax.models.denoisers.mmdit.MmDit`.
  """

  width: int
  head_dim: int
  norm_queries: bool
  dtype: str
  attention: str


class Heads(nnx.Module):
  """Queries, keys and values of a stream, B T H D each."""

  def __init__(self, options: Options, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(options.dtype), options.width
    self.head_dim = options.head_dim
    self.query, self.key, self.value = (Linear(width, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
                                        for _ in range(3))
    norm = lambda: RMSNorm(options.head_dim, epsilon=1e-6, dtype=dtype, rngs=rngs) if options.norm_queries else None
    self.query_norm, self.key_norm = norm(), norm()

  def __call__(self, x_BTD: Array, key: Key | None = None) -> tuple[Array, Array, Array]:
    made = []
    for project, norm in ((self.query, self.query_norm), (self.key, self.key_norm), (self.value, None)):
      x_BTHD = project(x_BTD).reshape(*x_BTD.shape[:2], -1, self.head_dim)
      x_BTHD = x_BTHD if norm is None else norm(x_BTHD)
      made.append(sharding.constrain(x_BTHD, 'batch', None, 'heads', None, name='queries, keys and values B T H D'))
    return made[0], made[1], made[2]


class Stream(nnx.Module):
  """What the latents, or the text, have of their own in a joint block.

  Args:
    options: of the block.
    dual: whether it has a second attention of its own.
    ends: whether it is read for the last time: nothing but its keys, values and queries is needed.
  """

  def __init__(self, options: Options, dual: bool, ends: bool, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(options.dtype), options.width
    self.dtype, self.dual, self.ends = dtype, dual, ends
    self.modulation = Linear(width, (2 if ends else 9 if dual else 6) * width, kernel_init=_ZEROS, dtype=dtype,
                             rngs=rngs)
    self.norm = LayerNorm(width, epsilon=1e-6, use_scale=False, use_bias=False, dtype=dtype, rngs=rngs)
    self.heads = Heads(options, rngs)
    if ends:
      return
    out = lambda: Linear(width, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.out = out()
    self.second, self.second_out = (Heads(options, rngs), out()) if dual else (None, None)
    self.up = Linear(width, 4 * width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.down = Linear(4 * width, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)

  def modulate(self, condition_BD: Array) -> list[Array]:
    """Shift, scale and gate of attention and of the MLP, and of the second attention, each B 1 D."""
    modulation_B1D = self.modulation(condition_BD)[:, None]
    return jnp.split(modulation_B1D, modulation_B1D.shape[-1] // self.norm.num_features, axis=-1)

  def feed_forward(self, x_BTD: Array, shift: Array, scale: Array) -> Array:
    """The MLP of the normalised and modulated stream."""
    hidden = jax.nn.gelu(self.up(self.norm(x_BTD) * (1 + scale) + shift), approximate=True)
    hidden = sharding.constrain(hidden, 'batch', None, 'mlp', name='hidden units B T M of the MLP')
    return self.down(hidden)


class Joint(nnx.Module):
  """Attention over both streams, and an MLP for each."""

  def __init__(self, options: Options, dual: bool, ends: bool, rngs: nnx.Rngs):
    self.implementation = options.attention
    self.image, self.text = Stream(options, dual, False, rngs), Stream(options, False, ends, rngs)

  def __call__(self, streams: tuple[Array, Array], condition_BD: Array, turns_TD: Array | None,
               visible_BT: Array | None, key: Key | None = None) -> tuple[Array, Array]:
    (x_BTD, text_BLD), image, text = streams, self.image, self.text
    told, told_text = image.modulate(condition_BD), text.modulate(condition_BD)
    y_BTD = image.norm(x_BTD) * (1 + told[1]) + told[0]
    y_BLD = text.norm(text_BLD) * (1 + told_text[1]) + told_text[0]
    length = text_BLD.shape[1]
    joined = [jnp.concatenate(pair, axis=1) for pair in zip(text.heads(y_BLD), image.heads(y_BTD))]
    both_BTD = _attend(joined, turns_TD, visible_BT, self.implementation)
    before_BTD = x_BTD
    x_BTD = x_BTD + told[2] * image.out(both_BTD[:, length:])
    if image.second is not None and image.second_out is not None:
      shift, scale, gate = told[6:]
      own = image.second(image.norm(before_BTD) * (1 + scale) + shift)
      x_BTD = x_BTD + gate * image.second_out(_attend(own, None, None, self.implementation))
    x_BTD = x_BTD + told[5] * image.feed_forward(x_BTD, told[3], told[4])
    if not text.ends:
      text_BLD = text_BLD + told_text[2] * text.out(both_BTD[:, :length])
      text_BLD = text_BLD + told_text[5] * text.feed_forward(text_BLD, told_text[3], told_text[4])
    return place(x_BTD), place(text_BLD)


class Single(nnx.Module):
  """Attention and MLP side by side, over text and latents as one stream (Dehghani et al. 2023, section 2)."""

  def __init__(self, options: Options, rngs: nnx.Rngs):
    dtype, width = jnp.dtype(options.dtype), options.width
    self.implementation = options.attention
    self.modulation = Linear(width, 3 * width, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)
    self.norm = LayerNorm(width, epsilon=1e-6, use_scale=False, use_bias=False, dtype=dtype, rngs=rngs)
    self.heads = Heads(options, rngs)
    self.up = Linear(width, 4 * width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.out = Linear(5 * width, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)

  def __call__(self, x_BTD: Array, condition_BD: Array, turns_TD: Array | None, visible_BT: Array | None,
               key: Key | None = None) -> Array:
    shift, scale, gate = jnp.split(self.modulation(condition_BD)[:, None], 3, axis=-1)
    y_BTD = self.norm(x_BTD) * (1 + scale) + shift
    hidden = sharding.constrain(jax.nn.gelu(self.up(y_BTD), approximate=True), 'batch', None, 'mlp',
                                name='hidden units B T M of the MLP')
    attended = _attend(self.heads(y_BTD), turns_TD, visible_BT, self.implementation)
    return place(x_BTD + gate * self.out(jnp.concatenate([attended, hidden], axis=-1)))


def _attend(heads: Any, turns_TD: Array | None, visible_BT: Array | None, implementation: str) -> Array:
  """Attention of all queries to all keys, B T D."""
  query_BTHD, key_BTHD, value_BTHD = heads
  if turns_TD is not None:
    query_BTHD, key_BTHD = _turned(query_BTHD, turns_TD), _turned(key_BTHD, turns_TD)
  y_BTHD = attend(query_BTHD, key_BTHD, value_BTHD, visible_BS=visible_BT, implementation=implementation)
  return y_BTHD.reshape(*y_BTHD.shape[:2], -1)


def _turned(x_BTHD: Array, turns_TD: Array) -> Array:
  """Rotates pairs of neighbouring channels by angles, in float32."""
  pairs = x_BTHD.astype(jnp.float32).reshape(*x_BTHD.shape[:-1], -1, 2)
  first, second = pairs[..., 0], pairs[..., 1]
  cos, sin = (function(turns_TD)[:, None] for function in (jnp.cos, jnp.sin))
  turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.reshape(x_BTHD.shape).astype(x_BTHD.dtype)


def place(x_BTD: Array) -> Array:
  """Lays a stream out on the mesh, as each block does with its results."""
  return sharding.constrain(x_BTD, 'batch', None, None, name='tokens B T D')
