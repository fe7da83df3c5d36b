"""Types shared by every layer of the library, and the legend of shape suffixes.

Names of arrays carry their axes as a suffix, one letter an axis (`x_BTD`):

    B batch        T time, tokens or query positions    S key positions
    H height or query heads    W width    C channels    D model width
    K key/value heads or classes       V vocabulary     L layers
    N samples      P patch elements    M microbatches   Z latent width
    G groups of query heads that share one key/value head

A letter with two meanings is told apart by its neighbours: `image_BHWC` has height and width, `query_BTHD` has heads.
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
  """The '/'-joined names of a leaf, from the path that `jax.tree_util` gives: what patterns match and messages
  print."""
  return '/'.join(str(getattr(entry, 'key', entry)) for entry in path)


def named_leaves(tree: Tree) -> dict[str, Any]:
  """The leaves of a tree by their `leaf_name`."""
  return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(leaves: Mapping[str, Any]) -> Tree:
  """The tree whose `named_leaves` these are."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *folders, name = path.split('/')
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = leaf
  return tree


def listed(names: Sequence[str], most: int = 12) -> str:
  """Names for a message, at most `most` of them."""
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def strict_json(value: Any, **options: Any) -> str:
  """JSON text. It has no words for NaN and infinities, which become null; `options` are those of `json.dumps`."""
  return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _finite(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
  """A path as a user writes it: a `~` or `~name` at its beginning stands for a home folder.

  Raises:
    UserError: there is no user of that name.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError:
    raise UserError(
      f'{path}: ~ begins the home folder of a user, and there is none of this name; write ./{path} for what is called '
      'so '
      'here') from None


class UserError(Exception):
  """Bad input. The message says what was expected, what was given and what to do; the command line exits with 2."""


class NonFiniteError(RuntimeError):
  """A loss, gradient or parameter became NaN or infinite; the command line exits with 3."""

  def __init__(self, step: int, phase: str, quantity: str, value: float):
    self.step, self.phase, self.quantity = step, phase, quantity
    super().__init__(f'{quantity} of phase {phase!r} is {value} at step {step}')


class StorageError(RuntimeError):
  """A checkpoint or log could not be written: a full or read-only disk. The command line exits with 6."""


class PeerError(RuntimeError):
  """Another process of the run cannot be reached; the command line exits with 7."""
