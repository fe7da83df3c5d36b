"""Cross-entropy of tokens, computed from hidden states and the matrix of the output layer.

The logits of B x T tokens over a large vocabulary are often the largest array of a train step. `token_losses` computes
small logits at once. It computes large ones in chunks of tokens, and again for the gradient, so that only one chunk is
in memory at a time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from genjax import reduction, sharding
from genjax.nn.linear import project
from genjax.types import Array

MAX_LOGITS = 2 ** 26  # logits in memory at a time on one device: 256 MiB in float32


def token_losses(hidden_BTD: Array, weight_VD: Any, target_BT: Array, chunks: int = 0) -> tuple[Array, Array]:
  """The cross-entropy of each target token. Logits and losses are float32; products have the dtype of `hidden_BTD`.

  Args:
    hidden_BTD: the input of the output layer.
    weight_VD: the output layer; logits are hidden weight^T.
    target_BT: the tokens to predict, int32.
    chunks: number of chunks of tokens. 0 takes the smallest number that keeps the logits of a device below
      `MAX_LOGITS`. One chunk is the plain formula without recomputation. Several chunks only support first-order
      gradients in reverse mode.

  Returns:
    (loss_BT, hit_BT): negative log-likelihoods in nats, and 1 where no token is more likely than the target. Hits have
    no gradient.
  """
  length = target_BT.shape[1]
  chunks = chunks or chunk_count(target_BT.shape[0], length, weight_VD.shape[0])
  if chunks == 1:
    logits_BTV = sharding.constrain(_logits(hidden_BTD, weight_VD), 'batch', 'sequence', 'vocab', name='logits B T V')
    return _losses(logits_BTV, target_BT)[:2]
  padding = -length % chunks
  if padding:
    hidden_BTD, target_BT = (
      jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2)) for x in (hidden_BTD, target_BT))
  weight_VD = reduction.in_terms(weight_VD)
  weight_VD, terms_NVD = (weight_VD.value, weight_VD.terms) if reduction.is_unreduced(weight_VD) else (weight_VD, None)
  # If split over fsdp, gather once instead of once per chunk.
  weight_VD = sharding.constrain(weight_VD, 'vocab', None, name='weights of the output layer')
  losses: Any = _chunked(hidden_BTD, weight_VD, terms_NVD, target_BT, chunks)
  loss_BT, hit_BT = losses
  return loss_BT[:, :length], hit_BT[:, :length]


def chunk_count(rows: int, length: int, vocab: int) -> int:
  """The smallest number of chunks with logits below `MAX_LOGITS` per device, or a nearby divisor of the length."""
  shards = min(rows, sharding.shards('batch')) * sharding.shards('sequence') * sharding.shards('vocab')
  least = min(length, max(1, -(-rows * length * vocab // (MAX_LOGITS * shards))))
  return next((count for count in range(least, 2 * least) if length % count == 0), least)


def _logits(hidden_BTD: Array, weight_VD: Array) -> Array:
  return project(hidden_BTD, weight_VD, jnp.float32)


def _losses(logits_BTV: Array, target_BT: Array) -> tuple[Array, Array, Array]:
  """Losses, hits, and the log of the softmax denominator.

  The hits reuse the maximum of the softmax: on CPUs an argmax over 8,192 logits would take a fifth of the time of the
  whole output layer.
  """
  most_BT1 = jax.lax.stop_gradient(jnp.max(logits_BTV, axis=-1, keepdims=True))
  total_BT = jnp.log(jnp.sum(jnp.exp(logits_BTV - most_BT1), axis=-1)) + most_BT1[..., 0]
  target_logit_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], axis=-1)[..., 0]
  hit_BT = (jax.lax.stop_gradient(target_logit_BT) >= most_BT1[..., 0]).astype(jnp.float32)
  return total_BT - target_logit_BT, hit_BT, total_BT


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked(hidden_BTD: Array, weight_VD: Array, terms_NVD: Array | None, target_BT: Array,
             chunks: int) -> tuple[Array, Array]:
  """Losses and hits; terms_NVD are `genjax.reduction.Unreduced.terms` for N parts of the batch, or None."""
  return _forward(hidden_BTD, weight_VD, terms_NVD, target_BT, chunks)[0]


def _forward(hidden_BTD: Array, weight_VD: Array, terms_NVD: Array | None, target_BT: Array, chunks: int):
  compute_VD = weight_VD.astype(hidden_BTD.dtype)

  def one(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    return _losses(_logits(chunk[0], compute_VD), chunk[1])

  parts = jax.lax.map(one, (_split(hidden_BTD, chunks), _split(target_BT, chunks)))
  loss_BT, hit_BT, total_BT = (_join(part) for part in parts)
  return (loss_BT, hit_BT), (hidden_BTD, weight_VD, terms_NVD, target_BT, total_BT)


def _backward(chunks: int, saved, gradients: tuple[Array, Array]):
  hidden_BTD, weight_VD, terms_NVD, target_BT, total_BT = saved
  compute_VD = weight_VD.astype(hidden_BTD.dtype)
  data = reduction.data_parts(len(hidden_BTD))

  def one(weight_slope_NDV: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
    hidden_BTD, target_BT, total_BT, slope_BT = chunk
    probability_BTV = jnp.exp(_logits(hidden_BTD, compute_VD) - total_BT[..., None])
    is_target_BTV = jax.lax.broadcasted_iota(jnp.int32, probability_BTV.shape, 2) == target_BT[..., None]
    slope_BTV = ((probability_BTV - is_target_BTV) * slope_BT[..., None]).astype(compute_VD.dtype)
    # Transposes the small operand, not the large one, see `genjax.nn.cpu`.
    added_NDV = jnp.einsum('nbtd,nbtv->ndv', *(reduction.by_parts(x, data) for x in (hidden_BTD, slope_BTV)),
                           preferred_element_type=reduction.sum_type(compute_VD.dtype))
    return weight_slope_NDV + added_NDV, jnp.einsum('btv,vd->btd', slope_BTV, compute_VD)

  zeros = reduction.place_terms(jnp.zeros((data, *weight_VD.shape[::-1]), jnp.float32), None, 'vocab')
  columns = tuple(_split(x, chunks) for x in (hidden_BTD, target_BT, total_BT, gradients[0]))
  weight_slope_NDV, hidden_slope_NBTD = jax.lax.scan(one, zeros, columns)
  hidden_slope_BTD = _join(hidden_slope_NBTD)
  if terms_NVD is not None and data == len(terms_NVD):
    return hidden_slope_BTD, jnp.zeros_like(weight_VD), weight_slope_NDV.swapaxes(1, 2), None
  weight_slope_VD = jnp.sum(weight_slope_NDV, axis=0).T
  if terms_NVD is not None:
    return hidden_slope_BTD, jnp.zeros_like(weight_VD), reduction.spread(weight_slope_VD, len(terms_NVD)), None
  return hidden_slope_BTD, weight_slope_VD.astype(weight_VD.dtype), None, None


_chunked.defvjp(_forward, _backward)


def _split(x_BT: Array, chunks: int) -> Array:
  """B T ... -> N B T/N ...; chunk n has the tokens n, n + N, ..., so a T split over devices stays balanced."""
  return jnp.moveaxis(x_BT.reshape(x_BT.shape[0], -1, chunks, *x_BT.shape[2:]), 2, 0)


def _join(x_NBT: Array) -> Array:
  return jnp.moveaxis(x_NBT, 0, 2).reshape(x_NBT.shape[1], -1, *x_NBT.shape[3:])
