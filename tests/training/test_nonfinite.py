"""What a NaN does: abort, skip, or roll back."""

import jax
import numpy as np
import pytest

from genjax.training import hooks, loop, stopping
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs
from genjax.types import NonFiniteError, UserError


class StopAfter(hooks.Hook):
  """Stops the process, as SIGTERM does, after a step."""

  def __init__(self, step):
    self.step = step

  def after_step(self, run, metrics):
    if run.step == self.step:
      stopping._noted = 'SIGTERM'


def train(run, folder, *more, every=4):
  checkpoints = Checkpoints(folder / 'checkpoints')
  state = checkpoints.restore(run.target, logs.say)
  if state is not None:
    run.restore(state)
    run.rollbacks = checkpoints.description(run.step)['rollbacks']
    checkpoints.discard_after(run.step)
  save = hooks.Save(checkpoints, every, {})
  try:
    loop.train(run, [hooks.Log(logs.Writer(folder), 3), *more, save, hooks.RollBack(save)])
  except stopping.Stopped as stopped:
    stopping._noted = None
    return stopped.step
  finally:
    checkpoints.close()
  return run.step


def test_abort_is_the_default_and_keeps_the_last_good_checkpoint(tmp_path, small_run):
  run = small_run(bad=[7])
  with pytest.raises(NonFiniteError, match=r"loss of phase 'first' is nan at step 7|step 7"):
    train(run, tmp_path)
  assert Checkpoints(tmp_path / 'checkpoints').steps() == [4]


@pytest.mark.parametrize('bad', [[7], [8], [12], [1], [5, 6]])
def test_a_skipped_step_changes_nothing_but_the_step(tmp_path, small_run, state_bytes, bad):
  run = small_run(bad, nonfinite='skip')
  for columns in run.experiment.train.iterate(0, slice(None)):
    before = state_bytes(run)
    metrics = run.train_step(columns)
    after = state_bytes(run)
    changed = {name for name in before if before[name] != after[name]}
    assert (changed == {'.step'}) is (run.step in bad)
    assert float(metrics['skipped']) == (run.step in bad)
    if run.step == 12:
      break
  run.check_finite()
  assert run.skipped == len(bad)


def test_skipping_says_how_many_and_leaves_them_out_of_the_means(tmp_path, small_run, capsys):
  run = small_run([5, 6], nonfinite='skip')
  assert train(run, tmp_path) == 12
  assert '2 of the last 3 updates skipped' in capsys.readouterr().err
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()


def test_skipping_without_bad_numbers_changes_nothing(tmp_path, small_run):
  plain, skipping = small_run(), small_run(nonfinite='skip')
  assert train(plain, tmp_path / 'plain') == train(skipping, tmp_path / 'skipping') == 12
  # Not bit for bit: the compiler may fuse another program in another way.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain.state, skipping.state)


def test_under_abort_the_step_computes_nothing_more(small_run):
  text = {policy: str(jax.make_jaxpr(run.program.one_step, static_argnums=3)(
    run.state, {}, {'x': jax.ShapeDtypeStruct((4, 3), 'float32')}, ('first', 'second')))
    for policy in ('abort', 'rollback', 'skip') for run in [small_run(nonfinite=policy)]}
  assert 'is_finite' not in text['abort'] and text['rollback'] == text['abort'] and 'is_finite' in text['skip']


def test_too_many_in_a_row_end_the_run(tmp_path, small_run):
  with pytest.raises(NonFiniteError, match='step 8'):
    train(small_run([5, 6, 7, 8, 9], nonfinite='skip', nonfinite_limit=3), tmp_path)
  assert train(small_run([5, 6, 7, 9, 10, 11], nonfinite='skip', nonfinite_limit=3), tmp_path / 'fewer') == 12


def test_rolling_back_goes_on_from_the_last_checkpoint_after_the_bad_batch(tmp_path, small_run, state_bytes):
  run = small_run([7], nonfinite='rollback')
  assert train(run, tmp_path) == 12
  assert run.rollbacks == [[4, 7]]
  # Steps 8 to 12 ran on what step 4 had left.
  other = small_run()
  batches = dict(zip(range(1, 13), other.experiment.train.iterate(0, slice(None))))
  for step in (1, 2, 3, 4):
    other.train_step(batches[step])
  other.roll_back(other.state, 7)
  for step in (8, 9, 10, 11, 12):
    other.train_step(batches[step])
  assert state_bytes(other) == state_bytes(run)


def test_a_bad_first_or_last_step_rolls_back_too(tmp_path, small_run):
  first, last = small_run([1], nonfinite='rollback'), small_run([12], nonfinite='rollback')
  assert train(first, tmp_path / 'first') == 12 and first.rollbacks == [[0, 1]]
  assert train(last, tmp_path / 'last') == 12 and last.rollbacks == [[8, 12]]
  last.check_finite()


def test_rollbacks_are_bounded(tmp_path, small_run):
  with pytest.raises(NonFiniteError, match='step 9'):
    train(small_run([5, 7, 9], nonfinite='rollback', nonfinite_limit=2), tmp_path)
  # The count is part of the checkpoints: another process does not begin anew.
  with pytest.raises(NonFiniteError, match='step 9'):
    train(small_run([5, 7, 9], nonfinite='rollback', nonfinite_limit=2), tmp_path)


@pytest.mark.parametrize(('policy', 'stops'), [('rollback', [7]), ('rollback', [2, 3]), ('rollback', [5, 6, 9]),
                                               ('skip', [6, 7])])
def test_stopped_and_resumed_runs_end_in_the_same_bytes(tmp_path, small_run, state_bytes, policy, stops):
  straight = small_run([7, 10], nonfinite=policy)
  train(straight, tmp_path / 'straight')
  for stop in stops:
    train(small_run([7, 10], nonfinite=policy), tmp_path / 'stopped', StopAfter(stop))
  resumed = small_run([7, 10], nonfinite=policy)
  assert train(resumed, tmp_path / 'stopped') == 12
  assert state_bytes(resumed) == state_bytes(straight)
  assert resumed.rollbacks == straight.rollbacks
  kept = [Checkpoints(tmp_path / name / 'checkpoints').steps() for name in ('straight', 'stopped')]
  assert kept[0] == kept[1]


def test_bad_policies(small_run):
  with pytest.raises(UserError, match="nonfinite.policy must be one of"):
    small_run(nonfinite='ignore')
  with pytest.raises(UserError, match='at least 1'):
    small_run(nonfinite_limit=0)
