"""Extractors of an evaluation: a classifier's run judges, cards name it, and another one is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

import genjax
from genjax import interop
from genjax.cli.main import main
from genjax.models.features import lpips
from genjax.types import UserError

CHOSEN = ['evaluation.parts.judge=judge', 'evaluation.extractor=judge', 'evaluation.num_samples=40',
          'evaluation.measures=frechet,kernel']


@pytest.fixture(scope='module')
def root(tmp_path_factory, smoke_run):
  """A folder with a run of pictures, and a classifier of them, which has steps 1 and 2."""
  folder = tmp_path_factory.mktemp('extractors')
  shutil.copytree(smoke_run('quickstart'), folder / 'run')
  shutil.copytree(smoke_run('classifiers/digits_classifier'), folder / 'judge')
  narrow = lpips.LpipsConfig('vgg16', 16)
  interop.save(folder / 'vgg', narrow, lpips.network(narrow).init(jax.random.key(0))[0], architecture='vgg16_lpips')
  return folder


@pytest.fixture
def here(root, monkeypatch):
  monkeypatch.chdir(root)
  (root / 'run' / 'evaluation.json').unlink(missing_ok=True)
  return root


def evaluate(*more):
  return main(['evaluate', '--workdir=run', '--set', *CHOSEN, *more])


def test_measures_by_a_run_and_what_compare_says_of_them(here, capsys):
  assert evaluate() == 0
  found = json.loads(capsys.readouterr().out)
  card = found['card']['measures']
  assert set(card) == {'frechet', 'kernel'}
  assert {'frechet/distance', 'kernel/distance', 'kernel/error'} <= set(found['metrics'])
  assert card['frechet']['extractor']['part'] == 'judge' and len(card['frechet']['extractor']['sha256']) == 64
  assert card['frechet']['reference']['split'] == 'test' and card['frechet']['reference']['examples'] == 360
  shutil.copy('run/evaluation.json', 'before.json')
  assert evaluate('data.resize=bilinear') == 0  # of pictures that have their size already: the filter alone differs
  after = json.loads(capsys.readouterr().out)
  assert after['metrics'] == pytest.approx(found['metrics'], rel=1e-4)
  assert main(['compare', 'before.json', 'run']) == 8
  said = capsys.readouterr().err
  assert '  measures.frechet.pictures.resize:  | bilinear' in said and '--allow=' in said
  assert main(['compare', 'before.json', 'run', '--allow=data', '--allow=measures']) == 0
  assert 'NOT MEASURED ALIKE' in capsys.readouterr().out
  shutil.copytree('judge', 'elsewhere')
  assert main(['evaluate', '--workdir=run', '--set', *CHOSEN, 'evaluation.parts.other=elsewhere',
               'evaluation.extractor=other']) == 0
  capsys.readouterr()
  assert main(['compare', 'before.json', 'run']) == 0  # the same network by another name, in another place
  shutil.rmtree('elsewhere')


def test_an_extractor_with_other_weights_than_its_card_names_is_refused(here, capsys):
  assert evaluate('evaluation.measures=frechet') == 0
  sha256 = json.loads(capsys.readouterr().out)['card']['measures']['frechet']['extractor']['sha256']
  before = (here / 'run' / 'evaluation.json').read_bytes()
  assert evaluate('evaluation.measures=frechet', 'evaluation.parts.judge=judge@1') == 2
  said = capsys.readouterr().err
  assert 'config.evaluation.parts.judge: the parameters in' in said and f'had {sha256[:16]}' in said
  assert (here / 'run' / 'evaluation.json').read_bytes() == before
  with pytest.raises(UserError, match='as the metric card'):
    genjax.open('run', evaluation=dict(parts=dict(judge='judge@1'), extractor='judge', measures=('frechet',),
                                       num_samples=40)).evaluate()
  for given, code in ((sha256[:8], 0), ('0' * 64, 2)):
    assert evaluate('evaluation.measures=frechet', f'evaluation.parts.judge.sha256={given}') == code
  assert 'config.evaluation.parts.judge.sha256 is 0000000000000000: they are not those that are meant' in (
    capsys.readouterr().err)


def test_pictures_come_to_the_side_that_is_asked_for(here, capsys):
  found = {}
  for side in (16, 32):
    assert evaluate('evaluation.measures=frechet', 'evaluation.parts.vgg=vgg', f'evaluation.parts.vgg.side={side}',
                    'evaluation.extractor=vgg') == 0
    found[side] = json.loads(capsys.readouterr().out)
    card = found[side]['card']['measures']['frechet']['extractor']
    assert (card['name'], card['resize']) == ('vgg16_lpips', f'bilinear antialias {side}')
    shutil.copy('run/evaluation.json', f'{side}.json')
  assert found[16]['metrics']['frechet/distance'] != found[32]['metrics']['frechet/distance']
  assert main(['compare', '16.json', '32.json']) == 8
  assert 'measures.frechet.extractor.resize: bilinear antialias 16' in capsys.readouterr().err


def test_a_network_is_measured_before_its_training(here, capsys):
  """A run of no steps has the parameters that a longer one begins with."""
  from genjax.training import state
  assert main(['train', '--config=configs/gans/digits_gan.py:smoke', '--config.steps=0', '--workdir=initial']) == 0
  run = genjax.open('initial')
  assert run.step == 0
  begun = jax.jit(run.experiment.objective.init)(state.init_key(0), {}).params
  jax.tree.map(np.testing.assert_array_equal, run.params, begun)
  capsys.readouterr()
  assert main(['evaluate', '--workdir=initial', '--set', *CHOSEN, 'evaluation.measures=frechet']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['card']['step'] == 0 and found['metrics']['frechet/distance'] > 0


@pytest.mark.parametrize(('given', 'message'), [
  (['evaluation.extractor=jduge'], "names no entry of config.evaluation.parts; those there are ['judge']. Did you"),
  (['evaluation.parts.judge=nowhere'], "config.evaluation.parts.judge='nowhere' is not there"),
  (['evaluation.parts.judge=run'], "config.evaluation.parts.judge='run' is no features: its builder is"),
  (['evaluation.parts.judge=judge@7'], 'config.evaluation.parts.judge=\'judge\': no checkpoint of step 7'),
  (['evaluation.measures=fib'], 'config.evaluation.measures must be one of'),
  (['evaluation.parts.judge.sha=1'], "unknown config key 'evaluation.parts.judge.sha'"),
  (['evaluation.parts.judge.dtype=float33'], 'dtype must be one of'),
  (['evaluation.parts.judge.side=-8'], 'config.evaluation.parts.judge.side must not be negative, got -8'),
  (['evaluation.parts.judge.side=16'], 'config.evaluation.parts.judge=\'judge\' is read with config.data.side=16'),
  (['evaluation.parts.judge=vgg', 'evaluation.parts.judge.side=8'], 'at least 16 pixels a side, got side=8'),
])
def test_bad_input(here, capsys, given, message):
  assert evaluate(*given) == 2
  assert message in capsys.readouterr().err


def test_training_keeps_what_is_named_and_opens_nothing(here, capsys, monkeypatch):
  """A config may name its extractor long before there is one."""
  from genjax.runs import bases
  monkeypatch.setattr(bases, 'open', lambda *arguments: pytest.fail('a part was opened'))
  flags = ['--config.evaluation.parts.judge=not/yet', '--config.evaluation.extractor=judge',
           '--config.evaluation.measures=frechet', '--config.evaluation.parts.judge.sha256=abc']
  assert main(['inspect', '--config=configs/quickstart.py:smoke', *flags]) == 0
  capsys.readouterr()
  assert main(['train', '--config=configs/quickstart.py:smoke', '--workdir=named', *flags]) == 0
  kept = json.loads((here / 'named' / 'config.json').read_text())['evaluation']
  assert kept['parts'] == {'judge': {'path': 'not/yet', 'sha256': 'abc'}} and kept['measures'] == ['frechet']


def test_the_end_of_training_has_a_card(here, capsys):
  summary = json.loads((here / 'run' / 'summary.json').read_text())
  card = summary['card']
  assert card['step'] == 2 and card['examples'] == 360 and card['data']['split'] == 'test' and card['measures'] == {}
  assert main(['evaluate', '--workdir=run', '--no-samples']) == 0
  capsys.readouterr()
  assert main(['compare', 'run/summary.json', 'run/evaluation.json', '--json']) == 2  # both are called 'run'
  shutil.copy('run/evaluation.json', 'after.json')
  assert main(['compare', 'run/summary.json', 'after.json', '--json']) == 0
  first, second = json.loads(capsys.readouterr().out)['evaluations'].values()
  assert first['metrics'] == pytest.approx(second['metrics'], rel=1e-6)
  assert first['card'] == second['card']
