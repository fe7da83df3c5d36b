"""What an import costs and brings along; the version; configs from any folder."""

import subprocess
import sys
import time

import genjax
from genjax.cli import configs
from genjax.cli.main import main


def test_import_is_quick_and_brings_no_other_framework():
  code = "import genjax, sys; print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
  begin = time.perf_counter()
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
  assert time.perf_counter() - begin < 3


def test_the_loop_brings_no_other_framework():
  modules = ('genjax.training.loop, genjax.training.hooks, genjax.cli.train, genjax.experiments.language, '
             'genjax.experiments.diffusion')
  code = f"import {modules}, sys; print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_the_version(capsys):
  assert main(['--version']) == 0
  assert capsys.readouterr().out == f'genjax {genjax.__version__}\n'


def test_own_configs_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for argv in (['--config=configs/quickstart.py:smoke'], ['--config', 'configs/quickstart.py:smoke']):
    values, _ = configs.parse('train', [*argv, '--config.seed=3'], '')
    assert (values.config.steps, values.config.seed) == (2, 3)
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'quickstart.py').write_text(
    'import ml_collections\ndef get_config(arg=None):\n  return ml_collections.ConfigDict(dict(seed=1, steps=99))\n')
  values, _ = configs.parse('train', ['--config=configs/quickstart.py'], '')
  assert values.config.steps == 99  # one's own goes first
