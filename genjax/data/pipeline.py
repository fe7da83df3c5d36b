"""Batches as a pure function of the step: shuffling, augmentation, prefetching.

Example `position` of a run is row `position % batch_size` of step `position // batch_size`. The position determines the
epoch and the place in it, and a pseudorandom permutation of the epoch gives the index in the source. Resuming therefore
needs no stored state, and any number of processes can read any rows of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
import copy
import dataclasses
import functools
import hashlib
from typing import Any, Protocol
import zlib

import grain
import numpy as np

from genjax import checks
from genjax.types import UserError

Columns = dict[str, np.ndarray]

_EVERYTHING = slice(None)
_GRAIN_LENGTH = 2**40  # more than any run has; Grain needs a length
# Sizes up to which permutations are sorted. Grain's shuffle needs no memory, but for small data it searches a domain of
# 2^16 values, which takes milliseconds per index.
_MAX_SORTED_SIZE = 2**16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Source(Protocol):
  """Examples with random access."""

  def __len__(self) -> int: ...

  def get(self, indices: np.ndarray) -> Columns:
    """Returns the examples `indices`, int64 (B,), as column name -> array with first axis B."""
    ...

  def fingerprint(self) -> dict[str, Any]:
    """JSON-able facts that identify the examples."""
    ...


def read(source: Source, indices: np.ndarray, random: 'RowRandom') -> Columns:
  """The examples `indices` of a source: by its method `draw(indices, random)` if it has one, else by `get`.

  A source that reads parts of files at random has `draw`; row i of its result may depend on row i of both arguments
  only. A source that wraps others has it, too, and calls this function on them.
  """
  draw = getattr(source, 'draw', None)
  return source.get(indices) if draw is None else draw(indices, random)


def columns_of(source: Source, indices: np.ndarray, names: Sequence[str]) -> Columns:
  """Some columns of examples, without those that there are not.

  They come by the method `read_columns(indices, names)` of a source that need not decode its files for them, else by
  `get`.
  """
  if hasattr(source, 'read_columns'):
    return source.read_columns(indices, names)  # type: ignore[attr-defined]
  found = source.get(indices)
  return {name: found[name] for name in names if name in found}


class RowRandom:
  """Uniform random numbers for a batch. Those of a row depend only on its position, not on other rows.

  Each row has a SplitMix64 stream (Steele, Lea and Flood 2014) that starts at a hash of (seed, position).
  """

  def __init__(self, seed: int, positions: np.ndarray):
    seed_1 = np.array([seed % 2**64], np.uint64)
    self._state_B1 = _mix(_mix(seed_1) + _GOLDEN * positions.astype(np.uint64))[:, None]
    self._drawn = 0

  def uniform(self, *shape: int) -> np.ndarray:
    """float64 (B, *shape) in [0, 1)."""
    size = int(np.prod(shape))
    counter_1N = np.arange(self._drawn + 1, self._drawn + size + 1, dtype=np.uint64)[None]
    self._drawn += size
    bits_BN = _mix(self._state_B1 + _GOLDEN * counter_1N)
    return ((bits_BN >> np.uint64(11)) * 2.0**-53).reshape(-1, *shape)

  def normal(self, *shape: int) -> np.ndarray:
    """float64 (B, *shape), standard normal (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-self.uniform(*shape)))
    return radius * np.cos(2.0 * np.pi * self.uniform(*shape))

  def some(self, rows: np.ndarray) -> 'RowRandom':
    """Further random numbers for some of the rows; what is drawn of them changes none of those drawn here."""
    part = copy.copy(self)
    part._state_B1, part._drawn = _mix(self._state_B1[rows] ^ _GOLDEN), 0
    return part

  def apart(self, name: str) -> 'RowRandom':
    """Further random numbers for all rows; what is drawn of them changes none of those drawn here or under other
    names."""
    part = copy.copy(self)
    part._state_B1, part._drawn = _mix(self._state_B1 + np.uint64(zlib.crc32(name.encode()))), 0
    return part

  def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
    """int64 (B, *shape) from low to high - 1."""
    return low + (self.uniform(*shape) * (high - low)).astype(np.int64)


Transform = Callable[[Columns, RowRandom], Columns]


@dataclasses.dataclass
class Pipeline:
  """Global batches of a source; implements the `Data` that the loop reads.

  open: opens the source, on first use. batch_size: rows of a global batch. seed: of shuffling and augmentation.
  transform: (columns, random) -> columns for a batch of any number of rows; row i of the result may depend on row i of
  both arguments only. shuffle: False reads every epoch in the order of the source. prefetch: batches prepared ahead in
  the background. threads: how many of them are prepared at a time; they come in their order whatever the number.
  joint: (columns, random) -> columns, after `transform`, for whole groups of rows: a row of the result may depend on
  all rows of its group. group: rows of a group, neighbours in a global batch; 0 is the whole batch. A process that
  needs some rows of a group reads all of them, so that a batch does not depend on the number of processes.
  """

  open: Callable[[], Source]
  batch_size: int
  seed: int = 0
  transform: Transform | None = None
  shuffle: bool = True
  prefetch: int = 8
  threads: int = 1
  joint: Transform | None = None
  group: int = 0

  def __post_init__(self):
    checks.whole(self, 1, 'batch_size', 'prefetch', 'threads')
    checks.whole(self, 0, 'group')
    checks.seed('seed', self.seed)
    if self.group and self.batch_size % self.group:
      raise UserError(f'groups of {self.group} rows do not divide a batch of {self.batch_size}; change either')

  @functools.cached_property
  def source(self) -> Source:
    source = self.open()
    if not len(source):
      raise UserError(f'the data has no examples: {source.fingerprint()}; choose a larger split')
    return source

  def batch(self, step: int, rows: slice | np.ndarray = _EVERYTHING) -> Columns:
    """Rows `rows` of the global batch of `step`."""
    positions_B = self._positions(step)
    return self._finished(self.indices, positions_B, rows)

  def indices(self, positions_B: np.ndarray) -> np.ndarray:
    """Positions in the run -> indices in the source; every index occurs once per epoch."""
    examples = len(self.source)
    return shuffled(positions_B, examples, self.seed) if self.shuffle else positions_B % examples

  def iterate(self, start: int, rows: slice | np.ndarray = _EVERYTHING) -> Iterator[Columns]:
    """Yields `batch(step, rows)` for the steps from `start` on, without end, prefetched."""
    return self._prefetched(lambda step: self.batch(step, rows), start, _GRAIN_LENGTH)

  def epoch(self, rows: slice | np.ndarray = _EVERYTHING) -> Iterator[Columns]:
    """Yields every example once, in the order of the source, in batches of one size, prefetched.

    Column 'mask', float32 (B,), is 1 on examples and 0 on padding, which repeats the last example. Augmentation is
    drawn as in the first epoch of an unshuffled run, so every call gives the same.
    """
    examples = len(self.source)

    def read(number: int) -> Columns:
      positions_B = self._positions(number)
      columns = self._finished(lambda positions_B: np.minimum(positions_B, examples - 1), positions_B, rows)
      return dict(columns, mask=(positions_B[rows] < examples).astype(np.float32))

    return self._prefetched(read, 0, -(-examples // self.batch_size))

  def fingerprint(self) -> dict[str, Any]:
    return self.source.fingerprint()

  def _positions(self, step: int) -> np.ndarray:
    return step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)

  def _finished(self, indices: Callable[[np.ndarray], np.ndarray], positions_B: np.ndarray,
                rows: slice | np.ndarray) -> Columns:
    """Rows `rows` of the examples at `positions_B`, transformed, and jointly with the rest of their groups."""
    if self.joint is None:
      return self._transformed(indices, positions_B, rows)
    size, wanted_N = self.group or self.batch_size, np.arange(self.batch_size)[rows]
    groups_GS = np.unique(wanted_N // size)[:, None] * size + np.arange(size)
    columns = self._transformed(indices, positions_B, groups_GS.reshape(-1))
    parts = []
    for number, rows_S in enumerate(groups_GS):
      part = {name: column[number * size:(number + 1) * size] for name, column in columns.items()}
      # `some` gives numbers that `transform` did not see.
      parts.append(self.joint(part, RowRandom(self.seed, positions_B[rows_S]).some(np.arange(size))))
    places_N = np.searchsorted(groups_GS.reshape(-1), wanted_N)
    return {name: np.concatenate([part[name] for part in parts])[places_N] for name in parts[0]}

  def _transformed(self, indices: Callable[[np.ndarray], np.ndarray], positions_B: np.ndarray,
                   rows: slice | np.ndarray) -> Columns:
    """Rows `rows` of the examples at `positions_B`, each transformed by itself; see `_read`."""
    random = RowRandom(self.seed, positions_B[rows])
    columns = self._read(indices, positions_B, rows, random)
    return columns if self.transform is None else self.transform(columns, random)

  def _read(self, indices: Callable[[np.ndarray], np.ndarray], positions_B: np.ndarray, rows: slice | np.ndarray,
            random: RowRandom) -> Columns:
    """Reads rows `rows` of the examples at `positions_B`; `indices` maps positions to indices in the source."""
    return read(self.source, indices(positions_B[rows]), random)

  def _prefetched(self, read: Callable[[int], Columns], start: int, stop: int) -> Iterator[Columns]:
    len(self.source)  # raises errors of the data here, not in a background thread
    # Several threads only help sources that decode: numpy indexing holds the interpreter lock.
    options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=max(self.prefetch, self.threads))
    return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))


def shuffled(positions_B: np.ndarray, examples: int, seed: int | str) -> np.ndarray:
  """Positions in an endless stream -> indices of `examples` examples: each once an epoch, in an order of its own."""
  epoch_B, offset_B = np.divmod(positions_B, examples)
  index_B = np.empty_like(offset_B)
  for epoch in np.unique(epoch_B).tolist():
    rows = epoch_B == epoch
    index_B[rows] = _shuffle(offset_B[rows], examples, _epoch_seed(seed, epoch))
  return index_B


def _epoch_seed(seed: int | str, epoch: int) -> int:
  return int.from_bytes(hashlib.blake2b(f'{seed} {epoch}'.encode(), digest_size=4).digest(), 'little')


def _shuffle(offset_N: np.ndarray, examples: int, seed: int) -> np.ndarray:
  """Places in an epoch -> indices, by a pseudorandom permutation."""
  if examples <= _MAX_SORTED_SIZE:
    return _permutation(examples, seed)[offset_N]
  shuffle = functools.partial(grain.experimental.index_shuffle, max_index=examples - 1, seed=seed, rounds=4)
  return np.fromiter(map(shuffle, offset_N.tolist()), np.int64, len(offset_N))


@functools.lru_cache(maxsize=8)
def _permutation(examples: int, seed: int) -> np.ndarray:
  """The order of the hashes of 0 .. examples - 1."""
  seed_1 = np.array([seed], np.uint64)
  return np.argsort(_mix(_mix(seed_1) + _GOLDEN * np.arange(examples, dtype=np.uint64)), kind='stable')


def _mix(z: np.ndarray) -> np.ndarray:
  """The output function of SplitMix64 on uint64 arrays."""
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))
