"""Cross-attention to an encoder's output. Its keys and values are computed once for all decoding steps."""

import math

import jax.numpy as jnp

from genjax.nn.attention.dot_product_attention import attend, attend_cached
from genjax.nn.attention.self_attention import Attention
from genjax.types import Array, Key

Memory = tuple[Array, Array]


class CrossAttention(Attention):
  """Multi-head attention of T tokens to S encoder outputs (Vaswani et al. 2017, section 3.2.3), the memory.

  Arguments as for `Attention`.
  """

  def project(self, memory_BSD: Array) -> Memory:
    """Keys and values of the memory, each B K S D; on a mesh each device has all positions of its heads."""
    key_BKSD, value_BKSD = (self._place(
      projection(memory_BSD).reshape(*memory_BSD.shape[:2], -1, self.head_dim), 'keys and values B S K D', None,
      grouped=True).swapaxes(1, 2) for projection in (self.key, self.value))
    return key_BKSD, value_BKSD

  def __call__(
      self,
      x_BTD: Array,
      memory: Memory,
      key: Key | None = None,
      visible_BS: Array | None = None,  # type: ignore[override]
      cached: bool = False) -> Array:
    """Applies attention.

    Args:
      x_BTD: tokens.
      memory: the result of `project`.
      key: for dropout of the attention weights.
      visible_BS: nonzero where the memory is visible; None for all of it. A row without visible memory has an
        unspecified output.
      cached: whether tokens are decoded a few at a time.
    """
    key_BKSD, value_BKSD = memory
    query_BTHD = self.query(x_BTD).reshape(*x_BTD.shape[:2], -1, self.head_dim)
    query_BTHD = self._place(query_BTHD, 'queries B T H D', 'sequence' if self.split and not cached else None)
    if not self.scaled:
      query_BTHD = query_BTHD * math.sqrt(self.head_dim)  # `attend` divides by it
    if cached:
      segments = None if visible_BS is None else (jnp.ones(x_BTD.shape[:2], bool), visible_BS != 0)
      y_BTHD = attend_cached(query_BTHD, key_BKSD.astype(query_BTHD.dtype), value_BKSD.astype(query_BTHD.dtype), 0,
                             segments=segments)
    else:
      y_BTHD = attend(query_BTHD, key_BKSD.swapaxes(1, 2), value_BKSD.swapaxes(1, 2), visible_BS=visible_BS,
                      implementation=self.implementation, dropout_rate=self.dropout, key=key)
    return self.out(y_BTHD.reshape(*x_BTD.shape[:2], -1))
