"""What a network reads of conditions, by the way they enter it.

`given` is a mapping with any of these entries, for B rows:

    label        int32 B: a class; the number of classes means none. The table of embeddings is the network's.

An absent entry is no condition; None and {} are none at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from genjax.types import UserError


def check(given: Mapping[str, Any] | None, needs: Sequence[str], may: Sequence[str] = ()) -> Mapping[str, Any]:
  """Checks that a network reads what it is told, and is told what it reads.

  Args:
    given: what it is told.
    needs: the entries that it reads.
    may: entries that it reads if there are any.

  Returns:
    `given`, {} for None.

  Raises:
    UserError: an entry that it doesn't read, or one that it lacks.
  """
  given = {} if given is None else given
  if not isinstance(given, Mapping):
    raise UserError(f'conditions are a mapping such as dict(label=...), got {type(given).__name__}')
  unread = sorted(set(given) - set(needs) - set(may))
  lacking = [name for name in needs if name not in given]
  if unread or lacking:
    problem = f'is told {unread}, which it does not read' if unread else f'is not told {lacking}'
    raise UserError(f'the network {problem}: it reads {sorted(needs) or "no conditions"}; set its options to what '
                    'the conditions give')
  return given
