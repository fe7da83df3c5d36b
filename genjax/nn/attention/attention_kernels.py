"""Fused attention kernels for TPUs and GPUs, and checks of the arguments that they support.

On a mesh each device runs the kernel on its own rows and heads, because XLA cannot partition a kernel. Suffixes as in
`genjax.nn.attention.dot_product_attention`.
"""

from collections.abc import Callable
import functools
import logging
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from genjax import sharding
from genjax.nn import derivatives
from genjax.types import Array

LANES = 128  # lanes of a TPU register; block sizes and padded head sizes are multiples
PLATFORMS = {'splash': 'tpu', 'cudnn': 'gpu'}
CUDNN_MIN_CAPABILITY = 8, 0  # compute capability, Ampere
# Largest head size in general, and on devices of major compute capability HOPPER
CUDNN_CHANNELS, CUDNN_CHANNELS_HOPPER, HOPPER = 128, 256, 9

Segments = tuple[Array, Array]


def splash_attention(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments | None = None, *,
                     causal: bool = False, window: int | None = None, interpret: bool = False) -> Array:
  """jax's block-sparse flash attention kernel for TPUs. Supports reverse mode only.

  `interpret` runs it on any backend, slowly.
  """

  def local(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, ids: tuple[Array, ...]) -> Array:
    return _splash(query_BTHD, key_BSKD, value_BSKD, (ids[0], ids[1]) if ids else None, causal, window, interpret)

  return _on_devices('splash', local, query_BTHD, key_BSKD, value_BSKD, segments or ())


def cudnn(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: None = None, *, causal: bool = False,
          window: int | None = None, visible_BS: Array | None = None) -> Array:
  """NVIDIA's fused kernel, through `jax.nn.dot_product_attention`. Supports reverse mode only.

  The kernel masks keys by the length of each row. With `visible_BS`, visible keys and values are therefore moved to the
  front; non-causal attention does not depend on the order of keys.
  """
  del segments
  run = functools.partial(jax.nn.dot_product_attention, is_causal=causal, local_window_size=None if window is None else
                          (window - 1, 0), implementation='cudnn')

  def local(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, visible: tuple[Array, ...]) -> Array:
    if not visible:
      return run(query_BTHD, key_BSKD, value_BSKD)
    seen_BS = visible[0] != 0
    # A row without visible keys sees one hidden key, so that its output is finite.
    length_B = jnp.maximum(jnp.sum(seen_BS, axis=1, dtype=jnp.int32), 1)
    order_BS = jnp.argsort(~seen_BS, axis=1, stable=True)
    inverse_BS = jnp.argsort(order_BS, axis=1)
    here_BS11 = (jnp.arange(seen_BS.shape[1]) < length_B[:, None])[:, :, None, None]
    # Zero the padding, and so its gradient, whatever the kernel writes there.
    key_BSKD, value_BSKD = (jnp.where(here_BS11, permute(x, order_BS, inverse_BS), 0) for x in (key_BSKD, value_BSKD))
    return run(query_BTHD, key_BSKD, value_BSKD, key_value_seq_lengths=length_B)

  return _on_devices('cudnn', local, query_BTHD, key_BSKD, value_BSKD, () if visible_BS is None else (visible_BS,))


def refusal(implementation: str, query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments | None,
            causal: bool, options: dict[str, Any]) -> str:
  """Returns why a kernel does not support the arguments of `attend` (further ones in `options`), or ''."""
  platform = PLATFORMS.get(implementation)
  if platform is None:
    return ''
  if 'dropout_rate' in options:
    return f'drops no weights, got dropout_rate={options["dropout_rate"]}'
  if sharding.platform() != platform:
    return f'runs on {platform}, and this is {sharding.platform()}'
  if 'bias_HTS' in options:
    return 'takes no bias'
  if implementation == 'splash':
    lengths = query_BTHD.shape[1], key_BSKD.shape[1]
    return f'needs lengths that are multiples of {LANES}, got {lengths}' if any(
      length % LANES for length in lengths) else ''
  if segments is not None:
    return 'takes no segments'
  if causal and 'visible_BS' in options:
    return 'takes no mask of keys beside a causal one'
  types = tuple(str(x.dtype) for x in (query_BTHD, key_BSKD, value_BSKD))
  if any(dtype not in ('float16', 'bfloat16') for dtype in types):
    return f'computes in float16 or bfloat16, got {types}'
  return _cudnn_device_refusal(query_BTHD.shape[3])


def _cudnn_device_refusal(channels: int) -> str:
  """Returns why cuDNN's kernel does not support heads of this size on the target devices, or ''."""
  capability, limit = sharding.compute_capability(), CUDNN_CHANNELS
  if capability:
    numbers = re.fullmatch(r'(\d+)\.(\d+)', capability)
    if numbers is None:
      return f'runs on NVIDIA GPUs, and this is {capability}'
    major, minor = int(numbers[1]), int(numbers[2])
    if (major, minor) < CUDNN_MIN_CAPABILITY:
      return f'needs a GPU of compute capability 8.0 or more, got {capability}'
    limit = CUDNN_CHANNELS_HOPPER if major == HOPPER else limit
  if channels % 8 == 0 and channels <= limit:
    return ''
  return f'needs a head size that is a multiple of 8 up to {limit}, got {channels}'


@functools.cache
def say_once(message: str) -> None:
  """Logs a warning the first time it is given."""
  logging.getLogger('genjax').warning(message)


def permute(x_BSKD: Array, order_BS: Array, inverse_BS: Array) -> Array:
  """Reorders keys per row. The gradient is a gather by the inverse order, where autodiff would scatter."""
  return _permute(x_BSKD, order_BS, inverse_BS)


def _gather(x_BSKD: Array, order_BS: Array, *_: Array) -> Array:
  return jnp.take_along_axis(x_BSKD, order_BS[:, :, None, None], axis=1)


_permute = derivatives.define(_gather, lambda x, order, inverse: (_gather(x, order), (order, inverse)),
                              lambda saved, tangents: _gather(tangents[0], saved[0]),
                              lambda saved, gradient: (_gather(gradient, saved[1]), None, None))


def _on_devices(name: str, local: Callable[..., Array], query_BTHD: Array, key_BSKD: Array, value_BSKD: Array,
                ids: tuple[Array, ...]) -> Array:
  """Runs local(query, key, value, ids), on a mesh on each device for its rows and heads; `ids` have rows first."""
  message = (f'forward-mode derivatives (jax.jvp) do not go through the attention kernel {name!r}: set the attention '
             "of the model to 'chunked' or 'reference'")
  query_BTHD, key_BSKD, value_BSKD = (
    derivatives.reverse_only(x, message) for x in (query_BTHD, key_BSKD, value_BSKD))
  placement = sharding.active()
  if placement is None:
    return local(query_BTHD, key_BSKD, value_BSKD, ids)
  rows = placement.mesh_axes('batch') if query_BTHD.shape[0] % placement.shards('batch') == 0 else ()
  heads, parts, kv_heads = placement.mesh_axes('heads'), placement.shards('heads'), key_BSKD.shape[2]
  if query_BTHD.shape[2] % parts:
    heads = ()
  elif kv_heads % parts:  # fewer key heads than devices: each device gets the copies that its queries read
    copies = parts // math.gcd(parts, kv_heads)
    say_once(
      f'attention kernel {name!r}: the {kv_heads} heads of keys and values are repeated {copies} times, so that each '
      f'of {parts} devices has those that its queries read')
    key_BSKD, value_BSKD = (jnp.repeat(x, copies, axis=2) for x in (key_BSKD, value_BSKD))
  array, row = PartitionSpec(rows or None, None, heads or None, None), PartitionSpec(rows or None, None)
  mapped = jax.shard_map(local, mesh=placement.mesh, in_specs=(array, array, array, (row,) * len(ids)), out_specs=array,
                         check_vma=False)
  return mapped(query_BTHD, key_BSKD, value_BSKD, ids)


def _splash(query_BTHD: Array, key_BSKD: Array, value_BSKD: Array, segments: Segments | None, causal: bool,
            window: int | None, interpret: bool) -> Array:
  """The kernel on one device."""
  # Here, since they take half a second to import, and only TPUs have them.
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_masks
  (_, length, heads, channels), keys = query_BTHD.shape, key_BSKD.shape[1]
  shape = (length, keys)
  if window:
    mask = splash_masks.LocalMask(shape, (window - 1, 0), 0)
  else:
    mask = splash_masks.CausalMask(shape) if causal else splash_masks.FullMask(shape)
  block_q, block_k = _block(length), _block(keys)
  sizes = splash.BlockSizes(block_q=block_q, block_kv=block_k, block_kv_compute=block_k, block_q_dkv=block_q,
                            block_kv_dkv=block_k, block_kv_dkv_compute=block_k, block_q_dq=block_q, block_kv_dq=block_k)
  with jax.ensure_compile_time_eval():  # the tables of the mask become constants
    kernel = splash.make_splash_mha(splash_masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1,
                                    q_seq_shards=1, interpret=interpret)
  padding = [(0, 0)] * 3 + [(0, -channels % LANES)]  # channels of zeros change neither scores nor values

  def heads_first(x_BTHD: Array) -> Array:
    return jnp.pad(x_BTHD, padding).swapaxes(1, 2)

  query_BHTD = heads_first(query_BTHD * channels ** -0.5).astype(query_BTHD.dtype)
  ids = None if segments is None else splash.SegmentIds(*segments)
  rows: Any = jax.vmap(kernel)  # jax's type annotation includes residuals that are only returned on request
  y_BHTD = rows(query_BHTD, heads_first(key_BSKD), heads_first(value_BSKD), segment_ids=ids)
  return y_BHTD[..., :channels].swapaxes(1, 2).astype(query_BTHD.dtype)


def _block(length: int) -> int:
  """The largest block size up to 512 that divides a sequence."""
  return next(size for size in (512, 384, 256, LANES) if length % size == 0)
