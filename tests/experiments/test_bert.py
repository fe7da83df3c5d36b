"""The builder of encoders: rows full of sentences, sentences with labels, and a classifier that begins with a
pre-trained encoder."""

import json

import numpy as np
import pytest

from genjax.cli.main import main
from genjax.configs.language import bert, sst2
from genjax.data.text import tokenizers
from genjax.experiments.bert import build
from genjax.types import UserError

SENTENCES = [(1, 'A Good film'), (0, 'a bad film , very bad'), (1, 'good'), (0, 'bad')] * 5


@pytest.fixture
def sst(tmp_path):
  """Flags of configs that read a tiny SST-2."""
  folder = tmp_path / 'sst'
  folder.mkdir()
  for part in ('train', 'dev', 'test'):
    (folder / f'stsa.binary.{part}').write_text('\n'.join(f'{label} {text}' for label, text in SENTENCES))
  data = {
    'train': 'train', 'heldout': 'validation', 'vocabulary_size': 60, 'data_dir': str(tmp_path / 'tfds'),
    'originals': str(folder)
  }

  def make(get_config, argument='smoke', **more):
    config = get_config(argument)
    config.data.update({**data, **more})
    return config

  make.flags = [f'--config.data.{key}={value}' for key, value in data.items()]
  return make


def test_rows_are_full_of_sentences(sst, tmp_path):
  (tmp_path / 'more.txt').write_text('an other good\nfilm')
  experiment = build(
    sst(bert.get_config, context=8, start='a [MASK] film',
        more=((str(tmp_path / 'more.txt'), 'train', 'text'),)).lock())
  vocabulary = tokenizers.Pieces(experiment.files['tokenizer.json'].decode())
  rows_NT = experiment.train.source.columns['tokens']
  bos, eos = vocabulary.special['bos'], vocabulary.special['eos']
  texts = [text.lower() for _, text in SENTENCES] + ['an other good film']
  stream = np.concatenate([[*vocabulary.encode(text), eos] for text in texts])
  assert (rows_NT[:, 0] == bos).all() and len(rows_NT) == len(stream) // 7
  np.testing.assert_array_equal(rows_NT[:, 1:].ravel(), stream[:len(rows_NT) * 7])
  # The vocabulary knows the further text
  assert 'unk' in vocabulary.special and vocabulary.special['unk'] not in stream
  assert experiment.objective.masking.mask == vocabulary.special['mask'] and set(
    experiment.objective.masking.special) == {0, bos, eos}
  prompt = experiment.conditions['prompt'].parse('a [MASK] film')
  assert prompt[[0, 2, -1]].tolist() == [bos, vocabulary.special['mask'], eos]
  assert experiment.render({'tokens': np.pad(prompt, (0, 2), constant_values=-1)[None]})['samples'] == 'a [MASK] film'
  with pytest.raises(UserError, match='at most 6 tokens beside'):
    experiment.conditions['prompt'].parse('a [MASK] film , very very bad')


def test_sentences_have_labels_and_padding(sst):
  experiment = build(sst(sst2.get_config, context=6).lock())
  columns = experiment.train.source.columns
  vocabulary = tokenizers.Pieces(experiment.files['tokenizer.json'].decode())
  words = [vocabulary.encode(word).tolist() for word in ('a', 'good', 'film')]
  assert columns['tokens'][0].tolist() == [2, *sum(words, []), 3, 0
                                          ][:6] and columns['label'].tolist() == [label for label, _ in SENTENCES]
  assert columns['weights'][2].sum() == 2 + len(words[1]) and (columns['tokens'][2][columns['weights'][2] == 0]
                                                               == 0).all()
  assert columns['tokens'][1][-1] == 3 and columns['weights'][1].all()  # cut off, and ended nonetheless
  assert {name: (value.shape, value.dtype) for name, value in experiment.example.items()} == {
    name: (value.shape[1:], value.dtype) for name, value in columns.items()}


def test_what_cannot_be_built(sst, tmp_path):
  with pytest.raises(UserError, match="label='sentence' is no feature of sst2 with classes; its features are"):
    build(sst(sst2.get_config, label='sentence').lock())
  with pytest.raises(
      UserError, match="path of a tokenizer.json or of a folder with one, such as a run, got 'runs/none'"):
    build(sst(sst2.get_config, vocabulary='runs/none').lock())
  for name, data in tokenizers.train('wordpiece', ['a good film'], 40).files().items():
    (tmp_path / name).write_bytes(data)
  with pytest.raises(UserError, match="lacks the special token 'bos', which BERT needs"):
    build(sst(sst2.get_config, vocabulary=str(tmp_path)).lock())
  with pytest.raises(UserError, match='less than one row of config.data.context=500'):
    len(build(sst(bert.get_config, context=500, start='a').lock()).train.source)
  config = sst(sst2.get_config)
  config.data.more = (('names', 'train', 'text'),)
  with pytest.raises(UserError, match='texts without labels'):
    build(config.lock())


@pytest.mark.slow
def test_a_classifier_begins_with_the_encoder_and_its_tokenizer(sst, tmp_path, capsys):
  runs = tmp_path / 'runs'
  root = bert.__file__.rpartition('/')[0]
  assert main(['train', f'--config={root}/bert.py:smoke', *sst.flags, f'--workdir={runs / "bert"}']) == 0
  capsys.readouterr()
  assert main(
    ['train', f'--config={root}/sst2.py:smoke,pretrained={runs / "bert"}', *sst.flags,
     f'--workdir={runs / "tuned"}']) == 0
  output = capsys.readouterr()
  said = output.out + output.err
  for words in ('dropped 5; kept initial 4', 'net/heads/token_bias', 'net/heads/classifier/kernel'):
    assert words in said
  assert (runs / 'tuned' / 'tokenizer.json').read_bytes() == (runs / 'bert' / 'tokenizer.json').read_bytes()
  assert main(['evaluate', f'--workdir={runs / "tuned"}', '--set', 'data.heldout=test']) == 0
  assert 'accuracy' in capsys.readouterr().out
  assert json.loads((runs / 'tuned' / 'config.json').read_text())['data']['vocabulary'] == str(runs / 'bert')
