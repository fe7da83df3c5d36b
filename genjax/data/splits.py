"""Splits of one's own data: 'train', slices such as 'train[:90%]', and sums such as 'train+validation[:100]'."""

from collections.abc import Mapping
import re

import numpy as np

from genjax.types import UserError

_PART = re.compile(r'(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?')


def select(name: str, split: str, sizes: Mapping[str, int]) -> np.ndarray:
  """The examples of a split, int64, in order.

  Args:
    name: of the data, for messages.
    split: names of `sizes` joined by '+', each with a slice that counts examples or percents of them.
    sizes: split -> number of its examples; those of one split follow on those of the one before.

  Raises:
    UserError: the split is unknown, written in another way, or empty.
  """
  known = ', '.join(f'{part} ({size})' for part, size in sizes.items())
  firsts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist()))
  chosen = []
  for part in split.split('+'):
    match = _PART.fullmatch(part.strip())
    if match is None or match[1] not in sizes:
      raise UserError(f"{name} has no split {part.strip()!r}; it has {known}, which can be sliced and joined as in "
                      "'train[:90%]+test'")
    size = sizes[match[1]]
    begin, end = (_bound(bound, size) for bound in match.groups()[1:])
    chosen.append(np.arange(size)[begin:end] + firsts[match[1]])
  found = np.concatenate(chosen)
  if not len(found):
    raise UserError(f'split {split!r} of {name} has no examples; it has {known}: choose a larger part')
  return found


def _bound(bound: str | None, size: int) -> int | None:
  """A bound of a slice as a number. Percents are rounded down; -10% is 10% from the end."""
  if bound is None or not bound.endswith('%'):
    return None if bound is None else int(bound)
  percent = int(bound[:-1])
  return size * min(100, percent if percent >= 0 else max(0, 100 + percent)) // 100
