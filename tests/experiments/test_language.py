"""The builder of language models: vocabularies of every kind, bits per byte, folders of tokens."""

import json

import jax
import numpy as np
import pytest
import tokenizers as tokenizers_library

from genjax.configs.language import shakespeare_bpe
from genjax.data.text import tokenizers
from genjax.data.text.tokenization import tokenize
from genjax.experiments import language
from genjax.objectives.base import Context
from genjax.types import UserError

TEXT = 'Now is the winter of our discontent\nMade glorious summer by this sun of York;\n' * 8


@pytest.fixture
def config(tmp_path):
  """Text of a file, the last quarter held out, in bytes; an override is a keyword."""
  (tmp_path / 'text.txt').write_text(TEXT)

  def make(**data):
    made = shakespeare_bpe.get_config('smoke')
    made.data.update({
      'name': str(tmp_path / 'text.txt'), 'train': 'train[:75%]', 'heldout': 'train[75%:]', 'vocabulary_size': 0, **data
    })
    return made.lock()

  return make


def keep(config, experiment, folder):
  """The config as that of a run whose directory is `folder`."""
  folder.mkdir()
  for name, data in experiment.files.items():
    (folder / name).write_bytes(data)
  with config.unlocked():
    config.assets = {**experiment.assets, **({'folder': str(folder)} if experiment.files else {})}
  return config


@pytest.mark.parametrize(('vocabulary', 'size'), [('byte', 0), ('char', 0), ('bpe', 280), ('wordpiece', 60)])
def test_bits_per_byte_count_the_bytes_of_the_held_out_text(config, vocabulary, size, tmp_path):
  made = config(vocabulary=vocabulary, vocabulary_size=size, start='Now')
  experiment = language.build(made)
  part = TEXT[len(TEXT) * 75 // 100:]
  tokens = len(experiment.heldout.source.tokens)
  assert experiment.objective.bytes_per_token == pytest.approx(len(part) / tokens)
  # Without the text, what the run keeps gives the same.
  (tmp_path / 'text.txt').unlink()
  again = language.build(keep(made, experiment, tmp_path / 'run'))
  assert again.objective.bytes_per_token == experiment.objective.bytes_per_token and again.files == experiment.files
  prompt = experiment.conditions['prompt']
  assert again.conditions['prompt'].parse('Now is').tolist() == prompt.parse('Now is').tolist()
  assert again.render({'tokens': np.stack([prompt.parse('Now is')])})['samples'] == 'Now is'


def test_bits_per_byte_follow_the_held_out_text(config, tmp_path):
  made = config(vocabulary='bpe', vocabulary_size=280)
  made = keep(made, language.build(made), tmp_path / 'run')
  (tmp_path / 'other.txt').write_text('zzzz' * 99)  # a token a byte
  with made.unlocked():
    made.data.name, made.data.heldout = str(tmp_path / 'other.txt'), 'train'
  assert language.build(made).objective.bytes_per_token == 1


def test_a_kept_tokenizer_belongs_to_its_vocabulary(config, tmp_path):
  made = config(vocabulary='bpe', vocabulary_size=280)
  made = keep(made, language.build(made), tmp_path / 'run')
  with made.unlocked():
    made.data.update(vocabulary='wordpiece', vocabulary_size=60, start='Now')
  assert b'WordPiece' in language.build(made).files['tokenizer.json']


def test_folder_of_tokens(config, tmp_path):
  bpe = tokenizers.train('bpe', [TEXT], 280)
  texts = TEXT.splitlines()
  (tmp_path / 'lines.jsonl').write_text(''.join(json.dumps({'text': line}) + '\n' for line in texts))
  out = str(tmp_path / 'out')
  index = tokenize([tmp_path / 'lines.jsonl'], bpe, tmp_path / 'out', 2)
  experiment = language.build(config(name=out, vocabulary=out, segments=True))
  assert experiment.objective.bytes_per_token == pytest.approx(index['bytes'] / index['tokens'])
  batch = experiment.train.batch(0)
  assert {name: column.shape[1:] for name, column in batch.items()
         } == {name: row.shape for name, row in experiment.example.items()}
  assert set(batch) == {'tokens', 'segments', 'weights'} and (batch['weights'] == 0).any()
  # The same stream from the file itself.
  other = language.build(
    config(name=str(tmp_path / 'lines.jsonl'), vocabulary=out, separator='<|endoftext|>', train='train'))
  whole = language.build(config(name=out, vocabulary=out, train='train')).train.source.tokens
  np.testing.assert_array_equal(other.train.source.tokens, whole[np.arange(len(whole) - 1)])
  for wrong in ('byte', 'char', 'bpe'):
    with pytest.raises(UserError, match='from another tokenizer'):
      language.build(config(name=out, vocabulary=wrong, vocabulary_size=0)).train.batch(0)


def test_what_is_refused(config, tmp_path):
  refused = (({'vocabulary': 'bpf'}, "'bpe'"), ({'vocabulary': 'absent/tokenizer.json'}, 'cannot read the tokenizer'),
             ({'vocabulary': 'bpe', 'vocabulary_size': 9}, 'at least 257'), ({
               'vocabulary': 'byte', 'vocabulary_size': 255
             }, 'has 256 tokens'), ({'vocabulary': 'wordpiece', 'vocabulary_size': 60}, 'config.data.start'), ({
               'vocabulary': 'byte', 'segments': True
             }, 'needs an end-of-text token'), ({'name': '', 'vocabulary': 'char'}, 'no data'))
  for data, words in refused:
    with pytest.raises(UserError, match=words):
      language.build(config(**data))
  made = config(vocabulary='byte')
  with made.unlocked():
    made.model.context = 8
  with pytest.raises(UserError, match='at most the 8 tokens of config.model.context, got 16'):
    language.build(made)


def test_a_document_a_row(config, tmp_path):
  lines = [{'text': 'ab'}, {'text': ''}, {'text': 'cab'}, {'text': 'b'}]
  (tmp_path / 'names.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  rows = {
    'name': str(tmp_path / 'names.jsonl'), 'train': 'train[:3]', 'heldout': 'train[3:]', 'vocabulary': 'char',
    'separator': '\n', 'context': 5, 'start': '\n'
  }

  def build(**data):
    made = config(**{**rows, **data})
    with made.unlocked():
      made.data.rows = True
    return language.build(made)

  experiment = build()
  columns = experiment.train.source.columns
  assert columns['tokens'].tolist() == [[0, 1, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 3, 1, 2, 0, 0]]
  assert columns['weights'].tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
  assert {name: (value.shape, value.dtype) for name, value in experiment.example.items()} == {
    name: (value.shape[1:], value.dtype) for name, value in columns.items()}
  assert experiment.heldout.source.columns['tokens'].tolist() == [[0, 2, 0, 0, 0, 0]]
  with pytest.raises(UserError, match='needs config.data.context=4, got 3'):
    len(build(context=3).train.source)
  with pytest.raises(UserError, match="a config.data.separator of one token and no segments, got '' with 0 tokens"):
    len(build(separator='', start='a').train.source)


def test_numbers_of_tokens_have_no_bytes_but_those_of_a_folder(config, tmp_path):
  np.save(tmp_path / 'tokens.npy', np.arange(400) % 60)
  numbers = language.build(config(name=str(tmp_path / 'tokens.npy'), vocabulary='ids', vocabulary_size=60, start='1'))
  assert numbers.objective.bytes_per_token is None
  (tmp_path / 'lines.jsonl').write_text(''.join(json.dumps({'text': line}) + '\n' for line in TEXT.split('\n')))
  index = tokenize([tmp_path / 'lines.jsonl'], tokenizers.train('bpe', [TEXT], 280), tmp_path / 'out', 1)
  known = language.build(config(name=str(tmp_path / 'out'), vocabulary='ids', vocabulary_size=280, start='1'))
  assert known.objective.bytes_per_token == pytest.approx(index['bytes'] / index['tokens'])


def test_a_padded_vocabulary_is_sampled_without_its_padding(config):
  """Bytes have no text beyond 255: sampling such tokens would fail when they are shown."""
  made = config(vocabulary='byte', vocabulary_size=1024)
  experiment = language.build(made)
  params = experiment.objective.init(jax.random.key(0), {}).params
  prompts = np.stack([experiment.conditions['prompt'].parse('Now')] * 4)
  rows = jax.jit(experiment.objective.sample)(
    params, Context(step=0, mutable={}, ema={}, frozen={}), jax.random.split(jax.random.key(1), 4), {'prompt': prompts})
  assert rows['tokens'].max() < 256 and experiment.render(jax.device_get(rows))['samples'].startswith('Now')


def test_gaps_in_a_vocabulary_are_not_sampled(config, tmp_path):
  """A tokenizer.json may leave numbers out."""
  library = tokenizers_library.Tokenizer(tokenizers_library.models.WordLevel({'the': 0, 'winter': 5}, unk_token='the'))
  library.pre_tokenizer = tokenizers_library.pre_tokenizers.Whitespace()
  library.save(str(tmp_path / 'tokenizer.json'))
  made = config(vocabulary=str(tmp_path / 'tokenizer.json'), vocabulary_size=8, start='winter')
  sampler = language.build(made).objective.sampler
  assert sampler.vocabulary == 6 and sampler.suppress == (1, 2, 3, 4)


@pytest.mark.parametrize('name', ['a b', 'run@5', 'tok.v2', 'Wörter 日本'])
def test_paths_of_text_and_tokenizers(config, tmp_path, monkeypatch, name):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  (tmp_path / name).mkdir()
  (tmp_path / name / 'text.txt').write_text(TEXT)
  (tmp_path / name / 'tokenizer.json').write_bytes(tokenizers.train('bpe', [TEXT], 280).files()['tokenizer.json'])
  for data, vocabulary in ((f'~/{name}/text.txt', f'~/{name}'), (f'{name}/text.txt', name)):
    experiment = language.build(config(name=data, vocabulary=vocabulary))
    assert len(experiment.train.source) and experiment.files
