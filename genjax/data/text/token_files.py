"""Token folders: a long token stream in shards of ArrayRecord files, with random access.

    index.json the contents of the files below, and their source texts tokens-00000-of-00008.array_record, ...
    tokenizer.json or tokenizer.model, tokenizer_config.json    see `genjax.data.text.tokenizers`; not for bytes

A record holds `RECORD_TOKENS` tokens as little-endian integers; the last record of a shard may hold fewer. `genjax data
tokenize` writes such folders.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
import numpy as np

from genjax.data.text.documents import part_of, place
from genjax.types import UserError, expanded

INDEX = 'index.json'
FORMAT = 1
RECORD_TOKENS = 4096


def is_folder(name: str) -> bool:
  """Returns whether a name refers to a token folder and not to a data set; see `genjax.data.text.documents.place`."""
  return (expanded(name) / INDEX).is_file() and place(name) is not None


class TokenFiles:
  """The tokens of a split of a token folder. `self[positions]` reads the tokens at positions of any shape.

  Args:
    folder: the folder.
    split: 'train' and slices of it, which count tokens: 'train[:90%]', 'train[-100000:]'.

  Attributes:
    index: the contents of index.json.
    bytes_per_token: mean bytes of text per token in the folder.
    checksum: checksum of the tokens and the split.

  Raises:
    UserError: the folder does not exist, files are missing or changed in size, or the split is empty.
  """

  def __init__(self, folder: str | os.PathLike[str], split: str):
    folder = expanded(folder)
    self.index = _read_index(folder)
    shards = self.index['shards']
    paths = [folder / shard['file'] for shard in shards]
    for path, shard in zip(paths, shards):
      if not path.is_file() or path.stat().st_size != shard['file_bytes']:
        raise UserError(
          f'{path} is missing, or its size is not {shard["file_bytes"]} bytes as in {INDEX}; copy the folder again')
    self._dtype = np.dtype(self.index['dtype'])
    self._block = self.index['block']
    self._starts = np.cumsum([0, *(shard['tokens'] for shard in shards)])
    self._records = np.cumsum([0, *(-(-shard['tokens'] // self._block) for shard in shards)])
    self._source = ArrayRecordDataSource([str(path) for path in paths])
    part = part_of(str(folder), split, int(self._starts[-1]), 'tokens')
    self._first, end, _ = part.indices(int(self._starts[-1]))
    self._length = end - self._first
    self.bytes_per_token = self.index['bytes'] / self.index['tokens']
    told = json.dumps([[shard['sha256'] for shard in shards], self._first, end])
    self.checksum = hashlib.sha256(told.encode()).hexdigest()[:16]

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, positions: np.ndarray) -> np.ndarray:
    place = np.asarray(positions) + self._first
    shard = np.searchsorted(self._starts, place, side='right') - 1
    record, offset = np.divmod(place - self._starts[shard], self._block)
    needed, which = np.unique(record + self._records[shard], return_inverse=True)
    blocks = [np.frombuffer(data, self._dtype) for data in self._source.__getitems__(needed.tolist())]
    begins = np.cumsum([0, *(len(block) for block in blocks[:-1])])
    return np.concatenate(blocks)[begins[which.reshape(place.shape)] + offset]


def _read_index(folder: pathlib.Path) -> dict[str, Any]:
  try:
    index = json.loads((folder / INDEX).read_text())
  except (OSError, ValueError) as error:
    raise UserError(
      f'{folder} is not a complete token folder: {error}; `genjax data tokenize --out={folder}` creates or completes '
      'it') from None
  if not isinstance(index, dict) or index.get('format') != FORMAT:
    raise UserError(f'{folder / INDEX} is not of format {FORMAT}: another version wrote it; tokenize the text again')
  return index
