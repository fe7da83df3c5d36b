"""Documents by path: JSON lines, compressed files, folders and patterns."""

import gzip
import json

import pytest

from genjax.data.text import documents, token_files
from genjax.data.text.documents import open_documents
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
  with pytest.raises(UserError, match='no file matches'):
    open_documents(f'{folder}/*.parquet', 'train')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='has no files that end in'):
    open_documents(str(tmp_path / 'empty'), 'train')
  with pytest.raises(UserError, match='is empty'):
    open_documents(str(folder / 'deep'), 'train[:0]')


def test_marks_line_ends_and_other_separators(tmp_path):
  """A byte order mark is no text; line ends are, and in JSON lines only newlines end a document."""
  bom, inside = b'\xef\xbb\xbf', 'a\u2028b\x85c\x0bd\x0ce\x1cf'
  (tmp_path / 'mark.txt').write_bytes(bom + b'a\r\nb\n')
  assert open_documents(str(tmp_path / 'mark.txt'), 'train') == ['a\r\nb\n']
  (tmp_path / 'mark.jsonl').write_bytes(bom + f'{{"text": "{inside[:3]}"}}\r\n\r\n{{"text": "z"}}\r\n'.encode())
  assert open_documents(str(tmp_path / 'mark.jsonl'), 'train') == [inside[:3], 'z']
  (tmp_path / 'only.jsonl').write_bytes(bom + b'\n{"text": "z"}')
  (tmp_path / 'inside.txt').write_text(inside)
  assert open_documents(str(tmp_path / 'inside.txt'), 'train') == [inside]
  for path in documents.find(str(tmp_path)):
    assert documents.count(path) == len(list(documents.read(path)))


@pytest.mark.parametrize(
  ('name', 'data', 'words'),
  [('a.jsonl', b'{"text": "x"}\n\n{"text": "\\ud83d"}\n', r'a\.jsonl, line 3: character 1 of the text .*surrogate'),
   ('a.jsonl', b'{"text": "x"}\n{"text": "\xff"}\n', r'a\.jsonl, line 2: '),
   ('a.jsonl', b'{"text": "x"}\n' + b'[' * 100_000, r'a\.jsonl, line 2: expected a JSON object'),
   ('a.txt', b'x\n\ny\xed\xa0\x80\n', r'a\.txt, line 3: expected UTF-8'),
   ('a.txt', 'x\n'.encode('utf-16'), r'a\.txt, line 1: expected UTF-8 .*UTF-16'),
   ('a.jsonl.gz', gzip.compress(b'{"text": "x"}\n' * 9)[:-9], r'cannot read .*a\.jsonl\.gz after line '),
   ('a.txt.gz', gzip.compress(b'abc' * 99)[:12] + b'\xff' * 99, r'cannot read .*a\.txt\.gz'),
   ('a.txt.gz', b'abc', r'cannot read .*a\.txt\.gz.*[Nn]ot a gzip'), ('a.txt', b'', 'has no text'),
   ('a.txt', b'\xef\xbb\xbf', 'has no text'), ('a.jsonl', b'\n \n', 'has no text'),
   ('a.json', b'[{"text": "x"}]', r'a\.json: genjax reads plain text, .*\.jsonl or'),
   ('a.JSON.gz', gzip.compress(b'{}'), r'\.jsonl or'), ('a.json5', b'{}', r'\.jsonl or'),
   ('a.ldjson', b'{}', r'\.jsonl or'), ('a.jsonl~', b'{}', r'\.jsonl or'),
   ('a.jsonl.tmp', b'{}', r'\.jsonl or'), ('a.ipynb', b'{}', r'\.jsonl or'),
   ('a.txt', gzip.compress(b'x'), r'a\.txt is compressed by gzip.*rename it'),
   ('a.tar.gz', gzip.compress(b'x' * 600), r'\.jsonl or'),
   ('a.jsonl.zst', b'(\xb5/\xfd', r'\.jsonl or')], ids=lambda value: value
  if isinstance(value, str) and len(value) < 12 else '')
def test_bad_text_names_its_file_and_line(tmp_path, name, data, words):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(UserError, match=words):
    open_documents(str(tmp_path / name), 'train')


@pytest.mark.parametrize('name', ['a.JSONL', 'a.ndjson', 'a.Jsonl.GZ', 'a.jsonlines', 'a.NDJSON.gz'])
def test_other_spellings_of_json_lines(tmp_path, name):
  data = b'{"text": "x"}\n{"text": "y"}\n'
  (tmp_path / name).write_bytes(gzip.compress(data) if name.lower().endswith('.gz') else data)
  for path in (tmp_path / name, tmp_path):
    assert open_documents(str(path), 'train') == ['x', 'y']


def test_hidden_and_empty_files_are_no_documents(tmp_path):
  root = tmp_path / '.cache' / 'books.v2'  # that the folder is hidden itself is meant
  (root / '.ipynb_checkpoints').mkdir(parents=True)
  for name in ('a.txt', 'empty.txt', '.b.txt', '._a.txt', '.DS_Store', '.ipynb_checkpoints/a-checkpoint.txt'):
    (root / name).write_text('' if name == 'empty.txt' else name)
  assert open_documents(str(root), 'train') == ['a.txt']
  assert open_documents(f'{root}/**/*.txt', 'train') == ['a.txt']
  assert [documents.count(path) for path in documents.find(str(root))] == [1, 0]


def test_a_folder_called_like_a_data_set_does_not_hide_it(tmp_path, monkeypatch, capsys):
  """Such as that of the run that was trained on it, with its samples."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  for name in ('names', 'glue', 'mine'):
    (tmp_path / name / 'samples').mkdir(parents=True)
    (tmp_path / name / 'samples' / '1.txt').write_text(name)
    (tmp_path / name / 'index.json').write_text('{}')
  assert documents.find('names') is None and documents.find('names:1.0.0') is None and documents.find(
    'glue/cola') is None
  assert './names' in capsys.readouterr().err
  assert not token_files.is_folder('names') and token_files.is_folder('./names') and token_files.is_folder('mine')
  for path in ('./names', 'names/samples', 'names/*/*.txt', str(tmp_path / 'names'), '~/names'):
    assert open_documents(path, 'train') == ['names']
  assert open_documents('mine', 'train') == ['mine']
  for name in ('glue/sst2/2.0.0', 'wikipedia/20230601.en'):  # as in the folder of prepared data sets
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / '1.txt').write_text('hidden')
  assert documents.find('glue/sst2') is None and documents.find('wikipedia/20230601.en') is None
  assert open_documents('./glue/sst2', 'train') == ['hidden']
  (tmp_path / 'mnist').write_text('x')
  assert documents.find('mnist') is None
  assert documents.find('wikipedia/20220301.en:1.0.0') is None  # dots do not make a path of it
  with pytest.raises(UserError, match='does not exist'):
    documents.find('corpus.txt')
  assert documents.find('a' * 300) is None
  with pytest.raises(UserError, match='does not exist'):
    documents.find(f'{"a" * 300}.txt')


@pytest.mark.parametrize('name', ['a b', 'run@5', 'books.v2', 'Bücher 日本', "it's"])
def test_any_name_of_a_folder(tmp_path, monkeypatch, name):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / name).mkdir()
  (tmp_path / name / 'a.txt').write_text('text')
  for path in (tmp_path / name, tmp_path / name / 'a.txt', f'~/{name}', f'~/{name}/*.txt'):
    assert open_documents(str(path), 'train') == ['text']
