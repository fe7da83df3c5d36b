"""Packed folders: what goes in comes out, bytes do not depend on interruptions, damage is named."""

import json

import numpy as np
import pytest

from genjax.data import packed, splits
from genjax.types import UserError

KEY = {'kind': 'arrays', 'checksum': 'a1', 'options': {'size': [4, 4]}}


def row(number):
  return {'image': bytes([number % 256]) * (10 + number), 'text': f'caption {number}', 'label': number % 3,
          'weight': number / 2, 'tokens': np.full((number % 4 + 1, 2), number, np.float16),
          'mean': np.arange(6, dtype=np.float32).reshape(2, 3) * number}


def write(folder, examples=23, shards=4, key=None, only=None, order=None):
  writer = packed.Writer(folder, shards, key or KEY, examples, {'size': np.arange(2 * 23).reshape(23, 2)})
  for number in order or writer.pending():
    writer.write(number, map(row, writer.rows(number)))
    if only is not None:
      return
  writer.close()


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_come_back(tmp_path):
  write(tmp_path / 'a', examples={'train': 20, 'test': 3})
  reader = packed.Reader(tmp_path / 'a', 'train[5:]+test')
  assert len(reader) == 18
  columns = reader.get(np.array([17, 0, 0]))
  for name in ('image', 'text'):
    assert columns[name].tolist() == [row(number)[name] for number in (22, 5, 5)]
  assert columns['label'].dtype == np.int32 and columns['label'].tolist() == [1, 2, 2]
  assert columns['weight'].dtype == np.float32 and columns['weight'].tolist() == [11, 2.5, 2.5]
  np.testing.assert_array_equal(columns['mean'], np.stack([row(number)['mean'] for number in (22, 5, 5)]))
  assert [tokens.shape for tokens in columns['tokens']] == [(3, 2), (2, 2), (2, 2)]
  assert columns['tokens'][0].dtype == np.float16
  assert reader.index['size'][[17, 0]].tolist() == [[44, 45], [10, 11]]
  assert reader.schema['key'] == KEY and reader.schema['columns']['tokens']['shape'] == [None, 2]
  assert set(packed.Reader(tmp_path / 'a', columns=['text']).get(np.arange(2))) == {'text'}
  part = packed.Reader(tmp_path / 'a', 'test')
  assert part.fingerprint() == {'checksum': reader.schema['checksum'], 'split': 'test',
                                'columns': sorted(row(0)), 'examples': 3}


def test_bytes_depend_on_neither_order_nor_interruption(tmp_path):
  write(tmp_path / 'whole')
  write(tmp_path / 'cut', only=1)
  (tmp_path / 'cut' / 'data-00001-of-00004.array_record.partial').write_bytes(b'half')
  write(tmp_path / 'cut')
  write(tmp_path / 'mixed', order=[2, 0, 3, 1])
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'cut') == contents(tmp_path / 'mixed')
  write(tmp_path / 'cut')  # a finished folder stays as it is
  (tmp_path / 'cut' / 'data-00003-of-00004.array_record').unlink()
  with pytest.raises(UserError, match=r'data-00003-of-00004\.array_record is missing'):
    packed.Reader(tmp_path / 'cut')
  write(tmp_path / 'cut')
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'cut')


def test_shares_of_processes_are_all_shards(tmp_path):
  writer = packed.Writer(tmp_path / 'a', 5, KEY, 23)
  assert writer.pending(0, 2) == [0, 2, 4] and writer.pending(1, 2) == [1, 3]
  writer.write(2, map(row, writer.rows(2)))
  assert writer.pending(0, 2) == [0, 4]
  with pytest.raises(UserError, match='4 of 5 shards are missing, the first is data-00000'):
    writer.close()
  assert [list(writer.rows(number))[0] for number in range(5)] == [0, 4, 9, 13, 18]


def test_a_damaged_shard_is_named(tmp_path):
  write(tmp_path / 'a')
  path = tmp_path / 'a' / 'data-00002-of-00004.array_record'
  data = bytearray(path.read_bytes())
  damaged = bytearray(data)
  for place in range(64, 400):
    damaged[place] ^= 0x55
  path.write_bytes(damaged)
  reader = packed.Reader(tmp_path / 'a')
  assert reader.get(np.array([0]))['label'] == 0
  with pytest.raises(UserError, match=r'data-00002-of-00004\.array_record is damaged .*remove this file'):
    reader.get(np.arange(23))
  path.write_bytes(data[:100])
  with pytest.raises(UserError, match=r'data-00002-of-00004\.array_record is missing, or its size'):
    packed.Reader(tmp_path / 'a')
  path.write_bytes(bytes(len(data)))
  with pytest.raises(UserError, match=r'data-00002-of-00004\.array_record is damaged'):
    packed.Reader(tmp_path / 'a').get(np.arange(23))


def test_refusals(tmp_path):
  write(tmp_path / 'a', only=1)
  with pytest.raises(UserError, match='a is incomplete: run the command'):
    packed.Reader(tmp_path / 'a')
  with pytest.raises(UserError, match=r"holds other data: key\.checksum was a1 and is b2"):
    packed.Writer(tmp_path / 'a', 4, {**KEY, 'checksum': 'b2'}, 23)
  with pytest.raises(UserError, match='count was 4 and is 3'):
    packed.Writer(tmp_path / 'a', 3, KEY, 23)
  with pytest.raises(UserError, match='from 1 to that of the examples, 3, got 4'):
    packed.Writer(tmp_path / 'b', 4, KEY, 3)
  (tmp_path / 'c').mkdir()
  (tmp_path / 'c' / 'notes').write_text('mine')
  with pytest.raises(UserError, match='c exists and holds no packed data'):
    packed.Writer(tmp_path / 'c', 1, KEY, 3)
  writer = packed.Writer(tmp_path / 'd', 1, KEY, 2)
  with pytest.raises(UserError, match='must get 2 examples, got 1'):
    writer.write(0, [row(0)])
  with pytest.raises(UserError, match='all examples must have the same columns'):
    writer.write(0, [row(0), {'text': 'alone'}])
  with pytest.raises(UserError, match="column 'text' has values of two kinds"):
    writer.write(0, [{'text': 'alone'}, {'text': 3}])
  write(tmp_path / 'e')
  with pytest.raises(UserError, match="no column 'depth'; it has image"):
    packed.Reader(tmp_path / 'e', columns=['depth'])
  schema = json.loads((tmp_path / 'e' / 'schema.json').read_text())
  (tmp_path / 'e' / 'schema.json').write_text(json.dumps({**schema, 'format': 9}))
  with pytest.raises(UserError, match='has format 9, and this version of genjax reads 1'):
    packed.Reader(tmp_path / 'e')


@pytest.mark.parametrize(('split', 'rows'), [
  ('train', range(10)), ('train[:90%]', range(9)), ('train[-3:]', [7, 8, 9]), ('test+train[:1]', [10, 11, 12, 13, 0]),
  ('train[-25%:]', [7, 8, 9]), ('train[2:4]+test[50%:]', [2, 3, 12, 13])])
def test_splits(split, rows):
  assert splits.select('x', split, {'train': 10, 'test': 4}).tolist() == list(rows)


@pytest.mark.parametrize(('split', 'message'), [
  ('valid', r"x has no split 'valid'; it has train \(10\), test \(4\)"), ('train[a:]', 'has no split'),
  ('train[10:]', r"split 'train\[10:\]' of x has no examples")])
def test_bad_splits(split, message):
  with pytest.raises(UserError, match=message):
    splits.select('x', split, {'train': 10, 'test': 4})
