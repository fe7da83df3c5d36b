"""Checks of the values of options. They run when an options object is created, before anything is computed.

An error message begins with the name of the option. `genjax.config.build` puts the config key of the options in front
of it; `under` does the same for options that `build` does not create.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import math
import numbers
from typing import Any

from genjax.types import UserError

DTYPES = ('float32', 'bfloat16', 'float16')  # what networks may compute in
SEEDS = 2**63  # seeds lie in [0, SEEDS); all 63 bits matter, see `genjax.training.keys`


class OutOfRange(UserError, ValueError):
  """A value that an option does not allow. The message begins with the name of the option."""


@contextlib.contextmanager
def under(where: str) -> Iterator[None]:
  """Context manager that puts the config key `where`, e.g. 'config.data', in front of option names in errors.

  Raises:
    UserError: replaces an `OutOfRange` from the body; its message has the full key.
  """
  try:
    yield
  except OutOfRange as error:
    raise UserError(f'{where}.{error}') from error


def require(name: str, value: Any, *, at_least: float | None = None, above: float | None = None,
            at_most: float | None = None, below: float | None = None, meaning: str = '') -> None:
  """Checks that a number is finite and lies within bounds.

  Args:
    name: name of the option.
    value: its value.
    at_least, above, at_most, below: the bounds; None means no bound.
    meaning: a hint for the message, e.g. '0 switches it off'.

  Raises:
    OutOfRange: the value is not a number, not finite or out of bounds.
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
  """Checks that options are whole numbers of at least `least`, or sequences of such numbers.

  Args:
    options: a dataclass, or a mapping. Values of None and keys that a mapping lacks are not checked.
    least: the smallest allowed value.
    *names: names of the options to check.

  Raises:
    OutOfRange: an option is not such a number.
  """
  for name, value in _chosen(options, names):
    entries = value if isinstance(value, (tuple, list)) else (value,)
    integers = [isinstance(entry, numbers.Integral) and not isinstance(entry, bool) for entry in entries]
    if not all(integers) or any(entry < least for entry in entries):
      kind = 'be whole numbers of ' if entries is value else 'be ' if all(integers) else 'be a whole number of '
      raise OutOfRange(
        f'{name} must {"not be negative" if kind == "be " and not least else f"{kind}at least {least}"}, got {value!r}')


def rates(options: Any, *names: str) -> None:
  """Checks that options are drop probabilities, in [0, 1). Arguments as for `whole`."""
  for name, value in _chosen(options, names):
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
      raise OutOfRange(f'{name} must lie in [0, 1), got {value!r}')


def positive(options: Any, *names: str) -> None:
  """Checks that options are numbers above 0. Arguments as for `whole`."""
  between(options, names, above=0)


def between(options: Any, names: tuple[str, ...], **bounds: Any) -> None:
  """Checks that options lie within `bounds`, see `require`; `options` and `names` as for `whole`."""
  for name, value in _chosen(options, names):
    require(name, value, **bounds)


def idle(options: Any, names: tuple[str, ...], reason: str) -> None:
  """Checks that options without any effect are what they are by default.

  Args:
    options: a dataclass.
    names: names of the options, which have defaults.
    reason: why they have no effect, and what to do, e.g. 'without noise; set noise above 0'.

  Raises:
    OutOfRange: an option has another value.
  """
  defaults = {field.name: field.default for field in dataclasses.fields(options)}
  for name, value in _chosen(options, names):
    if value != defaults[name]:
      raise OutOfRange(f'{name}={value!r} has no effect {reason}, or leave {name} at {defaults[name]!r}')


def dtype(options: Any, name: str = 'dtype') -> None:
  """Checks that an option names a compute dtype.

  Raises:
    OutOfRange: it does not.
  """
  for _, value in _chosen(options, (name,)):
    if value not in DTYPES:
      raise OutOfRange(f'{name} must be one of {DTYPES}, got {value!r}')


def seed(name: str, value: Any) -> None:
  """Checks that a seed lies in [0, 2^63), where different seeds give different random numbers.

  Raises:
    OutOfRange: it is not.
  """
  whole({name: value}, 0, name)
  require(name, value, below=SEEDS, meaning='2^63')


def heads(options: Any, width: str = 'width', name: str = 'heads') -> None:
  """Checks that `heads` divides `width`, unless the option `head_dim` sets the size of a head.

  Raises:
    OutOfRange: they do not.
  """
  size, count = getattr(options, width), getattr(options, name)
  if not getattr(options, 'head_dim', 0) and size % count:
    exception = ' unless head_dim is given' if hasattr(options, 'head_dim') else ''
    raise OutOfRange(f'{width} ({size}) must be a multiple of {name} ({count}){exception}')


def _chosen(options: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
  """Pairs (name, value) of the options. Skips None and keys that a mapping lacks."""
  read = options.get if isinstance(options, Mapping) else lambda name: getattr(options, name)
  return [(name, value) for name in names if (value := read(name)) is not None]
