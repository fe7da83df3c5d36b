"""Documents by path: JSON lines, compressed files, folders and patterns."""

import gzip
import json

import pytest

from genjax.data import documents
from genjax.data.documents import open_documents
from genjax.types import UserError


@pytest.fixture
def folder(tmp_path):
  lines = ''.join(json.dumps({'text': f'doc {number}', 'title': str(number)}) + '\n' for number in range(6))
  (tmp_path / 'books' / 'deep').mkdir(parents=True)
  (tmp_path / 'books' / 'a.jsonl').write_text(lines + '\n')
  (tmp_path / 'books' / 'b.txt.gz').write_bytes(gzip.compress('naïve\r\n'.encode()))
  (tmp_path / 'books' / 'deep' / 'c.jsonl.gz').write_bytes(gzip.compress(b'{"text": "last"}'))
  (tmp_path / 'books' / 'notes.md').write_text('not read')
  return tmp_path / 'books'


def test_folders_patterns_and_fields(folder):
  first = [f'doc {number}' for number in range(6)]
  assert open_documents(str(folder), 'train') == [*first, 'naïve\r\n', 'last']
  assert open_documents(f'{folder}/**/*.jsonl*', 'train') == [*first, 'last']
  assert open_documents(str(folder / 'a.jsonl'), 'train[50%:]') == first[3:]
  assert open_documents(str(folder / 'a.jsonl'), 'train[:2]', field='title') == ['0', '1']
  assert open_documents(str(folder / 'b.txt.gz'), 'train[:2]') == ['na']  # one document: characters
  for path in documents.find(str(folder)):
    assert documents.count(path) == len(list(documents.read(path)))


def test_what_cannot_be_read(folder, tmp_path):
  with pytest.raises(UserError, match=r"a.jsonl, line 1: .* text 'body', got \['text', 'title'\]"):
    open_documents(str(folder / 'a.jsonl'), 'train', field='body')
  (folder / 'a.jsonl').write_text('{"text": "x"}\n{"text": ')
  with pytest.raises(UserError, match='line 2: expected a JSON object'):
    open_documents(str(folder / 'a.jsonl'), 'train')
  (folder / 'b.txt.gz').write_bytes(gzip.compress(b'abc' * 100)[:-9])
  for read in (lambda path: list(documents.read(path)), lambda path: open_documents(str(path), 'train')):
    with pytest.raises(UserError, match='cannot read'):
      read(folder / 'b.txt.gz')
  with pytest.raises(UserError, match='no file is called'):
    open_documents(f'{folder}/*.parquet', 'train')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='has no files that end in'):
    open_documents(str(tmp_path / 'empty'), 'train')
  with pytest.raises(UserError, match='is empty'):
    open_documents(str(folder / 'deep'), 'train[:0]')
