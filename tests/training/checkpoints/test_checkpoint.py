"""Checkpoints: kept, chosen, damaged, and what is said when they cannot be written."""

import errno
import math
import os
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.checkpoints import checkpoint, integrity
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.state import TrainState
from genjax.types import StorageError, UserError


def state(step):
  return TrainState(step=jnp.int32(step), params={'net': {'w': jnp.full((64, 64), float(step))}}, mutable={},
                    opt={'net': ()}, ema={})


TARGET = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0))


def filled(folder, steps=(1, 2, 3, 4), **options):
  checkpoints = Checkpoints(folder / 'checkpoints', **options)
  for step in steps:
    checkpoints.save(step, state(step), {'step': step}, {'loss': abs(step - 1.9)})
  checkpoints.wait()
  return checkpoints


def damage(folder, step):
  """Cuts the arrays of a checkpoint short."""
  files = [
    path for path in (folder / 'checkpoints' / str(step) / 'state').rglob('*') if path.is_file() and '/d/' in str(path)
  ]
  assert files
  for path in files:
    path.write_bytes(path.read_bytes()[:10])


def test_the_newest_and_the_best_are_kept(tmp_path):
  checkpoints = filled(tmp_path, keep=2, best='loss')
  assert checkpoints.steps() == [2, 3, 4]
  assert filled(tmp_path / 'other', keep=1, best='loss', mode='max').steps() == [4]
  restored = checkpoints.restore(TARGET, pytest.fail)
  assert int(restored.step) == 4 and np.all(np.asarray(restored.params['net']['w']) == 4)
  assert int(checkpoints.restore(TARGET, pytest.fail, step=2).step) == 2


def test_the_best_is_still_known_after_a_restart_and_unmeasured_ones_do_not_pile_up(tmp_path):
  filled(tmp_path, steps=(1, 2, 3), keep=1, best='loss').close()
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1, best='loss')
  for step in (4, 5):
    checkpoints.save(step, state(step), {}, {'loss': 9.0})
  for step in (6, 7):
    checkpoints.save(step, state(step), {}, None)
  checkpoints.wait()
  assert checkpoints.steps() == [2, 7]


@pytest.mark.parametrize(('mode', 'best'), [('min', 2), ('max', 4)])
def test_the_best_is_found_in_another_process_too(tmp_path, mode, best):
  checkpoints = filled(tmp_path, keep=1, best='loss', mode=mode)
  checkpoints.save(5, state(5), {}, None)  # not evaluated
  assert checkpoints.best_step() == best
  checkpoints.close()
  assert Checkpoints(tmp_path / 'checkpoints', keep=1, best='loss', mode=mode).best_step() == best


@pytest.mark.parametrize(('mode', 'losses', 'kept', 'best'), [
  ('min', [1.0, math.nan, 2.0, 3.0], [1, 4], 1),
  ('max', [3.0, math.nan, 2.0, 1.0], [1, 4], 1),
  ('min', [math.nan, 2.0, math.nan, 1.5, math.nan], [4, 5], 4),
  ('min', [1.0, -math.inf, 2.0], [1, 3], 1),
  ('max', [1.0, math.inf, math.nan, 0.5], [1, 4], 1),
  ('min', [math.inf, 5.0, math.nan], [2, 3], 2),
])
def test_what_is_not_finite_is_never_best_and_deletes_nothing(tmp_path, mode, losses, kept, best):
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1, best='loss', mode=mode)
  for step, loss in enumerate(losses, 1):
    checkpoints.save(step, state(step), {}, {'loss': loss})
  checkpoints.wait()
  assert checkpoints.steps() == kept and checkpoints.best_step() == best
  checkpoints.close()
  again = Checkpoints(tmp_path / 'checkpoints', keep=1, best='loss', mode=mode)
  assert again.best_step() == best
  again.save(9, state(9), {}, {'loss': math.nan})
  again.wait()
  assert again.steps() == [best, 9] and again.best_step() == best


@pytest.mark.parametrize('mode', ['min', 'max'])
def test_a_nan_that_an_older_version_saved_as_a_metric_is_not_best(tmp_path, mode, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, '_is_number', lambda value: value is not None)
    filled(tmp_path, steps=(1,), keep=3, best='loss', mode=mode).close()
    old = Checkpoints(tmp_path / 'checkpoints', keep=3, best='loss', mode=mode)
    old.save(2, state(2), {}, {'loss': math.nan})
    old.close()
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1, best='loss', mode=mode)
  assert checkpoints.best_step() == 1
  checkpoints.save(3, state(3), {}, {'loss': 0.8})
  checkpoints.wait()
  assert checkpoints.steps() == ([3] if mode == 'min' else [1, 3])


def test_a_best_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(UserError, match=r'without config\.checkpoint\.best.*\[3, 4\]'):
    filled(tmp_path).best_step()
  with pytest.raises(UserError, match=r"has the metric 'loss' yet; there are \[\]"):
    Checkpoints(tmp_path / 'none', best='loss').best_step()
  checkpoints = Checkpoints(tmp_path / 'unmeasured', best='loss')
  checkpoints.save(1, state(1), {}, None)
  checkpoints.wait()
  with pytest.raises(UserError, match=r"has the metric 'loss' yet; there are \[1\]"):
    checkpoints.best_step()
  checkpoints.save(2, state(2), {}, {'loss': math.nan})
  checkpoints.wait()
  with pytest.raises(UserError, match=r'there are \[1, 2\] \(NaN'):
    checkpoints.best_step()


# Orbax drops its own background tasks when a read fails.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(tmp_path):
  filled(tmp_path).close()
  damage(tmp_path, 4)
  said = []
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  restored = checkpoints.restore(TARGET, said.append)
  assert int(restored.step) == 3 and np.all(np.asarray(restored.params['net']['w']) == 3)
  assert len(said) == 1 and 'checkpoints/4 cannot be read' in said[0]
  checkpoints.discard_after(3)
  checkpoints.save(4, state(4), {}, None)
  checkpoints.wait()
  assert int(checkpoints.restore(TARGET, pytest.fail).step) == 4


def changed(path, how):
  """Flips a bit in the middle of a file, cuts it in half, or removes it."""
  data = bytearray(path.read_bytes())
  if how == 'removed':
    path.unlink()
  elif how == 'cut':
    path.write_bytes(data[:len(data) // 2])
  else:
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize('how', ['flipped', 'cut', 'removed'])
def test_a_change_of_any_file_is_found_and_the_previous_checkpoint_used(tmp_path, how):
  filled(tmp_path, steps=(1, 2)).close()
  files = sorted(path for path in (tmp_path / 'checkpoints' / '2').rglob('*') if path.is_file())
  assert len(files) > 8 and any('/d/' in str(path) for path in files) and any(
    path.name == integrity.NAME for path in files)
  for path in files:
    original, said = path.read_bytes(), []
    changed(path, how)
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    assert int(checkpoints.restore(TARGET, said.append).step) == 1, path
    assert len(said) == 1 and 'checkpoints/2 ' in said[0], path
    assert path.name in said[0] or 'not finished' in said[0]
    checkpoints.close()
    path.write_bytes(original)
  assert int(Checkpoints(tmp_path / 'checkpoints').restore(TARGET, pytest.fail).step) == 2


def test_a_checkpoint_of_before_there_were_checksums_is_read_and_said(tmp_path):
  filled(tmp_path, steps=(1, 2)).close()
  folder = tmp_path / 'checkpoints' / '2'
  (folder / integrity.NAME).unlink()
  metadata = folder / '_CHECKPOINT_METADATA'
  metadata.write_text(metadata.read_text().replace(f'{{"checksums": "{integrity.NAME}"}}', '{}'))
  said = []
  assert int(Checkpoints(tmp_path / 'checkpoints').restore(TARGET, said.append).step) == 2
  assert len(said) == 1 and 'without being verified' in said[0]


def test_checkpoints_out_of_schedule_do_not_push_out_others_and_go_when_a_later_one_comes(tmp_path):
  filled(tmp_path, steps=(1, 2), keep=2).close()
  for step in (3, 4):  # each in a process of its own
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=2)
    checkpoints.save(step, state(step), {'from': step}, None, interim=True)
    checkpoints.close()
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=2)
  assert checkpoints.steps() == [1, 2, 3, 4] and checkpoints.steps(interim=False) == [1, 2]
  assert int(checkpoints.restore(TARGET, pytest.fail).step) == 4 and checkpoints.description(4) == {'from': 4}
  assert int(checkpoints.restore(TARGET, pytest.fail, before=4).step) == 2
  checkpoints.save(5, state(5), {}, None)
  checkpoints.wait()
  assert checkpoints.steps() == [2, 5]


def test_variables_are_read_without_knowing_the_model(tmp_path):
  checkpoints = filled(tmp_path, steps=(1, 2))
  step, tree = checkpoints.load(pytest.fail)
  assert step == 2 and set(tree) <= {'params', 'mutable', 'ema'} and isinstance(tree['params']['net']['w'], np.ndarray)
  np.testing.assert_array_equal(tree['params']['net']['w'], np.full((64, 64), 2.0))
  step, tree = checkpoints.load(pytest.fail, 1, ('step',))
  assert step == 1 and set(tree) == {'step'} and int(tree['step']) == 1
  with pytest.raises(UserError, match=r'no checkpoint of step 7.*\[1, 2\]'):
    checkpoints.load(pytest.fail, 7)


def test_a_disk_that_fails_in_the_background_is_reported_with_the_last_good_checkpoint(tmp_path, monkeypatch):
  checkpoints = filled(tmp_path, steps=(1, 2))

  def fails(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  with monkeypatch.context() as patch:
    patch.setattr(integrity, '_digest', fails)
    checkpoints.save(3, state(3), {}, None)

    def steps():
      for _ in range(1000):
        time.sleep(0.01)
        checkpoints.check()

    with pytest.raises(StorageError, match=r'step 3 could not.*Read-only file system.*last good checkpoint is step 2'):
      steps()
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  said = []
  assert int(checkpoints.restore(TARGET, said.append).step) == 2 and 'was not finished' in said[0]
  checkpoints.discard_after(2)
  checkpoints.save(3, state(3), {}, None)
  checkpoints.close()
  assert Checkpoints(tmp_path / 'checkpoints').steps() == [2, 3]


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 400 KiB; skips where one may not be mounted."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'none', str(folder)]
  if not shutil.which('mount') or subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('no file system may be mounted here')
  yield folder
  subprocess.run(['umount', '-l', folder], check=True)


def test_a_full_disk_is_reported_within_one_save(small_disk):
  checkpoints = Checkpoints(small_disk / 'checkpoints', keep=100)

  def fill():
    for step in range(1, 30):
      checkpoints.save(step, state(step), {}, None)

  with pytest.raises(
      StorageError, match=r'could not be written.*No space left.*0 MiB are free.*last good checkpoint is step'):
    fill()
  good = checkpoints.steps()
  checkpoints.close()
  assert good and int(Checkpoints(small_disk / 'checkpoints').restore(TARGET, lambda line: None).step) == good[-1]


def test_an_unfinished_checkpoint_is_said_and_ignored(tmp_path):
  checkpoints = filled(tmp_path)
  (tmp_path / 'checkpoints' / '5.orbax-checkpoint-tmp-0').mkdir()
  said = []
  assert int(checkpoints.restore(TARGET, said.append).step) == 4
  assert len(said) == 1 and 'was not finished' in said[0]


# Orbax drops its own background tasks when a read fails.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_nothing_readable_is_an_error_and_nothing_there_is_none(tmp_path):
  assert Checkpoints(tmp_path / 'none').restore(TARGET, pytest.fail) is None
  filled(tmp_path).close()
  for step in (3, 4):
    damage(tmp_path, step)
  with pytest.raises(UserError, match='can be read'):
    Checkpoints(tmp_path / 'checkpoints').restore(TARGET, lambda line: None)
  with pytest.raises(UserError, match=r'no checkpoint of step 9.*\[3, 4\]'):
    Checkpoints(tmp_path / 'checkpoints').restore(TARGET, lambda line: None, step=9)


def test_bad_options(tmp_path):
  with pytest.raises(UserError, match="'min' or 'max'"):
    Checkpoints(tmp_path, mode='lowest')
  with pytest.raises(UserError, match='at least 1'):
    Checkpoints(tmp_path, keep=0)
  with pytest.raises(UserError, match=r"best='fid'.*\['loss'\]"):
    filled(tmp_path, best='fid')
