"""Runs whose builder is a user's own file: the run keeps it, and can be moved, sent, sampled and resumed."""

import json
import pathlib
import shutil
import sys

import pytest

import genjax
from genjax.cli.main import main
from genjax.runs import builder_code, builders, configs, workdir

ROOT = pathlib.Path(__file__).parent.parent.parent
VAE = (ROOT / 'configs' / 'autoencoders' / 'digits_vae.py').read_text()
QUIET = ['--config.sample_every=0', '--config.evaluate_every=0']


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch):
  """What a test imports, and where Python looks for it, is forgotten after it."""
  monkeypatch.setattr(sys, 'path', list(sys.path))
  before = set(sys.modules)
  yield
  for name in set(sys.modules) - before:
    if name.partition('.')[0] in ('mine_builder', 'mine_parts', 'experiments', 'mine_far'):
      del sys.modules[name]


def lab(folder, scale=2.0):
  """A config with a builder beside it, which imports a package of the same folder."""
  (folder / 'mine_parts').mkdir(parents=True)
  (folder / 'config.py').write_text(VAE.replace('genjax.experiments.vae', 'mine_builder'))
  (folder / 'mine_builder.py').write_text(
    'import json\nfrom genjax.experiments import vae\nfrom mine_parts import scaled\n\n\n'
    'def build(config):\n  return scaled.scaled(vae.build(config))\n')
  (folder / 'mine_parts' / '__init__.py').write_text('')
  (folder / 'mine_parts' / 'scaled.py').write_text(
    'import dataclasses\nfrom .number import SCALE\n\n\n'
    'def scaled(experiment):\n  return dataclasses.replace(experiment, assets={"scale": SCALE})\n')
  (folder / 'mine_parts' / 'number.py').write_text(f'SCALE = {scale}\n')
  (folder / 'mine_parts' / 'unused.py').write_text('')
  return folder


def train(folder, run, *argv):
  return main(['train', f'--config={folder / "config.py"}:smoke', f'--workdir={run}', *QUIET, *argv])


def scale(run):
  _, opened = workdir.open_run(str(run))
  return opened.experiment.assets['scale']


FILES = ['mine_builder.py', 'mine_parts/__init__.py', 'mine_parts/number.py', 'mine_parts/scaled.py']


def files(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.py'))


def test_a_run_is_sent_elsewhere_with_its_builder(tmp_path, capsys):
  folder = lab(tmp_path / 'lab')
  assert train(folder, tmp_path / 'run') == 0
  assert files(tmp_path / 'run' / 'code') == FILES
  assert scale(tmp_path / 'run') == 2.0
  assert 'is imported from' not in capsys.readouterr().err, 'the files are where they were'
  (tmp_path / 'far').mkdir()
  shutil.move(tmp_path / 'run', tmp_path / 'far' / 'run')
  shutil.rmtree(folder)
  sent = tmp_path / 'far' / 'run'
  assert main(['sample', f'--workdir={sent}', '--num=2', f'--out={tmp_path / "x.npz"}']) == 0
  assert main(['evaluate', f'--workdir={sent}', '--no-samples']) == 0
  said = capsys.readouterr().err
  assert said.count(f'mine_builder is imported from {sent / "code"}: its file is not found elsewhere') == 1
  assert main(['train', f'--workdir={sent}', '--config.steps=3']) == 0
  assert genjax.open(sent).step == 3 and scale(sent) == 2.0
  assert genjax.train(sent, tmp_path / 'other', steps=1).step == 1
  assert files(tmp_path / 'other' / 'code') == FILES
  assert str(sent) not in json.loads((tmp_path / 'other' / 'run.json').read_text())['paths']


def test_a_builder_that_changed_is_said(tmp_path, capsys):
  folder, run = lab(tmp_path / 'lab'), tmp_path / 'run'
  assert train(folder, run) == 0
  (folder / 'mine_parts' / 'number.py').write_text('SCALE = 3.0\n')
  capsys.readouterr()
  # The run as it is: its own code, for samples and when it goes on without another config
  assert scale(run) == 2.0
  assert main(['train', f'--workdir={run}', '--config.steps=3']) == 0
  assert f'mine_parts/number.py in {folder} differs from what the run keeps' in capsys.readouterr().err
  assert (run / 'code' / 'mine_parts' / 'number.py').read_text() == 'SCALE = 2.0\n'
  # With --config, the code beside that
  assert train(folder, run, '--config.steps=4') == 0
  said = capsys.readouterr().err
  assert f'mine_builder differs from the code that {run} began with: mine_parts/number.py' in said
  assert files(run / 'code.until_3') == FILES and scale(run) == 3.0
  assert (run / 'code.until_3' / 'mine_parts' / 'number.py').read_text() == 'SCALE = 2.0\n'


def test_builders_of_one_name_in_one_process(tmp_path):
  for name, number in (('one', 1.0), ('two', 2.0)):
    assert train(lab(tmp_path / name, number), tmp_path / f'{name}_run') == 0
  for _ in range(2):
    assert [scale(tmp_path / f'{name}_run') for name in ('one', 'two')] == [1.0, 2.0]
  (tmp_path / 'one' / 'mine_parts' / 'number.py').write_text('SCALE = 7.0\n')
  config, paths, _ = configs.load(tmp_path / 'one' / 'config.py')
  assert builders.build(config, paths).assets['scale'] == 7.0, 'an edited file is read again'


def test_a_folder_experiments_of_the_users_goes_first_and_is_kept(tmp_path):
  (tmp_path / 'experiments').mkdir()
  (tmp_path / 'experiments' / 'vae.py').write_text('from genjax.experiments.vae import build\n')
  assert builders.current_name('experiments.vae', [str(tmp_path)]) == 'experiments.vae'
  assert builders.current_name('experiments.gan', [str(tmp_path)]) == 'genjax.experiments.gan'
  code = builder_code.of('experiments.vae', [str(tmp_path)])
  assert code is not None and list(code.files) == ['experiments/vae.py']
  assert builder_code.of('experiments.vae', [str(ROOT)]) is None, 'that of genjax itself'
  module = builder_code.load('experiments.vae', code)
  assert module.__file__ == str(tmp_path / 'experiments' / 'vae.py')


def test_what_is_installed_is_not_kept(tmp_path):
  (tmp_path / 'site-packages').mkdir()
  (tmp_path / 'site-packages' / 'mine_far.py').write_text('def build(config): ...\n')
  assert builder_code.of('mine_far', [str(tmp_path / 'site-packages')]) is None
  assert builder_code.of('genjax.experiments.vae', [str(ROOT)]) is None
  (tmp_path / 'code').mkdir()  # a folder of this name that is not a run's
  (tmp_path / 'code' / 'mine_far.py').write_text('import numpy\nimport mine_nowhere\nfrom . import x\n')
  code = builder_code.of('mine_far', [str(tmp_path / 'code')])
  assert code is not None and list(code.files) == ['mine_far.py']
