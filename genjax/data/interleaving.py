"""Streams in turn: which of several streams a position of a run reads, and the how manieth of it that is."""

from collections.abc import Sequence
import functools

import numpy as np

from genjax.data.pipeline import RowRandom


class Interleaved:
  """Several endless streams as one, as a function of (seed, position).

  Positions come in blocks. In each, stream k stands `counts[k]` times, spread evenly: cut into `counts[k]` equal
  parts, the block has one place of the stream in each part, at a random point of it.

  Args:
    counts: of each stream, its places in a block.
    seed: of the random points.
  """

  def __init__(self, counts: Sequence[int], seed: int):
    self._count_K, self._seed = np.asarray(counts, np.int64), seed
    self._block = functools.lru_cache(maxsize=4)(self._drawn)

  @property
  def length(self) -> int:
    """Positions of a block."""
    return int(self._count_K.sum())

  def find(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions -> numbers of their streams, and places in them, both int64 B."""
    stream_B, place_B = np.empty_like(position_B), np.empty_like(position_B)
    block_B, offset_B = np.divmod(position_B, self.length)
    for block in np.unique(block_B).tolist():
      rows = block_B == block
      stream_M, rank_M = self._block(block)
      stream_B[rows] = stream_M[offset_B[rows]]
      place_B[rows] = block * self._count_K[stream_B[rows]] + rank_M[offset_B[rows]]
    return stream_B, place_B

  def before(self, position: int) -> np.ndarray:
    """How often each stream was read before a position, int64 K."""
    block, offset = divmod(position, self.length)
    return block * self._count_K + np.bincount(self._block(block)[0][:offset], minlength=len(self._count_K))

  def _drawn(self, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The streams of a block in order, and of each place its rank within its stream."""
    stream_M = np.repeat(np.arange(len(self._count_K)), self._count_K)
    rank_M = np.concatenate([np.arange(count) for count in self._count_K])
    random = RowRandom(self._seed, block * self.length + np.arange(self.length))
    order_M = np.argsort((rank_M + random.uniform()) / self._count_K[stream_M], kind='stable')
    return stream_M[order_M], rank_M[order_M]


def whole(weights: Sequence[float], total: int) -> list[int]:
  """Weights as whole numbers with the sum `total`, by largest remainders (Hamilton's method)."""
  share_K = np.asarray(weights, np.float64) / np.sum(weights) * total
  count_K = np.floor(share_K + 1e-9).astype(np.int64)
  missing = total - int(count_K.sum())
  count_K[np.argsort(-(share_K - count_K), kind='stable')[:missing]] += 1
  return count_K.tolist()
