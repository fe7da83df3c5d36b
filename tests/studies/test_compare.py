"""Metric cards decide what may be compared."""

import importlib.util
import json
import pathlib

import pytest

from genjax.cli.main import main
from genjax.studies import compare

spec = importlib.util.spec_from_file_location('fakes', pathlib.Path(__file__).with_name('conftest.py'))
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)


@pytest.fixture
def evaluated(tmp_path):
  """evaluated(name, metrics, **card) -> a folder with an evaluation."""

  def make(name, metrics=None, **changes):
    folder = tmp_path / name
    folder.mkdir()
    found = {'metrics': metrics or {'heldout/loss': 0.5, 'samples/frechet': 3.0}, 'card': fakes.card(**changes)}
    (folder / 'evaluation.json').write_text(json.dumps(found))
    return str(folder)

  return make


def changed(section, **changes):
  found = json.loads(json.dumps(fakes.card()))[section]
  found.update(changes)
  return {section: found}


MEASURE = fakes.card()['measures']['samples']


def measure(**changes):
  return {'measures': {'samples': {**MEASURE, **changes}}}


def test_like_evaluations_stand_side_by_side(evaluated, capsys):
  runs = [evaluated('a'), evaluated('b', {'heldout/loss': 0.4, 'other/x': 1.0}, step=20, seed=3,
                                    versions={'jax': '9'})]
  assert main(['compare', *runs]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ['metric', 'a', 'b', 'difference']
  assert lines[1].split() == ['heldout/loss', '0.5', '0.4', '-0.1']
  assert lines[2].split() == ['samples/frechet', '3', '-', '-']
  assert ['step', '10', '20'] in [line.split() for line in lines]
  assert ['versions.jax', '0.10.2', '9'] in [line.split() for line in lines]
  assert main(['compare', *runs, '--json']) == 0
  assert json.loads(capsys.readouterr().out)['different'] == {}


@pytest.mark.parametrize(('change', 'field'), [
  (changed('data', split='train'), 'data.split'), (changed('data', checksum='x'), 'data.checksum'),
  ({'examples': 10}, 'examples'), ({'parameters': 'raw'}, 'parameters'), ({'version': 2}, 'version'),
  (changed('sampler', steps=50), 'sampler.steps'), (changed('sampler', guidance=2.0), 'sampler.guidance'),
  (measure(num_samples=9), 'measures.samples.num_samples'),
  (measure(pictures={'resize': 'lanczos'}), 'measures.samples.pictures.resize'),
  (measure(feature_extractor={'heldout_accuracy': 0.9}), 'measures.samples.feature_extractor.heldout_accuracy'),
])
def test_what_differs_is_refused_unless_it_is_allowed(evaluated, capsys, change, field):
  runs = [evaluated('a'), evaluated('b', **change), evaluated('c')]
  assert main(['compare', *runs]) == 8
  said = capsys.readouterr().err
  assert f'  {field}: ' in said and f'--allow={field}' in said
  for allowed in {field, field.rpartition('.')[2], field.partition('.')[0]}:
    assert main(['compare', *runs, f'--allow={allowed}']) == 0
    out = capsys.readouterr().out
    assert 'NOT MEASURED ALIKE\ncard' in out and field in out


def test_where_an_extractor_lies_and_what_only_one_measured_do_not_decide(evaluated):
  moved = {**MEASURE['feature_extractor'], 'folder': '/b'}
  runs = [evaluated('a'), evaluated('b', **measure(feature_extractor=moved)),
          evaluated('c', {'heldout/loss': 1.0}, measures={}, sampler={'name': 'none'})]
  assert main(['compare', *runs]) == 0
  assert main(['compare', runs[2], evaluated('d', {'heldout/loss': 1.0}, measures={}, sampler={'name': 'x'})]) == 0


def test_a_card_of_before_a_field_existed_is_refused(evaluated, capsys):
  old = evaluated('old')
  path = pathlib.Path(old) / 'evaluation.json'
  found = json.loads(path.read_text())
  del found['card']['version']
  path.write_text(json.dumps(found))
  assert main(['compare', old, evaluated('new')]) == 8
  assert 'version: (absent) | 1' in capsys.readouterr().err


def test_held_out_values_of_the_end_of_training_have_a_card_that_decides(tmp_path, fake_run, capsys):
  """Of runs without evaluations; those of before there was a card stand in one table as before."""
  for seed in (0, 1):
    fake_run(tmp_path / 'runs' / f'seed{seed}', {'seed': seed}, loss=0.5)
  table = ['table', str(tmp_path / 'runs'), '--metrics=heldout/loss']
  assert main(table) == 0
  for seed, split in ((0, 'test'), (1, 'train')):
    path = tmp_path / 'runs' / f'seed{seed}' / 'summary.json'
    card = {**fakes.card(measures={}), **changed('data', split=split)}
    path.write_text(json.dumps({**json.loads(path.read_text()), 'card': card}))
  assert main(table) == 8
  assert '  data.split: test | train' in capsys.readouterr().err
  assert main([*table, '--allow=split']) == 0
  summaries = [str(tmp_path / 'runs' / f'seed{seed}' / 'summary.json') for seed in (0, 1)]
  assert main(['compare', *summaries]) == 8
  assert main(['compare', *summaries, '--allow=split']) == 0
  assert 'heldout/loss  0.5' in capsys.readouterr().out


def test_bad_input(evaluated, tmp_path, capsys):
  first, second = evaluated('a'), evaluated('b')
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'damaged.json').write_text('{"metrics": 3')
  (tmp_path / 'other.json').write_text('{"metrics": 3}')
  for argv, said in (([first], 'at least two'), ([first, str(tmp_path / 'empty')], 'genjax evaluate --workdir='),
                     ([first, f'{tmp_path}/damaged.json'], 'is damaged'),
                     ([first, f'{tmp_path}/other.json'], 'no evaluation'),
                     ([first, first], 'named twice'),
                     ([first, second, '--allow=gidance'], '--allow=gidance names no field')):
    assert main(['compare', *argv]) == 2
    assert said in capsys.readouterr().err


def test_names_tell_folders_apart(tmp_path):
  assert compare.names(['x/a', 'x/b/evaluation.json']) == ['a', 'b']
  assert compare.names(['x/a', 'y/a']) == ['x/a', 'y/a']


def test_every_measure_of_images_says_what_resized_the_pictures():
  from genjax.configs import quickstart
  from genjax.experiments import measures
  card = measures.image_metrics(quickstart.get_config('smoke'))[0].card
  assert card['pictures'] == {'shape': [8, 8, 1], 'resize': '', 'crop': False}
