"""Checks of numbers that options may hold, made when the options are made and before anything is computed.

A message begins with the name of the option. Whoever knows under which key of a config the options stand puts that
before it: `genjax.config.build` does, and `under` for what it does not build.
"""

from collections.abc import Iterator, Mapping
import contextlib
import math
import numbers
from typing import Any

from genjax.types import UserError

DTYPES = ('float32', 'bfloat16', 'float16')  # what networks may compute in
SEEDS = 2**63  # how many there are; every bit of a seed counts, see `genjax.training.keys`


class OutOfRange(UserError, ValueError):
  """A value that an option cannot have. The message begins with the name of the option."""


@contextlib.contextmanager
def under(where: str) -> Iterator[None]:
  """Names of options inside are keys of `where`, e.g. 'config.data'.

  Raises:
    UserError: in the place of `OutOfRange`, with the whole key.
  """
  try:
    yield
  except OutOfRange as error:
    raise UserError(f'{where}.{error}') from error


def require(name: str, value: Any, *, at_least: float | None = None, above: float | None = None,
            at_most: float | None = None, below: float | None = None, meaning: str = '') -> None:
  """Checks that a number lies between bounds. It must be finite, too.

  Args:
    name: of the option.
    value: what it holds.
    at_least, above, at_most, below: the bounds; none is no bound.
    meaning: what a reader needs to know of the value, for the message, e.g. '0 switches it off'.

  Raises:
    OutOfRange: it does not, or is no number.
  """
  bounds = [(at_least, 'at least', lambda bound: value >= bound), (above, 'above', lambda bound: value > bound),
            (at_most, 'at most', lambda bound: value <= bound), (below, 'below', lambda bound: value < bound)]
  given = [(bound, words, holds) for bound, words, holds in bounds if bound is not None]
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    raise OutOfRange(f'{name} must be a number, got {value!r}')
  if isinstance(value, float) and not math.isfinite(value):
    raise OutOfRange(f'{name} must be finite, got {value!r}')
  if not all(holds(bound) for bound, _, holds in given):
    wanted = 'not be negative' if [bound for bound, *_ in given] == [0] == [at_least] else (
      'be ' + ' and '.join(f'{words} {bound}' for bound, words, _ in given))
    raise OutOfRange(f'{name} must {wanted}{f" ({meaning})" if meaning else ""}, got {value!r}')


def whole(options: Any, least: int, *names: str) -> None:
  """Checks that options are whole numbers of at least `least`, or sequences of such.

  Args:
    options: a dataclass; or a mapping, of which names may be absent. What is None is not checked.
    least: the smallest that is allowed.
    *names: of the options.

  Raises:
    OutOfRange: one is not.
  """
  for name, value in _chosen(options, names):
    entries = value if isinstance(value, (tuple, list)) else (value,)
    integers = [isinstance(entry, numbers.Integral) and not isinstance(entry, bool) for entry in entries]
    if not all(integers) or any(entry < least for entry in entries):
      kind = 'be whole numbers of ' if entries is value else 'be ' if all(integers) else 'be a whole number of '
      raise OutOfRange(
        f'{name} must {"not be negative" if kind == "be " and not least else f"{kind}at least {least}"}, got {value!r}')


def rates(options: Any, *names: str) -> None:
  """Checks that options are probabilities with which something is dropped: at least 0 and below 1. See `whole`."""
  for name, value in _chosen(options, names):
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
      raise OutOfRange(f'{name} must lie in [0, 1), got {value!r}')


def positive(options: Any, *names: str) -> None:
  """Checks that options are numbers above 0. See `whole`."""
  between(options, names, above=0)


def between(options: Any, names: tuple[str, ...], **bounds: Any) -> None:
  """Checks that options lie between bounds, see `require`; `options` and `names` as for `whole`."""
  for name, value in _chosen(options, names):
    require(name, value, **bounds)


def dtype(options: Any, name: str = 'dtype') -> None:
  """Checks that an option names a type to compute in.

  Raises:
    OutOfRange: it does not.
  """
  for _, value in _chosen(options, (name,)):
    if value not in DTYPES:
      raise OutOfRange(f'{name} must be one of {DTYPES}, got {value!r}')


def seed(name: str, value: Any) -> None:
  """Checks that a seed is one of those of which every one gives other random numbers.

  Raises:
    OutOfRange: it is not.
  """
  whole({name: value}, 0, name)
  require(name, value, below=SEEDS, meaning='2^63')


def heads(options: Any, width: str = 'width', name: str = 'heads') -> None:
  """Checks that the heads of an attention divide its width, where an option `head_dim` does not say how wide a head is.

  Raises:
    OutOfRange: they do not.
  """
  size, count = getattr(options, width), getattr(options, name)
  if not getattr(options, 'head_dim', 0) and size % count:
    exception = ' unless head_dim is given' if hasattr(options, 'head_dim') else ''
    raise OutOfRange(f'{width} ({size}) must be a multiple of {name} ({count}){exception}')


def _chosen(options: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
  """Names and values; those of a mapping that are absent, and what is None, are left out."""
  read = options.get if isinstance(options, Mapping) else lambda name: getattr(options, name)
  return [(name, value) for name in names if (value := read(name)) is not None]
