"""Which of many files can be cut into examples, found without decoding them whole."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Scan:
  """What `scan` found.

  Attributes:
    kept: numbers of the files that give examples.
    broken: name -> why it cannot be read.
    short: name -> how long it is.
  """

  kept: tuple[int, ...]
  broken: Mapping[str, str]
  short: Mapping[str, str]


def scan(media: Sequence[Any], probe: Callable[[Any], Any], name_of: Callable[[Any], str], broken: type[Exception],
         short: type[Exception], told: Callable[[int], Any] = lambda number: None) -> Scan:
  """Probes every file.

  Args:
    media: files.
    probe: opens one of them, and raises `broken` or `short` if no example can be cut from it.
    name_of: the name of a file for messages.
    broken: raised for files that cannot be read.
    short: raised for files that are shorter than an example.
    told: is called with the number of each file before it is opened, for a progress bar.
  """
  kept: list[int] = []
  unread: dict[str, str] = {}
  lacking: dict[str, str] = {}
  for number, item in enumerate(media):
    told(number)
    try:
      probe(item)
      kept.append(number)
    except broken as error:
      unread[name_of(item)] = str(error)
    except short as error:
      lacking[name_of(item)] = str(error)
  return Scan(tuple(kept), unread, lacking)
