"""Examples as bytes: MessagePack maps with arrays, and what their columns hold."""

from collections.abc import Mapping
import pathlib
from typing import Any

import msgpack
import numpy as np

from genjax.types import UserError

_ARRAY = 1  # MessagePack's extension type of an array
Row = Mapping[str, Any]


def pack_row(row: Row) -> bytes:
  """An example as the bytes of its record; equal examples have equal bytes."""
  packed = msgpack.packb({name: row[name] for name in sorted(row)}, default=_packed)
  assert packed is not None, 'it is None only for a packer that collects'
  return packed


def unpack_row(data: bytes) -> dict[str, Any]:
  """Inverse of `pack_row`."""
  return msgpack.unpackb(data, ext_hook=_unpacked)


def _packed(value: Any) -> Any:
  if isinstance(value, np.ndarray):
    if value.dtype.hasobject:
      raise TypeError(f'an array of objects cannot be packed: {value.dtype}')
    little = value.astype(value.dtype.newbyteorder('<'), copy=False)
    return msgpack.ExtType(_ARRAY, msgpack.packb([little.dtype.str, list(value.shape), little.tobytes()]))
  if isinstance(value, np.generic):
    return value.item()
  raise TypeError(f'{type(value).__name__} cannot be packed; expected text, bytes, a number, an array or a list')


def _unpacked(code: int, data: bytes) -> Any:
  if code != _ARRAY:
    raise ValueError(f'unknown extension type {code}')
  dtype, shape, content = msgpack.unpackb(data)
  return np.frombuffer(content, np.dtype(dtype)).reshape(shape).copy()


def kind(value: Any) -> dict[str, Any]:
  """What a column holds, by one of its values, as schema.json tells it."""
  if isinstance(value, np.ndarray):
    return {'type': 'array', 'dtype': value.dtype.name, 'shape': list(value.shape)}
  for name, kinds in (('text', str), ('bytes', bytes), ('integer', (bool, int, np.integer, np.bool_)),
                      ('number', (float, np.floating)), ('list', (list, tuple))):
    if isinstance(value, kinds):
      return {'type': name, **({'large': True} if name == 'integer' and not -2**31 <= value < 2**31 else {})}
  raise UserError(f'{type(value).__name__} cannot be packed; expected text, bytes, a number, an array or a list')


def merged(columns: dict[str, Any], found: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
  """The entries of two examples, or of two shards, as one; axes of different lengths become null."""
  if columns == found:
    return columns
  if columns.keys() != found.keys():
    raise UserError(f'{path}: all examples must have the same columns, got {sorted(columns)} and {sorted(found)}')
  joined = {}
  for name, old in columns.items():
    new = found[name]
    if {old['type'], new['type']} == {'integer', 'number'}:
      old = new = {'type': 'number'}
    if old['type'] != new['type'] and {old['type'], new['type']} <= {'bytes', 'list', 'files'}:
      old = new = {'type': 'files'}  # clips: some are files, and others folders of frames
    if old['type'] != new['type'] or old.get('dtype') != new.get('dtype'):
      raise UserError(f'{path}: column {name!r} has values of two kinds, {old} and {new}')
    joined[name] = {**old, **({'large': True} if new.get('large') else {})}
    if old['type'] == 'array' and old['shape'] != new['shape']:
      same = old['shape'] is not None and new['shape'] is not None and len(old['shape']) == len(new['shape'])
      joined[name]['shape'] = [size if size == other else None
                               for size, other in zip(old['shape'], new['shape'])] if same else None
  return joined


def column(values: list[Any], entry: Mapping[str, Any]) -> np.ndarray:
  """The values of a column as one array: see `genjax.data.packed.Reader`."""
  if entry['type'] in ('integer', 'number'):
    return np.asarray(values, np.float32 if entry['type'] == 'number' else np.int64 if entry.get('large') else np.int32)
  if entry['type'] == 'array' and len({value.shape for value in values}) == 1:
    return np.stack(values)
  objects = np.empty(len(values), object)
  for row, value in enumerate(values):  # numpy would take lists of one length for a further axis
    objects[row] = value
  return objects
