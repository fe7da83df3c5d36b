"""Writes documents as a token folder, shard by shard, and can resume after an interruption; see `token_files`."""

from collections.abc import Iterator, Sequence
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
import tqdm

from genjax.data.text import documents, token_files
from genjax.data.text.tokenizers import Tokenizer
from genjax.data.text.windows import ByteVocabulary
from genjax.types import StorageError, UserError, listed, strict_json

_CHUNK = 256  # documents that are encoded at a time, on all cores
_STATE = 'unfinished.json'  # the settings of an unfinished folder; deleted at the end


def tokenize(paths: Sequence[pathlib.Path], vocabulary: Tokenizer | ByteVocabulary, out: pathlib.Path, shards: int,
             field: str = 'text', end: int | None = None) -> dict[str, Any]:
  """Writes the tokens of documents, each followed by the token `end`, to a folder. Returns its index.

  A call after an interruption continues with the first unfinished shard. The result equals that of an uninterrupted
  call.

  Args:
    paths: files of documents, see `genjax.data.text.documents.read`.
    vocabulary: the tokenizer.
    out: the folder.
    shards: number of files with about equally many documents.
    field: the JSON field with the text.
    end: by default the tokenizer's end-of-text token.

  Raises:
    UserError: arguments or texts are invalid; or `out` has tokens of other texts or of another tokenizer.
    StorageError: the folder cannot be written.
  """
  end = vocabulary.special.get('eos') if end is None else end
  if end is None:
    raise UserError(
      'this tokenizer has no end-of-text token; choose the token that ends a document: --end=NUMBER, e.g. for bytes '
      '--end=0')
  if not 0 <= end < vocabulary.size:
    raise UserError(f'--end must be a token from 0 to {vocabulary.size - 1}, got {end}')
  counts = [documents.count(path) for path in paths]
  total = sum(counts)
  if not total:
    raise UserError(
      f'there is no text to tokenize: {listed([str(path) for path in paths], 4)} {"are" if len(paths) > 1 else "is"} '
      'empty')
  if not 1 <= shards <= total:
    raise UserError(f'--shards must be from 1 to the number of documents, {total}, got {shards}')
  files = {} if isinstance(vocabulary, ByteVocabulary) else vocabulary.files()
  plan = {
    'format': token_files.FORMAT, 'block': token_files.RECORD_TOKENS,
    'dtype': np.min_scalar_type(vocabulary.size - 1).newbyteorder('<').str, 'vocabulary_size': vocabulary.size,
    'end': end, 'tokenizer': identity(vocabulary), 'field': field, 'documents': total,
    'input': [[path.name, path.stat().st_size, count] for path, count in zip(paths, counts)]
  }
  if (out / token_files.INDEX).is_file():
    _check_same(out / token_files.INDEX, plan, shards)
  elif (out / _STATE).is_file():
    if any(out.glob('tokens-*.json')):  # only finished shards must match
      _check_same(out / _STATE, plan, shards)
    for path in out.glob('*.partial'):
      path.unlink()
  elif out.exists() and (not out.is_dir()
                         or any(path.suffix != '.partial' and not path.name.startswith('.') for path in out.iterdir())):
    raise UserError(f'{out} exists and is not a token folder; choose a new folder')
  try:
    if not (out / token_files.INDEX).is_file():
      out.mkdir(parents=True, exist_ok=True)
      _write(out / _STATE, {**plan, 'shards': shards})
      for name, data in files.items():
        (out / name).write_bytes(data)
      done = _write_shards(paths, counts, vocabulary, out, shards, plan)
      sums = {name: sum(shard[name] for shard in done) for name in ('tokens', 'bytes')}
      _write(out / token_files.INDEX, {**plan, **sums, 'shards': done})
    for path in (out / _STATE, *(_note(out, number, shards) for number in range(shards))):
      path.unlink(missing_ok=True)
  except OSError as error:
    raise StorageError(
      f'{out} could not be written: {error}. Make room, or make it writable, and run the same command to go on'
    ) from error
  return json.loads((out / token_files.INDEX).read_text())


def identity(vocabulary: Any) -> str:
  """An identification of a tokenizer: 'byte', or the checksum of the file with its pieces."""
  if isinstance(vocabulary, ByteVocabulary):
    return 'byte'
  return hashlib.sha256(next(iter(vocabulary.files().values()))).hexdigest()


def _write_shards(paths: Sequence[pathlib.Path], counts: Sequence[int], vocabulary: Tokenizer | ByteVocabulary,
                  out: pathlib.Path, shards: int, plan: dict[str, Any]) -> list[dict[str, Any]]:
  total, done = plan['documents'], []
  texts, place = iter(()), -1  # one pass over the files, which restarts after skipped (finished) shards
  with tqdm.tqdm(total=total, unit='document', desc=f'tokenizing {out}', smoothing=0.0) as bar:
    for number in range(shards):
      first, last = total * number // shards, total * (number + 1) // shards
      note, path = _note(out, number, shards), out / _name(number, shards)
      if note.is_file() and path.is_file():
        bar.update(last - first)
        bar.initial += last - first  # skipped documents must not count in the rate
      else:
        texts = texts if place == first else _from(paths, counts, first, plan['field'])
        _write(note, _write_shard(itertools.islice(texts, last - first), vocabulary, path, plan, bar))
        place = last
      done.append(json.loads(note.read_text()))
  return done


def _write_shard(texts: Iterator[str], vocabulary: Tokenizer | ByteVocabulary, path: pathlib.Path, plan: dict[str, Any],
                 bar: Any) -> dict[str, Any]:
  """Writes one shard, renamed when complete. Returns its entry in the index."""
  partial = path.with_name(f'{path.name}.partial')
  writer = ArrayRecordWriter(str(partial), 'group_size:1')
  dtype, block, size = np.dtype(plan['dtype']), plan['block'], 0
  rest_T, tokens, digest = np.zeros(0, dtype), 0, hashlib.sha256()
  while chunk := list(itertools.islice(texts, _CHUNK)):
    encoded = [vocabulary.encode(text) for text in chunk] if isinstance(
      vocabulary, ByteVocabulary) else vocabulary.encode_all(chunk)
    size += sum(len(text.encode()) for text in chunk)
    ending_1 = np.asarray([plan['end']], dtype)
    stream_T = np.concatenate([rest_T, *(part.astype(dtype) for tokens_T in encoded for part in (tokens_T, ending_1))])
    whole = len(stream_T) // block * block
    for start in range(0, whole, block):
      writer.write(stream_T[start:start + block].tobytes())
    digest.update(stream_T[:whole].tobytes())
    rest_T, tokens = stream_T[whole:], tokens + whole
    bar.update(len(chunk))
  if len(rest_T):
    writer.write(rest_T.tobytes())
    digest.update(rest_T.tobytes())
  writer.close()
  partial.replace(path)
  return {
    'file': path.name, 'tokens': tokens + len(rest_T), 'bytes': size, 'file_bytes': path.stat().st_size,
    'sha256': digest.hexdigest()
  }


def _from(paths: Sequence[pathlib.Path], counts: Sequence[int], first: int, field: str) -> Iterator[str]:
  """Yields the documents of all files from number `first` on."""
  start = 0
  for path, count in zip(paths, counts):
    if start + count > first:
      yield from documents.read(path, field, max(0, first - start))
    start += count


def _check_same(path: pathlib.Path, plan: dict[str, Any], shards: int) -> None:
  try:
    known = json.loads(path.read_text())
  except ValueError:
    raise UserError(f'{path} is damaged; remove the folder {path.parent} and tokenize again') from None
  known['shards'] = known['shards'] if isinstance(known['shards'], int) else len(known['shards'])
  different = [f'{name} was {known.get(name)!r} and is {value!r}' for name, value in {**plan, 'shards': shards}.items()
               if known.get(name) != json.loads(json.dumps(value))]
  if different:
    raise UserError(
      f'{path.parent} has other settings: {"; ".join(different)}. Choose another --out, or remove that folder')


def _name(number: int, shards: int) -> str:
  return f'tokens-{number:05d}-of-{shards:05d}.array_record'


def _note(out: pathlib.Path, number: int, shards: int) -> pathlib.Path:
  """The path of the entry of a finished shard, until all are finished."""
  return out / f'{_name(number, shards)}.json'


def _write(path: pathlib.Path, value: Any) -> None:
  """Writes JSON atomically."""
  partial = path.with_name(f'{path.name}.partial')
  with open(partial, 'w') as file:
    file.write(strict_json(value, indent=2) + '\n')
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
