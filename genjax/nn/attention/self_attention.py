"""Self-attention with grouped queries, rotary positions, a causal mask and an explicit key/value cache."""

import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.nn import cpu
from genjax.nn.attention.dot_product_attention import attend, attend_cached, check_window
from genjax.nn.attention.ring_attention import ring_attend
from genjax.nn.linear import Linear
from genjax.types import Array, Key, UserError

_XAVIER = nnx.initializers.xavier_uniform()
ROPE_SCALINGS = ('linear', 'dynamic', 'llama3', 'yarn')


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How the frequencies of rotary positions are lowered for contexts longer than a model was first trained on.

  'linear' divides all by `factor` (Chen et al. 2023, eq. 3). 'llama3' (Llama Team 2024, as published with Llama 3.1)
  divides those whose wavelength exceeds original_context / low by `factor`, leaves those below original_context / high
  as they are, and goes linearly in 1 / wavelength from one to the other. 'yarn' (Peng et al. 2023, section 3.2) goes
  linearly in the number of the channel, from the channel that turns `high` times in the original context to that of
  `low` turns. 'dynamic' raises the base with the length of a sequence beyond the context, and leaves shorter ones as
  they are; models here take no longer ones.

  Attributes:
    kind: 'linear', 'llama3', 'yarn' or 'dynamic'.
    factor: by how much frequencies are divided.
    low: turns in the original context up to which a frequency is divided by all of `factor`; of 'llama3' and 'yarn'.
    high: turns in the original context from which a frequency is not divided; of 'llama3' and 'yarn'.
    original_context: tokens of the context of the first training; of 'llama3' and 'yarn'.
    truncate: whether the first channel of 'yarn' is rounded down and the last one up.
    amplitude: factor of sines and cosines in 'yarn'; 0 for 0.1 ln(factor) + 1 (eq. 22).

  Raises:
    ValueError: an unknown kind, or numbers out of range.
  """

  kind: str
  factor: float
  low: float = 1.0
  high: float = 4.0
  original_context: int = 8192
  truncate: bool = True
  amplitude: float = 0.0

  def __post_init__(self):
    if self.kind not in ROPE_SCALINGS:
      raise ValueError(f'the kind of rotary scaling must be one of {ROPE_SCALINGS}, got {self.kind!r}')
    if self.factor <= 0 or self.low <= 0 or self.high <= self.low or self.original_context < 1 or self.amplitude < 0:
      raise ValueError(
        f'rotary scaling needs factor > 0, 0 < low < high, original_context >= 1 and amplitude >= 0, got {self}')

  def __call__(self, frequency_D: Array, theta: float) -> Array:
    """Returns the scaled frequencies, in radians per token, for frequencies theta^(-d / D)."""
    if self.kind == 'dynamic':
      return frequency_D
    if self.kind == 'linear':
      return frequency_D / self.factor
    if self.kind == 'yarn':
      kept_D = 1.0 - self._ramp(frequency_D.shape[0], theta)
    else:
      turns_D = self.original_context * frequency_D / (2 * math.pi)  # number of turns in the original context
      kept_D = jnp.clip((turns_D - self.low) / (self.high - self.low), 0.0, 1.0)
    return (kept_D + (1.0 - kept_D) / self.factor) * frequency_D

  def _ramp(self, channels: int, theta: float) -> Array:
    """The share of 'linear' scaling in yarn: rises from 0 at the first changed channel to 1 at the last."""
    first, last = (channels * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(theta)
                   for turns in (self.high, self.low))
    if self.truncate:
      first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * channels - 1)
    return jnp.clip((jnp.arange(channels) - first) / (last - first or 0.001), 0.0, 1.0)

  @property
  def height(self) -> float:
    """The factor of sines and cosines."""
    if self.kind != 'yarn':
      return 1.0
    return self.amplitude or 0.1 * math.log(max(self.factor, 1.0)) + 1.0

  def check_length(self, length: int, context: int) -> None:
    """Raises a UserError if 'dynamic' scaling would have to change, for a sequence longer than the context."""
    if self.kind == 'dynamic' and length > context:
      raise UserError(
        f"rotary scaling 'dynamic' changes beyond {context} tokens, which genjax does not support; got a sequence of "
        f"{length}"
      )


def rope(x_BTHD: Array, positions_BT: Array, theta: float = 10_000.0, scaling: RopeScaling | None = None) -> Array:
  """Rotary position embedding (Su et al. 2021, eq. 34), channel i paired with channel i + D/2 as in LLaMA.

  Args:
    x_BTHD: queries or keys, D even.
    positions_BT: position of each token; B may be 1.
    theta: base of the wavelengths 2 pi theta^(2i/D).
    scaling: changes the wavelengths, see `RopeScaling`.
  """
  half = x_BTHD.shape[-1] // 2
  frequency_D = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is not None:
    frequency_D = scaling(frequency_D, theta)
  angle_BT1D = positions_BT[..., None, None].astype(jnp.float32) * frequency_D
  cosine, sine = jnp.cos(angle_BT1D), jnp.sin(angle_BT1D)
  if scaling is not None and scaling.height != 1.0:
    cosine, sine = scaling.height * cosine, scaling.height * sine
  first, second = jnp.split(x_BTHD.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
  return rotated.astype(x_BTHD.dtype)


def init_layer(batch: int, kv_heads: int, slots: int, head_dim: int, dtype: Any = jnp.float32) -> tuple[Array, Array]:
  """An empty cache of one layer: keys and values, each B K S D, or K S D for one row (see `genjax.nn.cpu`).
  """
  shape = cpu.cache_shape(batch, kv_heads, slots, head_dim)
  return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)


def _smaller(init, divisor: float):
  """The initializer with its values divided by `divisor`."""
  return lambda key, shape, dtype: init(key, shape, dtype) / divisor


def _write(cache: Array, new_BTKD: Array, start: Array) -> Array:
  """Writes T new slots to a cache (B) K S D from slot `start` on."""
  new_BKTD = new_BTKD.swapaxes(1, 2).astype(cache.dtype)
  zero = jnp.zeros_like(start)
  if cache.ndim == 3:
    return jax.lax.dynamic_update_slice(cache, new_BKTD[0], (zero, start, zero))
  return jax.lax.dynamic_update_slice(cache, new_BKTD, (zero, zero, start, zero))


class Attention(nnx.Module):
  """Multi-head self-attention (Vaswani et al. 2017), or grouped-query attention (Ainslie et al. 2023).

  Query head h reads key/value head h // (heads / kv_heads). The softmax is computed in float32.

  Args:
    width: model width D of input and output.
    heads, kv_heads: query heads and key/value heads; the first is a multiple of the second.
    head_dim: channels of a head, width / heads if None.
    bias: whether the four projections have a bias.
    qkv_bias: False removes the biases of queries, keys and values.
    key_bias: False removes the bias of the keys (Whisper); it would only add a constant to all scores of a query.
    causal: token t sees only the tokens up to t.
    dtype: compute dtype; parameters are float32.
    rope_theta, rope_scaling: base and scaling of the rotary embedding, see `rope`; no base means no embedding.
    window: token t sees only the last `window` tokens up to t; None for all. Only with `causal`.
    kernel_init, out_init: initializers of the query/key/value kernels and of the output kernel.
    scaled: whether scores are divided by sqrt(head_dim). If False, the query kernel is initialized smaller by this
      factor instead (T5, Raffel et al. 2020, as in the published code).
    implementation: see `genjax.nn.attention.dot_product_attention.attend`.
    dropout: dropout rate of the attention weights, see `genjax.nn.attention.dot_product_attention.attend`; not with a
      cache.
    split: whether a mesh splits heads (logical axis 'heads') and tokens ('sequence', by ring attention).
    memory_width: channels of what keys and values are made of, in cross-attention; width if None.

  Raises:
    ValueError: head counts do not divide, head_dim is odd with rotary positions, or a window comes without `causal`.
    UserError: a mesh splits heads or tokens into unequal parts.
  """

  def __init__(self, width: int, heads: int, kv_heads: int | None = None, *, head_dim: int | None = None,
               bias: bool = True, causal: bool = False, dtype=jnp.float32, rngs: nnx.Rngs,
               rope_theta: float | None = None, rope_scaling: RopeScaling | None = None, window: int | None = None,
               kernel_init=_XAVIER, out_init=_XAVIER, implementation: str = 'auto', split: bool = True,
               scaled: bool = True, key_bias: bool = True, qkv_bias: bool = True, dropout: float = 0.0,
               memory_width: int | None = None):
    kv_heads = kv_heads or heads
    if heads % kv_heads:
      raise ValueError(f'heads ({heads}) must be a multiple of kv_heads ({kv_heads})')
    if head_dim is None and width % heads:
      raise ValueError(f'width ({width}) must be a multiple of heads ({heads}) unless head_dim is given')
    head_dim = head_dim or width // heads
    if rope_theta is not None and head_dim % 2:
      raise ValueError(f'rotary positions need an even head_dim, got {head_dim}')
    self.head_dim, self.causal, self.rope_theta, self.implementation = head_dim, causal, rope_theta, implementation
    check_window(causal, window)
    self.rope_scaling, self.window, self.split, self.scaled, self.dropout = rope_scaling, window, split, scaled, dropout

    def linear(inputs: int, outputs: int, init, bias: bool = bias) -> Linear:
      return Linear(inputs, outputs, use_bias=bias, dtype=dtype, kernel_init=init, rngs=rngs)

    self.query = linear(width, heads * head_dim, kernel_init if scaled else _smaller(kernel_init, math.sqrt(head_dim)),
                        bias and qkv_bias)
    self.key = linear(memory_width or width, kv_heads * head_dim, kernel_init, bias and qkv_bias and key_bias)
    self.value = linear(memory_width or width, kv_heads * head_dim, kernel_init, bias and qkv_bias)
    self.out = linear(heads * head_dim, width, out_init)

  def __call__(self, x_BTD: Array, key: Key | None = None, positions_BT: Array | None = None,
               layer: tuple[Array, Array] | None = None, position: Array | int | None = None,
               segments_BT: Array | None = None, first_B: Array | None = None, bias_HTS: Array | None = None,
               mask_BT: Array | None = None) -> Any:
    """Applies attention.

    Args:
      x_BTD: tokens.
      key: for dropout of the attention weights.
      positions_BT: positions for the rotary embedding, by default 0, 1, ... (from `position` on with a cache).
      layer: cache (key_BKSD, value_BKSD) of S slots, see `init_layer`. The T new tokens are written to the slots from
        `position` on; later slots are masked. position + T must not exceed S.
      position: number of slots already filled, an integer scalar.
      segments_BT: integer ids for packed sequences: a token sees only tokens with its own id. Padding gets an id of its
        own. Not with a cache.
      mask_BT: nonzero on tokens, zero on padding at either end, which no token sees. Not with a cache or segments.
      first_B: only with a cache: the first slot of each row that holds a token. Earlier slots are padding.
      bias_HTS: see `genjax.nn.attention.dot_product_attention.attend`. S is the number of slots with a cache, else T.

    Returns:
      y_BTD, or (y_BTD, new layer) with a cache.

    Raises:
      ValueError: `segments_BT` or `mask_BT` comes with a cache, both come together, or `first_B` comes without a cache.
    """
    if any(given is not None for given in ((segments_BT, mask_BT) if layer is not None else (first_B,))):
      raise ValueError('segments and masks need attention without a key/value cache, and first slots need one')
    query_BTHD, key_BTKD, value_BTKD = (
        projection(x_BTD).reshape(*x_BTD.shape[:2], -1, self.head_dim)
        for projection in (self.query, self.key, self.value))
    # With a cache, sequences are not split over devices.
    sequence = 'sequence' if self.split and layer is None else None
    query_BTHD = self._place(query_BTHD, 'queries B T H D', sequence)
    key_BTKD, value_BTKD = (
      self._place(x, 'keys and values B T K D', sequence, grouped=True) for x in (key_BTKD, value_BTKD))
    length = x_BTD.shape[1]
    start = jnp.int32(0 if position is None else position)
    index_T = start + jnp.arange(length)
    if not self.scaled:
      query_BTHD = query_BTHD * math.sqrt(self.head_dim)  # undone by `attend`
    if self.rope_theta is not None:
      place_BT = index_T[None] if positions_BT is None else positions_BT
      query_BTHD, key_BTKD = (rope(x, place_BT, self.rope_theta, self.rope_scaling) for x in (query_BTHD, key_BTKD))
    if layer is None:
      segments = None if segments_BT is None else (segments_BT, segments_BT)
      if sequence and sharding.shards(sequence) > 1:
        if self.implementation != 'auto':
          raise UserError(
            f'attention implementation {self.implementation!r} needs whole sequences, but config.mesh splits them; '
            "leave it at 'auto', or set config.rules.sequence to None")
        if bias_HTS is not None:
          raise UserError(
            'relative positions need whole sequences, but config.mesh splits them; set config.rules.sequence to None')
        if self.dropout and key is not None:
          raise UserError(
            f'dropout of attention weights ({self.dropout}) needs whole sequences, but config.mesh splits them; set '
            'config.rules.sequence to None')
        if mask_BT is not None:
          segments = jnp.ones(mask_BT.shape, jnp.int32), (mask_BT != 0).astype(jnp.int32)
        y_BTHD = ring_attend(query_BTHD, key_BTKD, value_BTKD, causal=self.causal, window=self.window,
                             segments=segments)
      else:
        y_BTHD = attend(query_BTHD, key_BTKD, value_BTKD, causal=self.causal, window=self.window, segments=segments,
                        visible_BS=mask_BT, bias_HTS=bias_HTS, implementation=self.implementation,
                        dropout_rate=self.dropout, key=key)
      return self.out(y_BTHD.reshape(*x_BTD.shape[:2], -1))
    layer = _write(layer[0], key_BTKD, start), _write(layer[1], value_BTKD, start)
    key_BKSD, value_BKSD = (
      cache.reshape(x_BTD.shape[0], *cache.shape[-3:]).astype(query_BTHD.dtype) for cache in layer)
    slot_S, hidden_BS = jnp.arange(key_BKSD.shape[2]), None
    if not self.causal:
      hidden_BS = jnp.broadcast_to(slot_S >= start + length, (x_BTD.shape[0], len(slot_S)))
    if first_B is not None:
      padding_BS = slot_S < first_B[:, None]
      hidden_BS = padding_BS if hidden_BS is None else hidden_BS | padding_BS
    # Unwritten slots and padding form a separate segment, which no token sees.
    segments = None if hidden_BS is None else (jnp.zeros(x_BTD.shape[:2], bool), hidden_BS)
    y_BTHD = attend_cached(query_BTHD, key_BKSD, value_BKSD, start, causal=self.causal, window=self.window,
                           segments=segments, bias_HTS=bias_HTS)
    return self.out(y_BTHD.reshape(*x_BTD.shape[:2], -1)), layer

  def _place(self, x_BTHD: Array, name: str, sequence: str | None, grouped: bool = False) -> Array:
    """Places heads on devices. If there are too few key/value heads to split, every device has all of them."""
    heads = 'heads' if self.split and not (grouped and x_BTHD.shape[2] % sharding.shards('heads')) else None
    return sharding.constrain(x_BTHD, 'batch', sequence, heads, None, name=f'{name} of attention')
