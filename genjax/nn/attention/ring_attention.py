"""Ring attention (Liu et al. 2023): sequences are split over devices, which pass keys and values around a ring.

Each device keeps its part of the queries and reads one part of the keys and values at a time. It updates the softmax
for each part (online softmax, Milakov and Gimelshein 2018), in float32. No device ever holds a whole sequence: the
backward pass goes around the ring a second time and recomputes the scores. Suffixes: B batch, T queries, S keys, H
query heads, K key/value heads, G = H / K queries that share a key, D channels of a head, N chunks of C queries.

With a causal mask every device still computes all parts, and half of the scores are masked. Skipping them would save no
time, because every turn of the ring waits for the device with the last queries, which needs all keys.
"""

from collections.abc import Callable
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from genjax import sharding
from genjax.nn import derivatives
from genjax.nn.attention.dot_product_attention import check_window
from genjax.types import Array

CHUNK = 512  # number of queries whose scores with one part of the keys are in memory at a time
_MASKED_SCORE = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite, so that a row without visible keys gives no NaN

Segments = tuple[Array, Array] | tuple[()]


@dataclasses.dataclass(frozen=True)
class _Ring:
  """The static arguments of a call: the mesh, its axes for sequence, batch and heads, and the mask."""

  mesh: sharding.AnyMesh
  axis: tuple[str, ...]
  size: int
  batch: tuple[str, ...]
  heads: tuple[str, ...]
  causal: bool
  window: int | None

  @property
  def array(self) -> PartitionSpec:
    return PartitionSpec(self.batch or None, self.axis, self.heads or None, None)

  def specs(self, segments: Segments):
    """Layouts of queries, keys, values and segments."""
    ids = PartitionSpec(self.batch or None, self.axis)
    return (self.array,) * 3 + (tuple(ids for _ in segments),)

  @property
  def statistics(self) -> PartitionSpec:
    """Layout of the log of the softmax denominator, B K G T."""
    return PartitionSpec(self.batch or None, self.heads or None, None, self.axis)

  def turn(self, tree):
    """Sends the arrays of every device to the next device."""
    return jax.lax.ppermute(tree, self.axis, [(place, (place + 1) % self.size) for place in range(self.size)])


def ring_attend(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, *, causal: bool = False,
                window: int | None = None, segments: tuple[Array, Array] | None = None) -> Array:
  """Attention of T queries to S keys, both split over the mesh axes of the logical axis 'sequence'.

  Must be traced under a mesh (`genjax.sharding.under`) that splits 'sequence' into more than one part.

  Args:
    query_BTHD: queries; head h reads key/value head h // (H / K).
    key_BSKD, value_BSKD: keys and values. If the mesh splits heads into parts that do not divide K, heads are repeated
      so that each device has its own.
    causal: query t sees keys s <= t; T and S must be equal.
    window: query t sees keys s > t - window only; only with `causal`.
    segments: integer ids (B T, B S); a query sees only keys with its own id. The output of a query without keys is 0.

  Returns:
    y_BTHD in the type of the queries.

  Raises:
    UserError: T, S or H is not divisible by the mesh axes that split it.
    ValueError: a window comes without `causal`, T and S differ with `causal`, or no mesh splits sequences.
  """
  placement = sharding.active()
  if placement is None or placement.shards('sequence') == 1:
    raise ValueError('ring attention needs a mesh that splits sequences; trace it under one with context > 1')
  if causal and query_BTHD.shape[1] != key_BSKD.shape[1]:
    raise ValueError(f'causal attention needs as many queries as keys, got {query_BTHD.shape} and {key_BSKD.shape}')
  check_window(causal, window)
  axes = ('batch', 'sequence', 'heads', None)
  query_BTHD = sharding.constrain(query_BTHD, *axes, name='queries B T H D of attention')
  repeats = math.lcm(key_BSKD.shape[2], placement.shards('heads')) // key_BSKD.shape[2]
  key_BSKD, value_BSKD = (sharding.constrain(
    jnp.repeat(x, repeats, axis=2) if repeats > 1 else x, *axes, name='keys and values B S K D of attention')
                          for x in (key_BSKD, value_BSKD))
  batch = () if query_BTHD.shape[0] % placement.shards('batch') else placement.mesh_axes('batch')
  ring = _Ring(placement.mesh, placement.mesh_axes('sequence'), placement.shards('sequence'), batch,
               placement.mesh_axes('heads'), causal, window)
  return _attend(query_BTHD, key_BSKD, value_BSKD, segments or (), ring)


def _attend_value(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments, ring: _Ring) -> Array:
  return _attend_forward(query_BTHD, key_BSKD, value_BSKD, segments, ring)[0]


def _attend_forward(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments, ring: _Ring):
  y_BTHD, total_BKGT = jax.shard_map(functools.partial(_forward, ring), mesh=ring.mesh, in_specs=ring.specs(segments),
                                     out_specs=(ring.array, ring.statistics), check_vma=False)(
                                       query_BTHD, key_BSKD, value_BSKD, segments)
  return y_BTHD, (query_BTHD, key_BSKD, value_BSKD, segments, y_BTHD, total_BKGT)


def _attend_derivative(ring: _Ring, saved, tangents) -> Array:
  function = lambda query_BTHD, key_BSKD, value_BSKD: _attend_value(query_BTHD, key_BSKD, value_BSKD, saved[3], ring)
  return derivatives.along(function, saved[:3], tangents[:3])


def _attend_backward(ring: _Ring, saved, gradient_BTHD: Array):
  query_BTHD, key_BSKD, value_BSKD, segments, y_BTHD, total_BKGT = saved
  gradients = jax.shard_map(functools.partial(_backward, ring), mesh=ring.mesh,
                            in_specs=(*ring.specs(segments), ring.array, ring.statistics, ring.array),
                            out_specs=(ring.array,) * 3, check_vma=False)(
                              query_BTHD, key_BSKD, value_BSKD, segments, y_BTHD, total_BKGT, gradient_BTHD)
  return *gradients, None


_attend = derivatives.define(_attend_value, _attend_forward, _attend_derivative, _attend_backward, static=1)


def _forward(ring: _Ring, query_BTHD: Array, key_BSKD: Array, value_BSKD: Array,
             segments: Segments) -> tuple[Array, Array]:
  """On one device: the output for its queries, and the log of the softmax denominators B K G T."""
  kv_heads = key_BSKD.shape[2]
  query_NBKGCD = _chunks(query_BTHD, kv_heads)
  shape = query_NBKGCD.shape

  def visit(sums, part, step):
    """Merges one part of the keys into the running maximum, denominator and numerator of every query."""
    key_BSKD, value_BSKD, ids_BS = part

    def merge(chunk):
      number, query_BKGCD, ids_BC, top_BKGC, total_BKGC, sum_BKGCD = chunk
      score_BKGCS, visible = _scores(ring, query_BKGCD, key_BSKD, number, step, ids_BC, ids_BS)
      new_BKGC = jnp.maximum(top_BKGC, jnp.max(score_BKGCS, axis=-1))
      weight_BKGCS = _hide(jnp.exp(score_BKGCS - new_BKGC[..., None]), visible)
      decay_BKGC = jnp.exp(top_BKGC - new_BKGC)
      value_BKGCD = jnp.einsum('bkgcs,bskd->bkgcd', weight_BKGCS.astype(value_BSKD.dtype), value_BSKD,
                               preferred_element_type=jnp.float32)
      return (new_BKGC, total_BKGC * decay_BKGC + jnp.sum(weight_BKGCS, axis=-1),
              sum_BKGCD * decay_BKGC[..., None] + value_BKGCD)

    return _over_chunks(merge, (jnp.arange(shape[0]), query_NBKGCD, _chunk_ids(segments, shape[0]), *sums))

  sums = (jnp.full(shape[:-1], _MASKED_SCORE), jnp.zeros(shape[:-1]), jnp.zeros(shape, jnp.float32))
  part = (key_BSKD, value_BSKD, segments[1] if segments else ())
  sums = visit(sums, part, 0)

  def body(carry, step):
    sums, part = carry
    part = ring.turn(part)
    return (visit(sums, part, step), part), None

  ((top, total, sum_NBKGCD), _), _ = jax.lax.scan(body, (sums, part), jnp.arange(1, ring.size))
  safe = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
  return _join(sum_NBKGCD / safe[..., None]).astype(query_BTHD.dtype), _join_statistics(top + jnp.log(safe))


def _backward(ring: _Ring, query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments, y_BTHD: Array,
              total_BKGT: Array, gradient_BTHD: Array) -> tuple[Array, Array, Array]:
  """On one device: gradients of its queries, keys and values.

  Gradients of keys and values travel around the ring with them and end on their own device.
  """
  kv_heads, scale = key_BSKD.shape[2], query_BTHD.shape[3] ** -0.5
  query_NBKGCD, gradient_NBKGCD = _chunks(query_BTHD, kv_heads), _chunks(gradient_BTHD, kv_heads)
  count = query_NBKGCD.shape[0]
  total_NBKGC = _chunk_statistics(total_BKGT, count)
  # sum_s p_s dp_s for each query (Dao et al. 2022, appendix B.2)
  inner_NBKGC = jnp.sum(gradient_NBKGCD.astype(jnp.float32) * _chunks(y_BTHD, kv_heads).astype(jnp.float32), axis=-1)

  def visit(query_gradient, part, step):
    key_BSKD, value_BSKD, ids_BS, key_gradient, value_gradient = part

    def one(carry, chunk):
      key_gradient, value_gradient = carry
      number, query_BKGCD, ids_BC, gradient_BKGCD, total_BKGC, inner_BKGC, query_gradient = chunk
      score_BKGCS, visible = _scores(ring, query_BKGCD, key_BSKD, number, step, ids_BC, ids_BS)
      weight_BKGCS = _hide(jnp.exp(score_BKGCS - total_BKGC[..., None]), visible)
      product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
      value_gradient += product('bkgcs,bkgcd->bskd', weight_BKGCS.astype(gradient_BKGCD.dtype), gradient_BKGCD)
      pull_BKGCS = product('bkgcd,bskd->bkgcs', gradient_BKGCD, value_BSKD)
      slope_BKGCS = (weight_BKGCS * (pull_BKGCS - inner_BKGC[..., None]) * scale).astype(key_BSKD.dtype)
      key_gradient += product('bkgcs,bkgcd->bskd', slope_BKGCS, query_BKGCD)
      return (key_gradient, value_gradient), query_gradient + product('bkgcs,bskd->bkgcd', slope_BKGCS, key_BSKD)

    chunks = (jnp.arange(count), query_NBKGCD, _chunk_ids(segments, count), gradient_NBKGCD, total_NBKGC, inner_NBKGC,
              query_gradient)
    (key_gradient, value_gradient), query_gradient = jax.lax.scan(one, (key_gradient, value_gradient), chunks)
    return query_gradient, (key_BSKD, value_BSKD, ids_BS, key_gradient, value_gradient)

  zeros = jnp.zeros(key_BSKD.shape, jnp.float32)
  part = (key_BSKD, value_BSKD, segments[1] if segments else (), zeros, zeros)
  query_gradient, part = visit(jnp.zeros(query_NBKGCD.shape, jnp.float32), part, 0)

  def body(carry, step):
    query_gradient, part = carry
    return visit(query_gradient, ring.turn(part), step), None

  (query_gradient, part), _ = jax.lax.scan(body, (query_gradient, part), jnp.arange(1, ring.size))
  key_gradient, value_gradient = ring.turn(part[3:])
  return (_join(query_gradient).astype(query_BTHD.dtype), key_gradient.astype(key_BSKD.dtype),
          value_gradient.astype(value_BSKD.dtype))


def _scores(ring: _Ring, query_BKGCD: Array, key_BSKD: Array, number: Array, step: Array | int, ids_BC, ids_BS):
  """Float32 scores B K G C S of chunk `number` of the queries with the keys of turn `step`, and their mask or None."""
  score_BKGCS = jnp.einsum('bkgcd,bskd->bkgcs', query_BKGCD, key_BSKD, preferred_element_type=jnp.float32)
  score_BKGCS *= query_BKGCD.shape[-1] ** -0.5
  visible = None
  if ring.causal:
    # Positions are relative to this device's first query. The keys of turn i come from the i-th previous device.
    chunk, keys = query_BKGCD.shape[3], key_BSKD.shape[1]
    place = jax.lax.axis_index(ring.axis)
    source = (place - step) % ring.size
    back_CS = (place - source) * keys + number * chunk + jnp.arange(chunk)[:, None] - jnp.arange(keys)
    visible = back_CS >= 0 if ring.window is None else (back_CS >= 0) & (back_CS < ring.window)
  if not isinstance(ids_BC, tuple):
    same = (ids_BC[:, :, None] == ids_BS[:, None, :])[:, None, None]
    visible = same if visible is None else visible & same
  return (score_BKGCS if visible is None else jnp.where(visible, score_BKGCS, _MASKED_SCORE)), visible


def _hide(weight_BKGCS: Array, visible: Array | None) -> Array:
  return weight_BKGCS if visible is None else jnp.where(visible, weight_BKGCS, 0.0)


def _over_chunks(function: Callable, chunks):
  """`jax.lax.map`, without a loop if there is only one chunk."""
  if chunks[0].shape[0] == 1:
    return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], chunks)))
  return jax.lax.map(function, chunks)


def _count(length: int) -> int:
  """The smallest number of equal chunks of at most `CHUNK` queries; 1 if these would be tiny."""
  sizes = [size for size in range(CHUNK // 4, CHUNK + 1) if length % size == 0]
  return length // max(sizes) if length > CHUNK and sizes else 1


def _chunks(x_BTHD: Array, kv_heads: int) -> Array:
  """B T H D -> N B K G C D."""
  batch, length, heads, channels = x_BTHD.shape
  x = x_BTHD.reshape(batch, _count(length), -1, kv_heads, heads // kv_heads, channels)
  return x.transpose(1, 0, 3, 4, 2, 5)


def _join(x_NBKGCD: Array) -> Array:
  """The inverse of `_chunks`."""
  count, batch, kv_heads, groups, chunk, channels = x_NBKGCD.shape
  return x_NBKGCD.transpose(1, 0, 4, 2, 3, 5).reshape(batch, count * chunk, kv_heads * groups, channels)


def _chunk_statistics(x_BKGT: Array, count: int) -> Array:
  return jnp.moveaxis(x_BKGT.reshape(*x_BKGT.shape[:3], count, -1), 3, 0)


def _join_statistics(x_NBKGC: Array) -> Array:
  x_BKGNC = jnp.moveaxis(x_NBKGC, 0, 3)
  return x_BKGNC.reshape(*x_BKGNC.shape[:3], -1)


def _chunk_ids(segments: Segments, count: int):
  """Segment ids of the queries as N B C; () without segments."""
  if not segments:
    return ()
  return jnp.moveaxis(segments[0].reshape(segments[0].shape[0], count, -1), 1, 0)
