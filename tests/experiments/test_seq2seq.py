"""The builder of translation: from pairs to BLEU by the command line; what a run keeps; what is refused."""

import json

import jax
import numpy as np
import pytest

from genjax.cli.main import main
from genjax.cli.sample import parse_conditions
from genjax.configs.language import multi30k
from genjax.data.text import words
from genjax.experiments import seq2seq
from genjax.nn.functional import count
from genjax.types import UserError


@pytest.fixture
def config(tmp_path):
  """Two files of lines; an override is a keyword of config.data."""
  lines = {'de': ['Ein Hund läuft.', 'Eine Katze läuft!', 'Ein Hund schläft, eine Katze läuft.'],
           'en': ['A dog runs.', 'A cat runs!', 'A dog sleeps, a cat runs.']}
  for language, texts in lines.items():
    for split, part in (('train', texts * 3), ('test', texts)):
      (tmp_path / f'{split}.{language}').write_text(''.join(f'{text}\n' for text in part))

  def make(**data):
    made = multi30k.get_config('smoke')
    made.data.update({'name': str(tmp_path), 'heldout': 'test', **data})
    return made.lock()

  return make


def keep(config, files, folder):
  """The config as that of a run whose directory is `folder`."""
  folder.mkdir()
  for name, data in files.items():
    (folder / name).write_bytes(data)
  with config.unlocked():
    config.assets = {'folder': str(folder)}
  return config


def test_columns_are_sentences_of_words(config):
  experiment = seq2seq.build(config(least_count=4))
  columns = next(experiment.heldout.epoch())
  known = json.loads(experiment.files['words.json'])
  assert known['source'] == ['läuft', '.', 'ein', 'eine', 'hund', 'katze'] and known['languages'] == ['de', 'en']
  assert columns['source'][0].tolist() == [2, 6, 8, 4, 5, 3, 1, 1, 1, 1, 1, 1]  # cut to 8 words and two, rounded up
  assert columns['source'][2].tolist() == [2, 6, 8, 0, 0, 7, 9, 4, 5, 3, 1, 1]
  assert columns['target_weights'][:3].sum(axis=1).tolist() == [5, 5, 9]
  name = next(iter(columns))
  assert experiment.example[name].shape == (12,) and experiment.cut == set(experiment.example)


def test_a_run_keeps_its_words(config, tmp_path):
  made = config()
  experiment = seq2seq.build(made)
  for path in tmp_path.glob('train.*'):
    path.unlink()
  again = seq2seq.build(keep(made, experiment.files, tmp_path / 'run'))
  assert again.files == experiment.files
  sentence = 'Eine Katze schläft, ein Hund läuft.'
  assert again.conditions['source'].parse(sentence).tolist() == experiment.conditions['source'].parse(sentence).tolist()
  with made.unlocked():
    made.data.source = 'fr'
  with pytest.raises(UserError, match="belong to languages .'de', 'en'., but config.data has .'fr', 'en'."):
    seq2seq.build(made)


def test_bleu_is_that_of_the_reference_words(config):
  """The true translations give 100; a word that the vocabulary lacks counts against the translation."""
  for least, expected in ((1, 100.0), (4, None)):
    made = config(least_count=least)
    experiment = seq2seq.build(made)
    target_NT = next(experiment.heldout.epoch())['target'][:3]
    asked = {}

    def sample(num, conditions):
      asked.update(conditions, num=num)
      return {'tokens': target_NT}

    values = experiment.metrics[0].compute(sample, 0)
    assert asked['num'] == 3 and asked['source'].tolist() == next(
      experiment.heldout.epoch())['source'][:3, :10].tolist()
    assert values['length_ratio'] == 1.0
    assert values['bleu'] == pytest.approx(expected) if expected else 0 < values['bleu'] < 90


def test_sacrebleu_reads_joined_words(config):
  pytest.importorskip('sacrebleu')
  made = config()
  with made.unlocked():
    made.evaluation.sacrebleu = True
  experiment = seq2seq.build(made)
  target_NT = next(experiment.heldout.epoch())['target'][:3]
  values = experiment.metrics[0].compute(lambda num, conditions: {'tokens': target_NT}, 0)
  assert values['sacrebleu_lowercase'] == pytest.approx(100) and 30 < values['sacrebleu'] < 90
  assert 'case:lc' in experiment.metrics[0].card['sacrebleu_lowercase']


def test_what_is_refused(config):
  for data, text in (({'splitter': 'x'}, "got 'x'"), ({'context': 2}, 'none of the 9 pairs'), ({'context':
    13}, 'at least 13'), ({'name': 'spoken_digits',
                           'train': 'x'}, "got 'x'"), ({'name': 'spoken_digits', 'source': 'cs'}, "got 'cs'")):
    with pytest.raises(UserError, match=text):
      seq2seq.build(config(**data)).train.batch(0)
  sentence = seq2seq.build(config()).conditions['source']
  for given in ('', 'a ' * 11):
    with pytest.raises(UserError, match='has 1 to 10 words'):
      sentence.parse(given)


def test_prompts_are_sources(config):
  """Commas and semicolons belong to a sentence, which --conditions could not take."""
  conditions = seq2seq.build(config()).conditions
  rows = parse_conditions('', ['Ein Hund, eine Katze; x.', 'Ein Hund'], conditions, 3)['source']
  assert rows.shape == (3, 10) and rows[1].tolist() == rows[1][:4].tolist() + [words.PADDING] * 6
  np.testing.assert_array_equal(rows[0], rows[2])
  np.testing.assert_array_equal(rows[0], conditions['source'].parse('Ein Hund, eine Katze; x.'))


@pytest.mark.slow
def test_learns_spoken_digits_by_the_command_line(tmp_path, capsys):
  """Training, BLEU of translations, and a sentence of one's own, commas and all."""
  flags = [
    '--config.steps=600', '--config.model.width=64', '--config.model.mlp_width=128', '--config.batch_size=32',
    '--config.optimizers.net.lr=2e-3', '--config.log_every=50', '--config.evaluate_every=600',
    '--config.checkpoint.every=600', '--config.sample_every=600', '--config.model.dropout=0.0'
  ]
  run = str(tmp_path / 'run')
  assert main(['train', '--config=configs/language/multi30k.py:smoke', *flags, f'--workdir={run}']) == 0
  assert main(['evaluate', f'--workdir={run}']) == 0
  metrics = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())['metrics']
  assert metrics['translation/bleu'] > 85 and metrics['heldout/loss'] < 0.2
  capsys.readouterr()
  assert main(['sample', f'--workdir={run}', '--num=2', '--prompt=drei fünf neun', '--prompt=acht']) == 0
  assert capsys.readouterr().out == 'drei fünf neun\n  three five nine\nacht\n  eight\n'
  assert main(['sample', f'--workdir={run}', '--stream', '--prompt=acht']) == 0
  assert capsys.readouterr().out == 'eight\n'
  assert main(['sample', f'--workdir={run}', '--num=1', '--set', 'sampler.beams=3', '--prompt=acht']) == 0
  assert capsys.readouterr().out == 'acht\n  eight\n'


@pytest.mark.slow
def test_published_sizes_of_multi30k(shared_data, tmp_path):
  """Ben Trevett's pytorch-seq2seq, notebook 6: the vocabularies, and so the number of parameters."""
  pytest.importorskip('spacy')
  made = multi30k.get_config()
  made.data.update(originals=str(shared_data / 'multi30k'), data_dir=str(tmp_path))
  experiment = seq2seq.build(made.lock())
  known = json.loads(experiment.files['words.json'])
  assert [len(known[side]) + len(words.SPECIAL) for side in ('source', 'target')] == [7853, 5893]
  shapes = jax.eval_shape(lambda: experiment.objective.init(jax.random.key(0), {}).params['net'])
  assert count(shapes) == 9_038_341
  assert len(experiment.train.source) == 29_000 and experiment.train.fingerprint()['left_out'] == 0
  widths = [experiment.train.batch(step)['source'].shape[1] for step in range(0, 226, 25)]
  assert max(widths) <= 48 and np.mean(widths) < 24
