"""Checks files once, by decoding each: what is broken, and what a run must know of all of them before it begins.

Results are kept in $GENJAX_CACHE/folders, by default ~/.cache/genjax/folders, and hold as long as a file keeps its size
and time.
"""

from collections.abc import Sequence
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import tqdm

from genjax.data.kinds import BROKEN, Kind
from genjax.data.video import films

_VERSION = 1  # of what is kept
_CHUNK = 1024  # files that are handed to the threads at a time
_UNREAD = 'it cannot be read'
_SECONDS = 30.0  # after which results are kept


@dataclasses.dataclass(frozen=True)
class Checked:
  """What is known of a file.

  Attributes:
    digest: of its contents.
    facts: what `Kind.check` tells.
    broken: why it cannot be decoded; '' if it can.
  """

  digest: str = ''
  facts: dict[str, list[int]] = dataclasses.field(default_factory=dict)
  broken: str = ''


def check(root: pathlib.Path, names: Sequence[str], kind: Kind) -> dict[str, Checked]:
  """Checks files, on all cores.

  Args:
    root: their folder.
    names: their paths in it.
    kind: what they are.

  Returns:
    name -> what is known of it.
  """
  store = _store(root, kind)
  known = _known(store)
  stamps = {name: _stamp(root / name) for name in names}
  kept = time.monotonic()
  # Permission to read a file may come without a new size or time.
  waiting = [name for name in names if name not in known or known[name][0] != stamps[name]
             or known[name][1][2].startswith(_UNREAD)]
  with (tqdm.tqdm(total=len(waiting), unit='file', desc=f'checking {root}', delay=2) as bar,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool):
    for start in range(0, len(waiting), _CHUNK):
      part = waiting[start:start + _CHUNK]
      for name, found in zip(part, pool.map(lambda name: _check(root / name, kind), part), strict=True):
        known[name] = [stamps[name], dataclasses.astuple(found)]
        bar.update()
      if time.monotonic() - kept > _SECONDS or start + _CHUNK >= len(waiting):
        _keep(store, known)
        kept = time.monotonic()
  return {name: Checked(*known[name][1]) for name in names}


def files(path: pathlib.Path) -> list[pathlib.Path]:
  """The files of an example: one, or the frames of a folder in order."""
  return films.frames_of(path) if path.is_dir() else [path]


def _check(path: pathlib.Path, kind: Kind) -> Checked:
  digest = hashlib.blake2b(digest_size=16)
  try:
    for part in files(path):
      if not part.is_file() and part.exists():  # to open a pipe would wait for someone who writes
        return Checked(broken=f'{_UNREAD}: it is no file')
      with open(part, 'rb'):
        pass
    facts = {name: list(values) for name, values in kind.check(path).items()}
    for part in files(path):
      with open(part, 'rb') as file:
        digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
  except BROKEN as error:
    return Checked(broken=str(error).removeprefix(f'{path}').removeprefix(':').strip())
  except OSError as error:
    return Checked(broken=f'{_UNREAD}: {error.strerror}')
  return Checked(digest.hexdigest(), facts)


def _stamp(path: pathlib.Path) -> list[Any]:
  """Size and time of a file, or of all frames; by these a change is seen."""
  try:
    states = [file.stat() for file in files(path)]
    return [sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0),
            len(states)]
  except OSError as error:
    return [0, 0, error.errno]


def _store(root: pathlib.Path, kind: Kind) -> pathlib.Path:
  home = pathlib.Path(os.environ.get('GENJAX_CACHE') or '~/.cache/genjax').expanduser()
  name = hashlib.sha256(f'{root.resolve()} {kind.name} {_VERSION}'.encode()).hexdigest()[:24]
  return home / 'folders' / f'{name}.json'


def _known(store: pathlib.Path) -> dict[str, Any]:
  """What was kept; nothing if that is missing or damaged."""
  try:
    found = json.loads(store.read_text())
    return found if isinstance(found, dict) else {}
  except (OSError, ValueError):
    return {}


def _keep(store: pathlib.Path, known: dict[str, Any]) -> None:
  """Keeps results. A cache that cannot be written costs time only."""
  with contextlib.suppress(OSError):
    store.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', dir=store.parent, delete=False) as file:
      json.dump(known, file)
    os.replace(file.name, store)
