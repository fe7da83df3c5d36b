"""Checkpoints: kept, chosen, damaged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.checkpoint import Checkpoints
from genjax.training.state import TrainState
from genjax.types import UserError


def state(step):
  return TrainState(step=jnp.int32(step), params={'net': {'w': jnp.full((64, 64), float(step))}}, mutable={}, opt={'net': ()}, ema={})


TARGET = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0))


def filled(folder, steps=(1, 2, 3, 4), **options):
  checkpoints = Checkpoints(folder / 'checkpoints', **options)
  for step in steps:
    checkpoints.save(step, state(step), {'step': step}, {'loss': abs(step - 1.9)})
  checkpoints.wait()
  return checkpoints


def damage(folder, step):
  """Cuts the arrays of a checkpoint short."""
  files = [path for path in (folder / 'checkpoints' / str(step) / 'state').rglob('*') if path.is_file() and '/d/' in str(path)]
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
