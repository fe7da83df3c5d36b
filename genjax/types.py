"""Types used everywhere in the library, and the legend of shape suffixes.

Array names end with their axes, one letter per axis (`x_BTD`):

    B batch        T time, tokens or query positions    S key positions
    H height or query heads    W width    C channels    D model width
    K key/value heads or classes       V vocabulary     L layers
    N samples      P patch elements    M microbatches   Z latent width
    G groups of query heads that share one key/value head

The neighbours of a letter tell its meaning: `image_BHWC` has height and width, `query_BTHD` has heads.
"""

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
from typing import Any

import jax

Array = jax.Array
Key = jax.Array  # a typed PRNG key, `jax.random.key(seed)`
Tree = Any  # nested dicts of arrays
Params = dict[str, Tree]  # group name -> parameters of that group
Batch = Mapping[str, Any]  # column name -> array whose first axis is the batch


def leaf_name(path: tuple) -> str:
  """The '/'-joined name of a leaf, from its `jax.tree_util` path. Patterns match it and messages print it."""
  return '/'.join(str(getattr(entry, 'key', entry)) for entry in path)


def named_leaves(tree: Tree) -> dict[str, Any]:
  """The leaves of a tree as a dict from `leaf_name`."""
  return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(leaves: Mapping[str, Any]) -> Tree:
  """Inverse of `named_leaves`."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *folders, name = path.split('/')
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = leaf
  return tree


def listed(names: Sequence[str], most: int = 12) -> str:
  """Joins names for a message, at most `most` of them."""
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def strict_json(value: Any, **options: Any) -> str:
  """Encodes a value as standard JSON, with null for NaN and infinities; `options` as for `json.dumps`."""
  return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _finite(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
  """Expands a leading `~` or `~name` of a path to a home folder.

  Raises:
    UserError: there is no user of this name.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError:
    raise UserError(
      f'{path}: a path that begins with ~ is in a home folder, and there is no user of this name; for a file of this '
      f'name in the current folder write ./{path}') from None


class UserError(Exception):
  """Invalid input. The message says what was expected, what was given and what to do. The command line exits with 2."""


class NonFiniteError(RuntimeError):
  """A loss, gradient or parameter became NaN or infinite. The command line exits with 3."""

  def __init__(self, step: int, phase: str, quantity: str, value: float):
    self.step, self.phase, self.quantity = step, phase, quantity
    super().__init__(f'{quantity} of phase {phase!r} is {value} at step {step}')


class StorageError(RuntimeError):
  """A checkpoint or log could not be written: a full or read-only disk. The command line exits with 6."""


class PeerError(RuntimeError):
  """Another process of the run cannot be reached. The command line exits with 7."""
