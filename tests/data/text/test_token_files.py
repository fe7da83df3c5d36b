"""Folders of tokens: the stream is that of the documents, whatever the shards, and a killed call goes on to the same
bytes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from genjax.cli.main import main
from genjax.data.text import documents, token_files, tokenizers
from genjax.data.text.token_files import TokenFiles
from genjax.data.text.tokenization import tokenize
from genjax.data.text.windows import ByteVocabulary, Windows
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent.parent


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  """Files of documents, and these; records of 8 tokens, so that windows cross them."""
  monkeypatch.setattr(token_files, 'RECORD_TOKENS', 8)
  texts = [f'document {number} ' + 'ab cd ' * (number % 5) for number in range(23)]
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts[:-1]))
  (tmp_path / 'b.txt').write_text(texts[-1])
  return [tmp_path / 'a.jsonl', tmp_path / 'b.txt'], texts


@pytest.mark.parametrize('shards', [1, 3, 23])
def test_stream_and_windows(corpus, tmp_path, shards):
  paths, texts = corpus
  bpe = tokenizers.train('bpe', texts, 270)
  index = tokenize(paths, bpe, tmp_path / 'out', shards)
  stream = np.concatenate([np.append(bpe.encode(text), 0) for text in texts])
  assert index['tokens'] == len(stream) and index['documents'] == 23 and index['bytes'] == sum(map(len, texts))
  assert set(contents(tmp_path / 'out')) == {
    'index.json', 'tokenizer.json', 'tokenizer_config.json', *(s['file'] for s in index['shards'])
  }
  tokens = TokenFiles(tmp_path / 'out', 'train')
  assert tokens.bytes_per_token == index['bytes'] / len(stream)
  np.testing.assert_array_equal(tokens[np.arange(len(stream))], stream)
  # The second part of the stream, in windows of every place, read in any order.
  late = TokenFiles(tmp_path / 'out', 'train[50%:]')
  there = Windows(late, 11, 1, end=0)
  here = Windows(stream[len(stream) // 2:], 11, 1, end=0)
  order = np.random.default_rng(0).permutation(len(here))
  assert len(there) == len(here) and there.fingerprint()['checksum'] != Windows(tokens, 11).fingerprint()['checksum']
  for name, column in here.get(order).items():
    np.testing.assert_array_equal(there.get(order)[name], column)
  assert tokenizers.open_tokenizer(tmp_path / 'out').encode('ab').tolist() == bpe.encode('ab').tolist()


def test_segments_tell_documents_apart():
  columns = Windows(np.array([5, 6, 0, 7, 0, 0, 8, 9]), length=7, end=0).get(np.array([0]))
  assert columns['segments'].tolist() == [[0, 0, 0, 1, 1, 2, 3, 3]]
  assert columns['weights'].tolist() == [[1, 1, 0, 1, 0, 0, 1]]  # no target begins another document than its input's
  assert columns['segments'].dtype == np.int32 and columns['weights'].dtype == np.float32


def test_interrupted_call_goes_on_and_ends_in_the_same_bytes(corpus, tmp_path, monkeypatch):
  paths, _ = corpus
  tokenize(paths, ByteVocabulary(), tmp_path / 'whole', 5, end=0)
  read = documents.read

  def failing(path, field, first):
    for number, text in enumerate(read(path, field, first)):
      if first + number == 11:
        raise KeyboardInterrupt
      yield text

  monkeypatch.setattr(documents, 'read', failing)
  with pytest.raises(KeyboardInterrupt):
    tokenize(paths, ByteVocabulary(), tmp_path / 'broken', 5, end=0)
  times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'broken').glob('*.array_record')}
  assert len(times) == 2
  with pytest.raises(UserError, match='shards was 5 and is 4'):
    tokenize(paths, ByteVocabulary(), tmp_path / 'broken', 4, end=0)
  with pytest.raises(UserError, match='not a complete token folder'):
    TokenFiles(tmp_path / 'broken', 'train')
  begun = []
  monkeypatch.setattr(documents, 'read', lambda path, field, first: begun.append(
    (path.name, first)) or read(path, field, first))
  tokenize(paths, ByteVocabulary(), tmp_path / 'broken', 5, end=0)
  assert begun == [('a.jsonl', 9), ('b.txt', 0)]  # one pass over what is left
  assert contents(tmp_path / 'broken') == contents(tmp_path / 'whole')
  assert {path: path.stat().st_mtime_ns for path in times} == times  # finished shards are not written again
  assert tokenize(paths, ByteVocabulary(), tmp_path / 'broken', 5, end=0)['documents'] == 23


def test_killed_command_goes_on(tmp_path):
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'text': f'{number} ' * 400}) + '\n' for number in range(4000)))
  argv = ['data', 'tokenize', f'--input={tmp_path}/*.jsonl', '--tokenizer=byte', '--end=0', '--shards=200']
  process = subprocess.Popen([sys.executable, '-m', 'genjax.cli.main', *argv, f'--out={tmp_path / "killed"}'], cwd=ROOT,
                             stderr=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': str(ROOT)})
  deadline = time.monotonic() + 60
  while not list(
    (tmp_path / 'killed').glob('*.json')) or not (tmp_path / 'killed' / 'tokens-00002-of-00200.array_record').exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.001)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (tmp_path / 'killed' / 'index.json').exists()
  assert main([*argv, f'--out={tmp_path / "killed"}']) == 0 and main([*argv, f'--out={tmp_path / "whole"}']) == 0
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')


def test_what_is_refused(corpus, tmp_path, capsys):
  paths, _ = corpus
  for options, words in (({'end': None}, 'no end-of-text token'), ({'end': 256}, '0 to 255'),
                         ({'shards': 24}, 'documents, 23, got 24'), ({'field': 'body'}, "text 'body'")):
    with pytest.raises(UserError, match=words):
      tokenize(paths, ByteVocabulary(), tmp_path / 'out', **{'shards': 2, 'end': 0, **options})
  tokenize(paths, ByteVocabulary(), tmp_path / 'out', 2, end=0)  # a failed call does not stand in the way
  record = next((tmp_path / 'out').glob('*.array_record'))
  record.write_bytes(record.read_bytes()[:-1])
  with pytest.raises(UserError, match=f'{record.name} is missing, or its size is not'):
    TokenFiles(tmp_path / 'out', 'train')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'x').write_text('')
  assert main(['data', 'tokenize', f'--input={paths[0]}', '--tokenizer=byte', '--end=0',
               f'--out={tmp_path / "full"}']) == 2
  assert main(['data', 'tokenize', '--input=nothing', '--tokenizer=byte', '--end=0', f'--out={tmp_path / "new"}']) == 2
  (tmp_path / 'file').write_text('')
  assert main(
    ['data', 'tokenize', f'--input={paths[0]}', '--tokenizer=byte', '--end=0', f'--out={tmp_path / "file" / "x"}']) == 2
  said = capsys.readouterr().err
  assert 'cannot be written' in said
  assert 'is not a token folder' in said and '--input=nothing' in said
