"""Conditions of denoisers and generators, told by the way they enter the network.

A network doesn't ask what a condition means. It reads entries of `given`, a mapping whose keys name the mechanisms, see
`genjax.nn.conditioning`. A `Conditioner` makes such entries of columns of a batch, or of a user's request. Dropping
conditions in training, their absence in guidance and negative conditions are written here once, for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax.types import Array, Key, Params, UserError

Given = Mapping[str, Any]  # what a network reads, by mechanism; arrays with the batch as first axis
NEGATIVE = 'negative_'  # before the name of a column: rows that stand in the null's place
# Entries of several conditions that are joined along an axis; of all others there may be one.
_JOINED = {'vector': -1, 'numbers': -1, 'image': -1, 'tokens': 1}


@dataclasses.dataclass(frozen=True)
class Conditioner:
  """One condition: what it reads, what stands for its absence, and what the network reads of it.

  Attributes:
    columns: what it reads of a batch, or of the user's request.
    null: column -> the row that stands for no condition. It's kept in the run; training and sampling use the same. A
      condition that is never absent may lack it.
    dropout: probability with which training takes `null` in a row's place. With 0 the condition is never absent:
      guidance leaves it as it is.
    encode: (frozen parameters, columns) -> what the network reads, by mechanism: entries of `given`, see
      `genjax.nn.conditioning`.
    stored: entry of `given` -> column of a batch that holds it, where it was computed before; batches then have these
      columns in place of `columns`.

  Raises:
    UserError: the dropout is no probability below 1, a column has no null, or a null no column.
  """

  columns: tuple[str, ...]
  null: Mapping[str, Any]
  dropout: float
  encode: Callable[[Params, Mapping[str, Array]], Given]
  stored: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    checks.rates(self, 'dropout')
    if set(self.null) - set(self.columns) or (self.dropout and len(self.null) < len(self.columns)):
      raise UserError(f'a condition needs a null for each of its columns {sorted(self.columns)}, got nulls for '
                      f'{sorted(self.null)}')


Conditioners = Mapping[str, Conditioner]


def classes(num_classes: int, dropout: float = 0.1, column: str = 'label') -> Conditioner:
  """The condition of class labels, whose null is the label `num_classes`. The table of embeddings is the network's."""
  checks.whole({'num_classes': num_classes}, 1, 'num_classes')
  return Conditioner((column,), {column: np.asarray(num_classes, np.int32)}, dropout,
                     lambda frozen, columns: {'label': columns[column]})


def given(conditioners: Conditioners, frozen: Params, columns: Mapping[str, Array], key: Key | None = None,
          joint: float = 0.0) -> Given:
  """What the network reads of all conditions in a batch.

  Several conditions may enter by one mechanism: vectors, numbers and images are joined along their channels, tokens
  along the sequence, in the order of the mapping.

  Args:
    conditioners: name -> condition.
    frozen: frozen parameters.
    columns: a batch.
    key: drops rows of each condition at its rate; without it none are dropped. The draws of a condition depend on its
      name, not on the other conditions.
    joint: with a key, probability with which all conditions are dropped together that have a rate above 0.

  Raises:
    UserError: a column is missing, or conditions of one mechanism cannot be joined.
  """
  entries = {}
  for name, condition in conditioners.items():
    held = tuple(condition.stored.values()) or condition.columns
    read = _read(name, held, columns)
    dropped_B = None
    if key is not None and condition.dropout:
      size = len(read[held[0]])
      # The label's draws are those of a model that has labels alone.
      dropped_B = jax.random.bernoulli(key if name == 'label' else _own(key, name), condition.dropout, (size,))
      if joint:
        dropped_B |= jax.random.bernoulli(_own(key, 'all conditions together'), joint, (size,))
    entries[name] = _encoded(condition, frozen, read, dropped_B)
  return _joined(entries)


def _encoded(condition: Conditioner, frozen: Params, read: Mapping[str, Array], dropped_B: Array | None) -> Given:
  """What the network reads of one condition in a batch, with its null where `dropped_B`."""
  if not condition.stored:
    if dropped_B is not None:
      read = {column: _replace(dropped_B, condition.null[column], value) for column, value in read.items()}
    return condition.encode(frozen, read)
  found = {entry: read[column] for entry, column in condition.stored.items()}
  if dropped_B is None:
    return found
  # The null is one row, so that encoding it costs next to nothing.
  null = condition.encode(frozen, {column: jnp.asarray(row)[None] for column, row in condition.null.items()})
  return {entry: _replace(dropped_B, null[entry][0], value) for entry, value in found.items()}


def _own(key: Key, name: str) -> Key:
  """A key of one condition, whatever the others are."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def branches(conditioners: Conditioners, frozen: Params, columns: Mapping[str, Array], size: int,
             without: Sequence[Sequence[str]]) -> list[Given]:
  """What the network reads in each branch of guidance. Each condition is encoded once present and once absent.

  Args:
    conditioners: name -> condition.
    frozen: frozen parameters.
    columns: the user's request. Rows 'negative_COLUMN' stand in the place of the null of a column.
    size: number of rows.
    without: for each branch, the names of the conditions that are absent.

  Raises:
    UserError: see `given`; or there are negative rows for some columns of a condition and not for others, or for a
      condition that is absent in no branch.
  """
  negative = {column.removeprefix(NEGATIVE) for column in columns if column.startswith(NEGATIVE)}
  replaced = {column for names in without for name in names for column in conditioners[name].columns}
  if unused := negative - replaced:
    raise UserError(f'negative conditions {sorted(unused)} stand in the place of an absent condition, and guidance '
                    f'takes away {sorted(replaced) or "none"}; guide these conditions by a scale other than 1')
  present: dict[str, Given] = {}
  missing: dict[str, Given] = {}
  for name, condition in conditioners.items():
    if not all(name in names for names in without):
      present[name] = condition.encode(frozen, _read(name, condition.columns, columns))
    if any(name in names for names in without):
      missing[name] = condition.encode(frozen, _null(name, condition, columns, size))
  return [_joined({name: (missing if name in names else present)[name] for name in conditioners}) for names in without]


def _null(name: str, condition: Conditioner, columns: Mapping[str, Array], size: int) -> dict[str, Array]:
  """Rows that stand for the absence of a condition: the user's negative ones, or the null."""
  negative = [column for column in condition.columns if NEGATIVE + column in columns]
  if negative and len(negative) < len(condition.columns):
    raise UserError(f'a negative condition {name!r} needs all its columns {condition.columns}, got only {negative}')
  if negative:
    return {column: columns[NEGATIVE + column] for column in negative}
  nulls = {column: jnp.asarray(null) for column, null in condition.null.items()}
  return {column: jnp.broadcast_to(null, (size, *null.shape)) for column, null in nulls.items()}


def _read(name: str, reads: Sequence[str], columns: Mapping[str, Array]) -> dict[str, Array]:
  missing = [column for column in reads if column not in columns]
  if missing:
    raise UserError(f'condition {name!r} reads columns {list(reads)}, and {missing} are not given; '
                    f'there are {sorted(columns)}')
  return {column: columns[column] for column in reads}


def _replace(where_B: Array, null: Array, rows: Array) -> Array:
  """The rows, with the null row where `where_B`."""
  rows = jnp.asarray(rows)
  return jnp.where(where_B.reshape(-1, *[1] * (rows.ndim - 1)), jnp.asarray(null, rows.dtype), rows)


def _joined(entries: Mapping[str, Given]) -> dict[str, Any]:
  """The entries of all conditions as one mapping."""
  merged: dict[str, Any] = {}
  for name, found in entries.items():
    found = dict(found)
    if 'tokens' in found:  # a mask for all tokens, once any have one
      found.setdefault('tokens_mask', jnp.ones(found['tokens'].shape[:2], bool))
    for mechanism, value in found.items():
      axis = 1 if mechanism == 'tokens_mask' else _JOINED.get(mechanism)
      if mechanism not in merged:
        merged[mechanism] = value
        continue
      if axis is None:
        raise UserError(f'conditions {sorted(entries)} give {mechanism!r} twice, and a network reads one; leave one '
                        'out')
      old = merged[mechanism]
      shapes = [tuple(size for place, size in enumerate(part.shape) if place != axis % part.ndim) for part in
                (old, value)]
      if shapes[0] != shapes[1]:
        raise UserError(f'condition {name!r} gives {mechanism!r} of shape {value.shape}, which cannot be joined to '
                        f'that of the conditions before it, of shape {old.shape}, along axis {axis}')
      merged[mechanism] = jnp.concatenate([old, value], axis)
  return merged
