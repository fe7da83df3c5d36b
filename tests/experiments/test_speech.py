"""Speech: words as tokens, shifts, word errors, recordings of one's own."""

import importlib
import json

import numpy as np
import pytest
from scipy.io import wavfile

from genjax.cli.main import main
from genjax.data.audio import spoken_digits
from genjax.data.pipeline import RowRandom
from genjax.data.sources import Arrays
from genjax.experiments import speech
from genjax.types import UserError


def test_words_come_back():
  for word in spoken_digits.WORDS:
    tokens_T = speech.encode(word)
    assert tokens_T[-1] == speech.TOKENS.stop and len(
      tokens_T) <= speech.MAX_WORD_TOKENS and tokens_T.max() < speech.FIRST_TOKEN + len(speech.ALPHABET)
    assert speech.decode(np.pad(tokens_T, (0, 3))) == word


def test_recordings_begin_later():
  source_BSF = np.random.default_rng(0).normal(size=(50, 9, 2)).astype(np.float32)
  columns = {'source': source_BSF, 'target': np.arange(50)}
  moved = speech.later(columns, RowRandom(0, np.arange(50)), most=3)
  np.testing.assert_array_equal(moved['target'], columns['target'])
  found = set()
  for before_SF, after_SF in zip(source_BSF, moved['source']):
    shift = int((after_SF == before_SF.min()).all(axis=1).sum())
    np.testing.assert_array_equal(after_SF[shift:], before_SF[:9 - shift])
    found.add(shift)
  assert found == {0, 1, 2, 3}
  alone = speech.later({name: rows[7:8] for name, rows in columns.items()}, RowRandom(0, np.arange(7, 8)), most=3)
  np.testing.assert_array_equal(alone['source'][0], moved['source'][7])


def test_word_error_rate():
  target_NT = np.stack([np.pad(speech.encode(word), (0, 6))[:6] for word in ('seven', 'one', 'six', 'nine')])
  drawn_NT = target_NT.copy()
  drawn_NT[1, 2:4] = speech.TOKENS.stop, 0  # 'on'
  drawn_NT[3] = [speech.TOKENS.stop, 0, 0, 0, 0, 0]  # nothing
  metric = speech.word_errors(lambda: Arrays({'source': np.zeros((4, 2, 1)), 'target': target_NT}))

  def sample(num, conditions):
    assert num == len(conditions['source']) == 4
    return {'tokens': drawn_NT}

  assert metric.compute(sample, 0) == {'wer': 0.5} and metric.card['words'] == metric.card['recordings'] == 4


def test_words_of_longer_transcripts(monkeypatch):
  """One word of five too many, one missing, in chunks of two recordings."""
  monkeypatch.setattr(speech, 'BATCH_SIZE', 2)
  rows = lambda texts: np.stack([np.pad(speech.encode_bytes(text), (0, 20))[:20] for text in texts])
  target_NT = rows(['ein Haus', 'zwei', 'drei Vögel'])
  drawn_NT = rows(['ein rotes Haus', 'zwei', 'Vögel'])
  metric = speech.word_errors(lambda: Arrays({'source': np.arange(3.0), 'target': target_NT}), speech.decode_bytes)
  sample = lambda num, conditions: {'tokens': drawn_NT[conditions['source'].astype(int)]}
  assert metric.compute(sample, 0) == {'wer': 2 / 5}


@pytest.fixture
def written(tmp_path):
  """Ten tones, half a second each, at two rates and depths, in lines that say which."""
  lines = []
  for number in range(10):
    rate = (8_000, 16_000)[number % 2]
    sound_N = 0.4 * np.sin(2 * np.pi * 300 * (1 + number % 3) * np.arange(rate // 2) / rate)
    stored = sound_N.astype(np.float32) if number % 4 == 3 else np.round(sound_N * 2**15).astype(np.int16)
    wavfile.write(tmp_path / f'{number}.wav', rate, stored)
    lines.append({'file': f'{number}.wav', 'said': ('tief', 'höher als tief', 'hoch')[number % 3]})
  (tmp_path / 'tones.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  return tmp_path


def own(folder, **data):
  config = importlib.import_module('genjax.configs.audio.spoken_digits').get_config('smoke')
  config.data.update({'name': str(folder / 'tones.jsonl'), 'audio': 'file', 'field': 'said', 'train': 'train[:80%]',
                      'heldout': 'train[80%:]', 'longest': 16, 'seconds': 0.5, **data})
  config.sampler.length = 16
  return config


def test_recordings_of_ones_own(written):
  experiment = speech.build(own(written))
  batches = list(experiment.heldout.epoch())
  assert [int(batch['mask'].sum()) for batch in batches] == [2]
  texts = [speech.decode_bytes(tokens_T) for tokens_T in batches[0]['target'][:2]]
  assert texts == ['hoch', 'tief'] and len(experiment.train.source) == 8
  # The same tone at two rates, as integers and as floating-point numbers, is the same sound.
  source = speech.build(own(written, heldout='train')).heldout.source.get(np.arange(10))['source']
  np.testing.assert_allclose(source[0, 2:-2], source[3, 2:-2], atol=2e-2)
  assert np.abs(source[0] - source[1]).max() > 0.3
  facts = experiment.heldout.fingerprint()
  assert facts['examples'] == 2 and facts != experiment.train.fingerprint()


@pytest.mark.parametrize(
  ('data', 'message'),
  [({'longest': 0}, r'config\.data\.longest must be set for your own recordings, .*free_spoken_digits'),
   ({'longest': 15}, 'has 16 tokens, but config.data.longest is 15; set it to at least 16'),
   ({'audio': 'path'}, "line 1: expected a JSON object with a text 'path'"),
   ({'heldout': 'test'}, "has only the split 'train'"),
   ({'name': 'free_spoken_digit'}, 'is not a data set of recordings: expected free_spoken_digits')])
def test_bad_recordings(written, data, message):
  with pytest.raises(UserError, match=message):
    speech.build(own(written, **{'heldout': 'train', **data})).heldout.batch(0)


def test_recordings_that_are_gone(written):
  (written / '3.wav').unlink()
  with pytest.raises(UserError, match=r'1 of 10 recordings do not exist, the first is .*3\.wav'):
    speech.build(own(written, train='train')).train.batch(0)


def test_recordings_in_a_folder_of_any_name_by_several_threads(written, monkeypatch):
  expected = list(speech.build(own(written)).heldout.epoch())
  monkeypatch.setenv('HOME', str(written.parent))
  folder = written.rename(written.parent / 'a b@5.v2 ü')
  experiment = speech.build(own(folder, name='~/a b@5.v2 ü/tones.jsonl', threads=3))
  for batch, same in zip(experiment.heldout.epoch(), expected, strict=True):
    np.testing.assert_array_equal(batch['source'], same['source'])
  sounds = experiment.conditions['source']
  np.testing.assert_array_equal(sounds.parse('~/a b@5.v2 ü/8.wav'), expected[0]['source'][0])


def test_a_sample_that_is_no_number_names_its_recording(written):
  rate, sound_N = wavfile.read(written / '3.wav')
  wavfile.write(written / '3.wav', rate, np.where(np.arange(len(sound_N)) == 5, np.nan, sound_N).astype(np.float32))
  with pytest.raises(UserError, match=r'3\.wav: 1 of its .* samples are NaN or infinite, the first is number 6'):
    speech.build(own(written, heldout='train')).heldout.source.get(np.arange(10))


@pytest.mark.slow
def test_learns_tones_by_the_command_line(written, tmp_path, capsys):
  """Three tones and their names, from training to a recording by its path; the run alone is enough to recognise one."""
  options = [
    f'--config.data.{name}={value}' for name, value in (('name', written / 'tones.jsonl'), ('audio', 'file'),
                                                        ('field', 'said'), ('train', 'train'), ('heldout', 'train'),
                                                        ('longest', 16), ('seconds', 0.5), ('shift', 0))
  ]
  run = tmp_path / 'run'
  assert main([
    'train', '--config=configs/audio/spoken_digits.py:smoke', f'--workdir={run}', *options,
    '--config.sampler.length=16', '--config.steps=150', '--config.batch_size=10', '--config.optimizers.net.lr=1e-2',
    '--config.model.dropout=0.0', '--config.objective.smoothing=0.0', '--config.ema.net=0.9',
    '--config.evaluate_every=0', '--config.sample_every=0'
  ]) == 0
  assert main(['evaluate', f'--workdir={run}']) == 0
  assert json.loads((run / 'evaluation.json').read_text())['metrics']['recognition/wer'] == 0.0
  (written / 'tones.jsonl').unlink()
  capsys.readouterr()
  assert main(['sample', f'--workdir={run}', '--num=1', f'--conditions=source={written / "4.wav"}']) == 0
  assert 'höher als tief' in capsys.readouterr().out
