"""Batches of rows of similar length, cut to the longest one, so that little is computed on padding."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import numpy as np

from genjax import checks
from genjax.data.pipeline import Columns, Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError


@dataclasses.dataclass
class Buckets(Pipeline):
  """A `Pipeline` of padded rows, such as `genjax.data.text.parallel.parallel` gives.

  An epoch is shuffled, cut into pools, sorted by size within a pool, and its batches are shuffled: every example comes
  once an epoch, and a batch is still a function of (seed, step). Epochs whose end falls within a batch begin and end
  with a batch of any sizes. Every column of a batch is cut to the longest row of the global batch, rounded up.

  pool: batches of a pool. multiple: what widths are rounded up to; a train step is compiled for each width.
  """

  pool: int = 100
  multiple: int = 4

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'pool', 'multiple')
    self._order = functools.lru_cache(maxsize=2)(self._ordered)

  @functools.cached_property
  def sizes_N(self) -> np.ndarray:
    """The length of each example in its longest column."""
    source: Any = self.source
    if not isinstance(source, Arrays):
      raise UserError(f'batches by size need columns in memory, got {type(source).__name__}')
    weights = [column for name, column in source.columns.items() if name.endswith('_weights')]
    return np.max(
      [np.where(weight_NT > 0, np.arange(1, weight_NT.shape[1] + 1), 0).max(axis=1) for weight_NT in weights], axis=0)

  def indices(self, positions_B: np.ndarray) -> np.ndarray:
    epoch_B, offset_B = np.divmod(positions_B, len(self.source))
    index_B = np.empty_like(offset_B)
    for epoch in np.unique(epoch_B).tolist():
      index_B[epoch_B == epoch] = self._order(epoch)[offset_B[epoch_B == epoch]]
    return index_B

  def _ordered(self, epoch: int) -> np.ndarray:
    examples, batch = len(self.source), self.batch_size
    order_N = super().indices(epoch * examples + np.arange(examples))
    if not self.shuffle:
      return order_N
    first = min(-epoch * examples % batch, examples)  # start of the first whole batch
    whole = (examples - first) // batch
    body_N = order_N[first:first + whole * batch]
    for start in range(0, len(body_N), self.pool * batch):
      part_N = body_N[start:start + self.pool * batch]
      body_N[start:start + self.pool * batch] = part_N[np.argsort(self.sizes_N[part_N], kind='stable')]
    shuffled = np.random.default_rng([self.seed, epoch]).permutation(whole)
    order_N[first:first + whole * batch] = body_N.reshape(whole, batch)[shuffled].reshape(-1)
    return order_N

  def _read(self, indices: Callable[[np.ndarray], np.ndarray], positions_B: np.ndarray, rows: slice | np.ndarray,
            random: RowRandom) -> Columns:
    index_B = indices(positions_B)
    width = -(-int(self.sizes_N[index_B].max()) // self.multiple) * self.multiple
    return {name: column[:, :width] for name, column in self.source.get(index_B[rows]).items()}
