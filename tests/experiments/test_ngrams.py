"""The builder of n-gram models: windows of names, the split of the notebooks, resuming, what is refused."""

import json
import random

import numpy as np
import pytest

from genjax.cli.main import main
from genjax.configs.language import names_ngram
from genjax.data.text.documents import open_documents
from genjax.experiments import ngrams
from genjax.types import UserError

NAMES = ['ann', 'bob', 'anna', 'noah', 'hanna', 'bo', 'nan', 'abba']


@pytest.fixture
def lines(tmp_path):
  path = tmp_path / 'lines.jsonl'
  path.write_text(''.join(json.dumps({'text': name}) + '\n' for name in NAMES))
  return path


def config(lines, model='mlp', **data):
  made = names_ngram.get_config(f'model={model},smoke')
  made.data.update({'name': str(lines), 'train': 'train[:6]', 'heldout': 'train[6:]', **data})
  return made.lock()


def test_windows_are_those_of_the_notebooks(lines):
  experiment = ngrams.build(config(lines))
  columns = experiment.heldout.source.get(np.arange(9))
  alphabet = experiment.assets['alphabet']
  assert alphabet == '\nabhno'
  shown = [''.join('.' if alphabet[token] == '\n' else alphabet[token] for token in [*window, after])
           for window, after in zip(columns['context'], columns['next'])]
  assert shown == ['...n', '..na', '.nan', 'nan.', '...a', '..ab', '.abb', 'abba', 'bba.']


@pytest.mark.parametrize('model', ['bigram', 'mlp', 'wavenet'])
def test_a_run_needs_no_data_to_sample(lines, model, tmp_path):
  made = config(lines, model)
  experiment = ngrams.build(made)
  with made.unlocked():
    made.assets = dict(experiment.assets)
  lines.unlink()
  again = ngrams.build(made)
  prompt = again.conditions['prompt']
  assert prompt.parse('an').tolist() == [0, 1, 4] and prompt.default(3).tolist() == [0]
  assert again.render({'tokens': np.asarray([[0, 1, 4, 0, -1], [0, 2, -1, -1, -1]])}) == {'samples': 'an\nb'}
  with pytest.raises(UserError, match='unknown character'):
    prompt.parse('xavier')


def test_a_resumed_run_ends_in_the_same_bytes(lines, tmp_path, capsys):
  flags = ['train', f'--config={names_ngram.__file__}:model=wavenet,smoke', f'--config.data.name={lines}',
           '--config.data.train=train[:6]', '--config.data.heldout=train[6:]', '--config.steps=6',
           '--config.checkpoint.every=3', '--config.sample_every=6', '--config.evaluate_every=6']
  sampled = {}
  for name in ('straight', 'disturbed'):
    workdir = f'--workdir={tmp_path / name}'
    if name == 'disturbed':
      assert main([*flags, workdir, '--config.optimizers.net.steps=6', '--config.steps=3']) == 0
    assert main([*flags, workdir, '--config.optimizers.net.steps=6']) == 0
    out = tmp_path / f'{name}.npz'
    assert main(['sample', workdir, '--num=8', '--seed=1', f'--out={out}']) == 0
    sampled[name] = (json.loads((tmp_path / name / 'summary.json').read_text())['heldout'], np.load(out)['tokens'])
  assert 'resuming' in capsys.readouterr().err
  assert sampled['straight'][0] == sampled['disturbed'][0]
  np.testing.assert_array_equal(sampled['straight'][1], sampled['disturbed'][1])


def test_the_split_is_that_of_the_notebooks(shared_data, tmp_path):
  """The numbers of symbols that part 3 and part 5 print."""
  parts = {split: open_documents('shuffled_names', split, tmp_path, shared_data / 'names')
           for split in ('train', 'validation', 'test')}
  assert parts['train'][:3] == ['yuheng', 'diondre', 'xavien'], 'part 5 shows them'
  assert [sum(len(name) + 1 for name in names) for names in parts.values()] == [182_625, 22_655, 22_866]
  names = (shared_data / 'names' / 'names.txt').read_text().split()
  random.Random(42).shuffle(names)
  assert [name for part in parts.values() for name in part] == names


@pytest.mark.parametrize(('change', 'words'), [
  (dict(separator=''), 'separator must be one character'), (dict(separator='ab'), 'separator must be one character'),
  (dict(separator='a'), "separator 'a' ends a document, but stands inside one"), (dict(train='other'), 'split'),
  (dict(name=''), 'this run has no data')])
def test_bad_data_is_refused(lines, change, words):
  with pytest.raises(UserError, match=words):
    ngrams.build(config(lines, **change))


def test_unknown_models_are_refused(lines):
  made = config(lines)
  with made.unlocked():
    made.model.name = 'trigram'
  with pytest.raises(UserError, match='config.model.name'):
    ngrams.build(made)
