"""Softmax attention, softmax(q k^T / sqrt(D) + bias + mask) v (Vaswani et al. 2017, eq. 1).

`attend` has an implementation for each backend. All but `reference` avoid the T x S matrix of scores, and all equal
`reference` up to rounding. Suffixes: B batch, T queries, S keys, H query heads, K key/value heads, G = H / K queries
that share a key, D channels of a head, N chunks of queries.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.nn import cpu, derivatives
from genjax.nn.attention.attention_kernels import Segments, cudnn, refusal, say_once, splash_attention
from genjax.nn.functional import drop, dropout
from genjax.types import Array, Key, UserError

IMPLEMENTATIONS = ('auto', 'reference', 'chunked', 'splash', 'cudnn')
CHUNK = 512  # number of queries whose scores are in memory at a time
CAUSAL_PARTS = 4  # a causal sequence is split into so many parts; each reads only the keys up to its own end
MIN_PART = 64  # queries; in smaller parts, small matrix products cost more than skipping keys saves
_MASKED_SCORE = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite, so that a row without visible keys gives no NaN


def attend(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, *, causal: bool = False, window: int | None = None,
           segments: Segments | None = None, visible_BS: Array | None = None, bias_HTS: Array | None = None,
           implementation: str = 'auto', dropout_rate: float = 0.0, key: Key | None = None) -> Array:
  """Attention of T queries to S keys, with scores and softmax in float32.

  Args:
    query_BTHD: queries; head h reads key/value head h // (H / K).
    key_BSKD, value_BSKD: keys and values.
    causal: query t sees keys s <= t; T and S must be equal.
    window: query t sees keys s > t - window only (sliding window); only with `causal`.
    segments: integer ids (B T, B S), for packed sequences: a query sees only keys with its own id. The output of a
      query without any key is unspecified.
    visible_BS: nonzero where a key is visible to the queries of its row, zero on padding anywhere; not with `segments`.
    bias_HTS: added to the scaled scores of all rows, e.g. for relative positions.
    implementation: 'reference' stores all scores. 'chunked' stores those of `CHUNK` queries and recomputes them for the
      gradient. 'splash' is the TPU kernel of jax.experimental.pallas; T and S must be multiples of 128. 'cudnn' is
      NVIDIA's fused kernel, for float16 and bfloat16, without segments, with heads of up to 128 channels, 256 on
      Hopper. Neither kernel supports a bias or forward-mode derivatives (`jax.jvp`); 'reference' and 'chunked' support
      both. 'auto' uses the kernel of the platform (see `genjax.sharding.platform`) if it supports the arguments; else
      it uses 'chunked' and logs that once.
    dropout_rate, key: with a key, weights are dropped at this rate after the softmax. The kernels don't support it, so
      'auto' uses 'chunked'.

  Returns:
    y_BTHD in the type of the queries.

  Raises:
    UserError: the named implementation does not support the platform or the arguments (dropout among them); or a kernel
      is differentiated in forward mode.
    ValueError: shapes do not match, a window comes without `causal`, segments come with `visible_BS`, or the
      implementation is unknown.
  """
  _check(query_BTHD, key_BSKD, value_BSKD, causal, window, bias_HTS, implementation)
  if segments is not None and visible_BS is not None:
    raise ValueError('attention takes segments or visible keys, not both: give padding a segment of its own')
  arrays = (query_BTHD, key_BSKD, value_BSKD)
  options: dict[str, Any] = {} if bias_HTS is None else {'bias_HTS': bias_HTS}
  if visible_BS is not None:
    options['visible_BS'] = visible_BS
  if dropout_rate and key is not None:
    options |= {'dropout_rate': dropout_rate, 'key': key}
  auto = implementation == 'auto'
  if auto:
    implementation = {'tpu': 'splash', 'gpu': 'cudnn'}.get(sharding.platform(), 'chunked')
  if reason := refusal(implementation, *arrays, segments, causal, options):
    if not auto:
      raise UserError(f"attention implementation {implementation!r} {reason}; 'auto' chooses one that fits")
    say_once(f"attention kernel {implementation!r} {reason}; 'chunked' takes its place")
    implementation = 'chunked'
  if visible_BS is not None and implementation != 'cudnn':
    del options['visible_BS']
    segments = jnp.ones(query_BTHD.shape[:2], bool), visible_BS != 0
  return _BY_NAME[implementation](*arrays, segments, causal=causal, window=window, **options)


def attend_cached(query_BTHD: Array, key_BKSD: Array, value_BKSD: Array, position: Array | int, *, causal: bool = False,
                  window: int | None = None, segments: Segments | None = None, bias_HTS: Array | None = None) -> Array:
  """Attention of T queries to cached keys and values, in plain XLA on every backend.

  More than `CHUNK` queries are computed chunk by chunk.

  Args:
    query_BTHD: queries; head h reads key/value head h // (H / K).
    key_BKSD, value_BKSD: the cache, with heads before slots as matrix products read them; any other order would cost a
      copy of the cache for every token.
    position: slot of the first query, an integer scalar; with `causal`, query t sees slots s <= position + t.
    window, segments, bias_HTS: see `attend`.

  Returns:
    y_BTHD in the type of the queries.
  """
  query_BKGTD = jnp.moveaxis(_grouped(query_BTHD, key_BKSD.shape[1]), 1, 3)
  if query_BTHD.shape[1] == 1:  # one token: plain matrix products, which don't make XLA copy the cache
    visible = _visible(1, key_BKSD.shape[2], position, causal, window, segments)
    scores_BKGS = jnp.einsum('bkgd,bksd->bkgs', query_BKGTD[:, :, :, 0], key_BKSD, preferred_element_type=jnp.float32)
    scores_BKGS *= query_BTHD.shape[3] ** -0.5
    if bias_HTS is not None:
      scores_BKGS += bias_HTS.reshape(scores_BKGS.shape[1:])
    scores_BKGS = jnp.where(True if visible is None else jnp.squeeze(visible, -2), scores_BKGS, _MASKED_SCORE)
    weight_BKGS = jnp.exp(scores_BKGS - jnp.max(scores_BKGS, axis=-1, keepdims=True))
    y_BKGD = jnp.einsum('bkgs,bksd->bkgd', weight_BKGS.astype(value_BKSD.dtype), value_BKSD,
                        preferred_element_type=jnp.float32)
    y_BKGD /= jnp.sum(weight_BKGS, axis=-1, keepdims=True)
    return y_BKGD.reshape(query_BTHD.shape).astype(query_BTHD.dtype)
  bias_KGTS = _grouped_bias(bias_HTS, key_BKSD.shape[1])
  y_BKGTD = _chunks(query_BKGTD, key_BKSD, value_BKSD, segments, bias_KGTS, causal, window, position,
                    query_BTHD.shape[1] > CHUNK)
  return jnp.moveaxis(y_BKGTD, 3, 1).reshape(query_BTHD.shape)


def reference(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments | None = None, *,
              causal: bool = False, window: int | None = None, bias_HTS: Array | None = None, dropout_rate: float = 0.0,
              key: Key | None = None) -> Array:
  """The formula as written, with all scores in memory."""
  query_BTKGD = _grouped(query_BTHD, key_BSKD.shape[2])
  scores_BKGTS = jnp.einsum('btkgd,bskd->bkgts', query_BTKGD, key_BSKD, preferred_element_type=jnp.float32)
  scores_BKGTS *= query_BTHD.shape[3] ** -0.5
  if bias_HTS is not None:
    scores_BKGTS += bias_HTS.reshape(scores_BKGTS.shape[1:])
  visible = _visible(query_BTHD.shape[1], key_BSKD.shape[1], 0, causal, window, segments)
  if visible is not None:
    scores_BKGTS = jnp.where(visible, scores_BKGTS, _MASKED_SCORE)
  weight_BKGTS = dropout(jax.nn.softmax(scores_BKGTS, axis=-1).astype(value_BSKD.dtype), dropout_rate, key)
  return jnp.einsum('bkgts,bskd->btkgd', weight_BKGTS, value_BSKD).reshape(query_BTHD.shape).astype(query_BTHD.dtype)


def chunked(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments | None = None, *,
            causal: bool = False, window: int | None = None, bias_HTS: Array | None = None, dropout_rate: float = 0.0,
            key: Key | None = None) -> Array:
  """`reference` over one chunk of queries at a time (Rabe and Staats 2021), recomputed in the backward pass.

  A sequence of one chunk keeps its weights for the backward pass instead. A causal sequence of any length is split into
  `CAUSAL_PARTS` parts that skip the keys after their end. Dropout draws the same as in `reference` only for a sequence
  of one part.
  """
  length = query_BTHD.shape[1]
  query_BKGTD = jnp.moveaxis(_grouped(query_BTHD, key_BSKD.shape[2]), 1, 3)
  key_BKSD, value_BKSD = key_BSKD.swapaxes(1, 2), value_BSKD.swapaxes(1, 2)
  bias_KGTS = _grouped_bias(bias_HTS, key_BSKD.shape[2])
  step = length
  if causal:
    unit = CHUNK if length > CHUNK else 1
    step = max(MIN_PART, -(-length // (CAUSAL_PARTS * unit)) * unit)
  outputs = []
  for begin in range(0, length, step):
    end = min(begin + step, length)
    first, last = 0, key_BSKD.shape[1]
    if causal:
      first, last = max(0, begin - window + 1) if window else 0, end
    ids = None if segments is None else (segments[0][:, begin:end], segments[1][:, first:last])
    bias = None if bias_KGTS is None else bias_KGTS[:, :, begin:end, first:last]
    seed = None
    if dropout_rate and key is not None:
      seed = key if step >= length else jax.random.fold_in(key, begin)
    outputs.append(
      _chunks(query_BKGTD[:, :, :, begin:end], key_BKSD[:, :, first:last], value_BKSD[:, :, first:last], ids, bias,
              causal, window, begin - first, length > CHUNK, dropout_rate, seed))
  y_BKGTD = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=3)
  return jnp.moveaxis(y_BKGTD, 3, 1).reshape(query_BTHD.shape)


def _chunks(query_BKGTD: Array, key_BKSD: Array, value_BKSD: Array, segments: Segments | None, bias_KGTS: Array | None,
            causal: bool, window: int | None, start: Array | int, recompute: bool, dropout_rate: float = 0.0,
            key: Key | None = None) -> Array:
  """Attention of chunks of queries to the same keys; `start` is the first query's position among the keys."""
  length = query_BKGTD.shape[3]

  def one(query_BKGTD: Array, ids_BT: Array | None, bias_KGTS: Array | None, key: Key | None,
          start: Array | int) -> Array:
    ids = None if segments is None or ids_BT is None else (ids_BT, segments[1])
    visible = _visible(query_BKGTD.shape[3], key_BKSD.shape[2], start, causal, window, ids)
    kept_BKGTS = None
    if key is not None:
      kept_BKGTS = jax.random.bernoulli(key, 1.0 - dropout_rate, (*query_BKGTD.shape[:4], key_BKSD.shape[2]))
    return _softmax_products(query_BKGTD, key_BKSD, value_BKSD, visible, bias_KGTS, kept_BKGTS, dropout_rate)

  ids_BT = None if segments is None else segments[0]
  if not recompute:
    return one(query_BKGTD, ids_BT, bias_KGTS, key, start)
  count = -(-length // CHUNK)
  padding = (0, count * CHUNK - length)

  def split(x: Array | None, axis: int) -> Array | None:
    if x is None:
      return None
    padded = jnp.pad(x, [padding if index == axis else (0, 0) for index in range(x.ndim)])
    return jnp.moveaxis(padded.reshape(*x.shape[:axis], count, CHUNK, *x.shape[axis + 1:]), axis, 0)

  keys = None if key is None else jax.random.split(key, count)
  chunks = (split(query_BKGTD, 3), split(ids_BT, 1), split(bias_KGTS, 2), keys, start + CHUNK * jnp.arange(count))
  y_NBKGTD = jax.lax.map(lambda chunk: jax.checkpoint(one)(*chunk), chunks)
  y_BKGTD = jnp.moveaxis(y_NBKGTD, 0, 3)
  return y_BKGTD.reshape(*query_BKGTD.shape[:3], count * CHUNK, -1)[:, :, :, :length]


def _softmax_products(query_BKGTD: Array, key_BKSD: Array, value_BKSD: Array, visible: Array | None,
                      bias_KGTS: Array | None, kept_BKGTS: Array | None, dropout_rate: float) -> Array:
  """softmax(q k^T / sqrt(D) + bias) v where `visible`, with a gradient that is fast on CPUs too.

  On CPUs a product that reads its large T x S operand transposed takes twice as long as one that reads it in memory
  order. Autodiff computes the gradients of keys and values by such products. Here their transposes are computed
  instead, so that only the small operands are transposed.
  """
  return _products(query_BKGTD, key_BKSD, value_BKSD, visible, bias_KGTS, kept_BKGTS, dropout_rate)


def _forward(query_BKGTD: Array, key_BKSD: Array, value_BKSD: Array, visible: Array | None, bias_KGTS: Array | None,
             kept_BKGTS: Array | None, dropout_rate: float):
  scores_BKGTS = jnp.einsum('bkgtd,bksd->bkgts', query_BKGTD, key_BKSD, preferred_element_type=jnp.float32)
  scores_BKGTS *= query_BKGTD.shape[-1] ** -0.5
  if bias_KGTS is not None:
    scores_BKGTS += bias_KGTS
  if visible is not None:
    scores_BKGTS = jnp.where(visible, scores_BKGTS, _MASKED_SCORE)
  weight_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1)
  dropped_BKGTS = drop(weight_BKGTS, kept_BKGTS, dropout_rate).astype(value_BKSD.dtype)
  y_BKGTD = jnp.einsum('bkgts,bksd->bkgtd', dropped_BKGTS, value_BKSD).astype(query_BKGTD.dtype)
  return y_BKGTD, (query_BKGTD, key_BKSD, value_BKSD, weight_BKGTS, bias_KGTS, kept_BKGTS, y_BKGTD)


def _derivative(dropout_rate: float, saved, tangents) -> Array:
  query_BKGTD, key_BKSD, value_BKSD, weight_BKGTS, _, kept_BKGTS, _ = saved
  query_tangent, key_tangent, value_tangent, _, bias_tangent, _ = tangents
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores_BKGTS, y_BKGTD = jnp.zeros_like(weight_BKGTS), jnp.zeros(query_BKGTD.shape, jnp.float32)
  scale = query_BKGTD.shape[-1]**-0.5
  if query_tangent is not None:
    scores_BKGTS += scale * product('bkgtd,bksd->bkgts', query_tangent, key_BKSD)
  if key_tangent is not None:
    scores_BKGTS += scale * product('bkgtd,bksd->bkgts', query_BKGTD, key_tangent)
  if bias_tangent is not None:
    scores_BKGTS += bias_tangent
  if any(tangent is not None for tangent in (query_tangent, key_tangent, bias_tangent)):
    change_BKGTS = weight_BKGTS * (scores_BKGTS - jnp.sum(weight_BKGTS * scores_BKGTS, axis=-1, keepdims=True))
    y_BKGTD += product('bkgts,bksd->bkgtd',
                       drop(change_BKGTS, kept_BKGTS, dropout_rate).astype(value_BKSD.dtype), value_BKSD)
  if value_tangent is not None:
    y_BKGTD += product('bkgts,bksd->bkgtd',
                       drop(weight_BKGTS, kept_BKGTS, dropout_rate).astype(value_BKSD.dtype), value_tangent)
  return y_BKGTD.astype(query_BKGTD.dtype)


def _backward(dropout_rate: float, saved, gradient_BKGTD: Array):
  query_BKGTD, key_BKSD, value_BKSD, weight_BKGTS, bias_KGTS, kept_BKGTS, y_BKGTD = saved
  slope_BKGTS = cpu.isolated(
    jnp.einsum('bkgtd,bksd->bkgts', gradient_BKGTD, value_BKSD, preferred_element_type=jnp.float32))
  slope_BKGTS = drop(slope_BKGTS, kept_BKGTS, dropout_rate)
  # The weighted mean of the score gradients equals sum_d y_d dy_d (Dao et al. 2022, appendix B.2): a sum over channels
  # is cheaper than one over keys.
  mean_BKGT1 = jnp.sum(gradient_BKGTD.astype(jnp.float32) * y_BKGTD.astype(jnp.float32), axis=-1, keepdims=True)
  slope_BKGTS = weight_BKGTS * (slope_BKGTS - mean_BKGT1)
  bias_slope_KGTS = None if bias_KGTS is None else jnp.sum(slope_BKGTS, axis=0).astype(bias_KGTS.dtype)
  slope_BKGTS = (slope_BKGTS * query_BKGTD.shape[-1] ** -0.5).astype(query_BKGTD.dtype)  # gradient of q k^T
  query_slope_BKGTD = jnp.einsum('bkgts,bksd->bkgtd', slope_BKGTS, key_BKSD)
  key_slope_BKDS = jnp.einsum('bkgtd,bkgts->bkds', query_BKGTD, slope_BKGTS)
  dropped_BKGTS = drop(weight_BKGTS, kept_BKGTS, dropout_rate).astype(gradient_BKGTD.dtype)
  value_slope_BKDS = jnp.einsum('bkgtd,bkgts->bkds', gradient_BKGTD, dropped_BKGTS)
  key_slope_BKDS, value_slope_BKDS = cpu.isolated((key_slope_BKDS, value_slope_BKDS))
  key_slope_BKSD = key_slope_BKDS.swapaxes(2, 3)
  value_slope_BKSD = value_slope_BKDS.swapaxes(2, 3).astype(value_BKSD.dtype)
  return query_slope_BKGTD, key_slope_BKSD, value_slope_BKSD, None, bias_slope_KGTS, None


_products = derivatives.define(lambda *arguments: _forward(*arguments)[0], _forward, _derivative, _backward, static=1)


def _grouped(query_BTHD: Array, kv_heads: int) -> Array:
  """B T H D -> B T K G D."""
  return query_BTHD.reshape(*query_BTHD.shape[:2], kv_heads, -1, query_BTHD.shape[3])


def _grouped_bias(bias_HTS: Array | None, kv_heads: int) -> Array | None:
  """H T S -> K G T S."""
  return None if bias_HTS is None else bias_HTS.reshape(kv_heads, -1, *bias_HTS.shape[1:])


def _visible(queries: int, keys: int, start: Array | int, causal: bool, window: int | None,
             segments: Segments | None) -> Array | None:
  """The mask of visible keys, broadcastable to B K G T S; None means that all are visible."""
  visible = None
  if causal:
    back_TS = start + jnp.arange(queries)[:, None] - jnp.arange(keys)
    visible = back_TS >= 0 if window is None else (back_TS >= 0) & (back_TS < window)
  if segments is not None:
    same = (segments[0][:, :, None] == segments[1][:, None, :])[:, None, None]
    visible = same if visible is None else visible & same
  return visible


def check_window(causal: bool, window: int | None) -> None:
  """Raises a ValueError for a window without `causal` or a window below 1."""
  if window is not None and (not causal or window < 1):
    raise ValueError(f'a window must be at least 1 and needs causal=True, got window={window}, causal={causal}')


def _check(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, causal: bool, window: int | None,
           bias_HTS: Array | None, implementation: str) -> None:
  shapes = query_BTHD.shape, key_BSKD.shape, value_BSKD.shape
  same = [query_BTHD.shape[axis] == key_BSKD.shape[axis] for axis in (0, 3)]
  if key_BSKD.shape != value_BSKD.shape or not all(same):
    raise ValueError(f'attention takes queries B T H D and keys and values B S K D, got shapes {shapes}')
  if query_BTHD.shape[2] % key_BSKD.shape[2]:
    raise ValueError(f'query heads must be a multiple of key/value heads, got shapes {shapes}')
  if causal and query_BTHD.shape[1] != key_BSKD.shape[1]:
    raise ValueError(f'causal attention needs as many queries as keys, got shapes {shapes}')
  check_window(causal, window)
  if bias_HTS is not None and bias_HTS.shape != (query_BTHD.shape[2], query_BTHD.shape[1], key_BSKD.shape[1]):
    raise ValueError(f'a bias has shape H T S, got {bias_HTS.shape} with queries and keys of shapes {shapes[:2]}')
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}')


_BY_NAME: dict[str, Callable[..., Array]] = {
  'reference': reference, 'chunked': chunked, 'splash': splash_attention, 'cudnn': cudnn
}
