"""The train command when things go wrong: signals, disks, NaN; what its summary says of the time; warm start."""

import errno
import json
import os
import pathlib
import signal

import jax
import pytest

from genjax.cli.main import main
from genjax.runs import atomic, workdir
from genjax.training import hooks
from genjax.types import StorageError

ROOT = pathlib.Path(__file__).parent.parent.parent
VAE = f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'


def train(folder, *argv):
  return main(['train', VAE, f'--workdir={folder}', '--config.sample_every=0', '--config.evaluate_every=0', *argv])


def at_step(monkeypatch, step, act):
  """Calls `act` after a step."""
  original = hooks.Log.after_step

  def after_step(self, run, metrics):
    original(self, run, metrics)
    if run.step == step:
      act()

  monkeypatch.setattr(hooks.Log, 'after_step', after_step)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_exits_0_and_goes_on(tmp_path, monkeypatch, capsys, number):
  with monkeypatch.context() as patch:
    at_step(patch, 1, lambda: os.kill(os.getpid(), number))
    assert train(tmp_path / 'run') == 0
  said = capsys.readouterr().err
  assert f'stopped by {number.name} at step 1, which is saved; run the same command to go on' in said
  assert not (tmp_path / 'run' / 'summary.json').exists()
  assert train(tmp_path / 'run') == 0
  assert 'at step 1 of 2' in capsys.readouterr().err
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  spent = summary['time']
  assert summary['step'] == 2 and spent['attempts'] == 2
  assert sum(spent['attempt_seconds'].values()) == pytest.approx(spent['attempt_wall_seconds'], abs=1e-3)
  assert sum(spent['seconds'].values()) == pytest.approx(spent['wall_seconds'], abs=1e-3)
  assert spent['wall_seconds'] > spent['attempt_wall_seconds'] > spent['time_to_first_step'] > 0
  assert 0 < spent['goodput'] < 1 and spent['seconds']['save'] > 0 and spent['seconds']['startup'] > 0


def test_a_signal_in_start_up_exits_0_and_leaves_nothing_in_the_way(tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    patch.setattr(workdir, 'describe', lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert train(tmp_path / 'run') == 0
  assert 'stopped by SIGTERM before training began' in capsys.readouterr().err
  assert train(tmp_path / 'run') == 0


def test_a_process_that_dies_between_its_two_files_leaves_a_run_that_has_not_begun(tmp_path, monkeypatch):
  write = atomic.write_json

  def dies(path, value):
    write(path, value)
    if path.name == 'run.json':
      raise RuntimeError('dies')

  with monkeypatch.context() as patch:
    patch.setattr(atomic, 'write_json', dies)
    with pytest.raises(RuntimeError, match='dies'):
      train(tmp_path / 'run')
  assert train(tmp_path / 'run') == 0


@pytest.mark.parametrize(('error', 'code'), [(StorageError('the checkpoint of step 1 could not be written'), 6),
                                             (OSError(errno.ENOSPC, 'No space left on device'), 6),
                                             (OSError(errno.EROFS, 'Read-only file system'), 6),])
def test_a_full_or_read_only_disk_exits_6(tmp_path, monkeypatch, capsys, error, code):
  def fail():
    raise error

  at_step(monkeypatch, 1, fail)
  assert train(tmp_path / 'run') == code
  said = capsys.readouterr().err
  assert 'stopped' in said and str(error) in said


def test_other_errors_of_the_system_are_not_explained_away(tmp_path, monkeypatch):
  at_step(monkeypatch, 1, lambda: os.stat(tmp_path / 'nothing'))
  with pytest.raises(FileNotFoundError):
    train(tmp_path / 'run')


def test_nan_policies_come_from_the_config(tmp_path, capsys):
  explodes = ('--config.optimizers.net.lr=1e30', '--config.steps=6', '--config.checkpoint.every=1')
  assert train(tmp_path / 'rollback', *explodes, '--config.nonfinite.policy=rollback',
               '--config.nonfinite.limit=2') == 3
  said = capsys.readouterr().err
  assert 'rollback 2 of at most 2' in said and 'the last good checkpoint is step' in said
  assert train(tmp_path / 'bad', '--config.nonfinite.policy=ignore') == 2
  assert train(tmp_path / 'bad', '--config.watchdog_seconds=-1.0') == 2


def test_warm_start_prints_a_report_and_is_not_done_again(tmp_path, capsys):
  assert train(tmp_path / 'first') == 0
  for source in ('nothing', f'{tmp_path}/first@x', f'{tmp_path}/first@7'):
    assert train(tmp_path / 'second', f'--config.init_from={source}') == 2
    assert source.rpartition('@')[2] in capsys.readouterr().err
  argv = (f'--config.init_from={tmp_path}/first@2', '--config.init.averaged=True',
          "--config.init.rules=(('drop', 'net/.*bias'), ('keep', 'net/.*bias'))")
  assert train(tmp_path / 'third', *argv) == 0
  said = capsys.readouterr().err
  assert f'beginning with step 2 of {tmp_path}/first' in said and 'kept initial' in said
  assert train(tmp_path / 'third', *argv) == 0
  assert 'beginning with' not in capsys.readouterr().err


def test_compiled_programs_are_kept_between_processes(monkeypatch, tmp_path):
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  try:
    workdir.compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / '.cache' / 'genjax' / 'xla')
    assert jax.config.jax_enable_compilation_cache
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
