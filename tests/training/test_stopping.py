"""What signals do in each mode, and what a run that is asked to stop leaves behind."""

import os
import signal

import pytest

from genjax.training import hooks, loop, stopping
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs


@pytest.fixture
def installed():
  before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  stopping.install()
  yield
  stopping.uninstall()
  assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def kill(number=signal.SIGTERM):
  os.kill(os.getpid(), number)


def test_in_start_up_a_signal_stops_at_once(installed):
  with pytest.raises(stopping.Stopped, match='SIGTERM'):
    kill()
  assert stopping.in_start_up() and stopping.requested() == 'SIGTERM'
  with pytest.raises(stopping.Stopped):
    stopping.check()  # also where something swallowed it


def test_deferred_it_is_found_by_the_next_check(installed):
  with stopping.deferred():
    stopping.check()
    kill(signal.SIGINT)
    assert not stopping.in_start_up()
    with stopping.finishing():
      stopping.check()
    with pytest.raises(stopping.Stopped, match='SIGINT'):
      stopping.check()
    with pytest.raises(stopping.Stopped), stopping.at_once():
      pytest.fail('a signal of before is not found')


def test_a_second_interrupt_does_not_wait_and_a_second_sigterm_is_nothing_new(installed):
  with stopping.deferred():
    kill()
    kill()
    with pytest.raises(KeyboardInterrupt):
      kill(signal.SIGINT)


def test_within_a_step_at_once_is_for_the_wait_only(installed):
  with stopping.deferred():
    with pytest.raises(stopping.Stopped):
      with stopping.at_once():
        kill()
    stopping._noted = None
    kill()  # noted again only


class KillIn(hooks.Hook):
  """Sends SIGTERM where it is told to."""

  def __init__(self, where, step):
    self.where, self.step = where, step

  def before_step(self, run, columns):
    if self.where == 'before' and run.step == self.step - 1:
      kill()

  def after_step(self, run, metrics):
    if self.where == 'after' and run.step == self.step:
      kill()


@pytest.mark.parametrize('where', ['before', 'after'])
def test_the_last_finished_step_is_saved(tmp_path, installed, small_run, where):
  run, checkpoints = small_run(), Checkpoints(tmp_path / 'checkpoints')
  with pytest.raises(stopping.Stopped) as stopped:
    loop.train(run, [KillIn(where, 6), hooks.Log(logs.Writer(tmp_path), 100), hooks.Save(checkpoints, 4, {})])
  assert stopped.value.step == 6 and checkpoints.steps() == [4, 6] and checkpoints.steps(interim=False) == [4]
  assert '"step": 6' in (tmp_path / 'metrics.jsonl').read_text()  # what was measured since the last line


def test_before_the_first_step_the_initial_state_is_saved(tmp_path, installed, small_run):
  class Early(hooks.Hook):
    def start(self, run):
      kill()

  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  with pytest.raises(stopping.Stopped) as stopped:
    loop.train(small_run(), [Early(), hooks.Save(checkpoints, 4, {})])
  assert stopped.value.step == 0 and checkpoints.steps() == [0]
  stopping._noted = None
  resumed = small_run()
  resumed.restore(checkpoints.restore(resumed.target, pytest.fail))
  loop.train(resumed, [hooks.Save(checkpoints, 4, {})])
  assert checkpoints.steps() == [8, 12]


@pytest.mark.parametrize('needed', [False, True])
def test_a_stopped_evaluation_is_done_when_the_run_goes_on(tmp_path, installed, small_run, monkeypatch, needed):
  """Or finished first, where the checkpoint needs it."""
  run, checkpoints = small_run(), Checkpoints(tmp_path / 'checkpoints', best='error' if needed else '')
  epoch, writer = run.experiment.heldout.epoch, logs.Writer(tmp_path)

  def killing(rows):
    kill()
    yield from epoch(rows)

  def parts():
    return [hooks.Log(writer, 100), hooks.Evaluate(writer, 4, 0, needed), hooks.Save(checkpoints, 4, {})]

  monkeypatch.setattr(run.experiment.heldout, 'epoch', killing)
  with pytest.raises(stopping.Stopped):
    loop.train(run, parts())
  assert checkpoints.steps(interim=False) == [4] and writer.has(4, 'heldout/') is needed
  stopping._noted = None
  resumed = small_run()
  resumed.restore(checkpoints.restore(resumed.target, pytest.fail))
  loop.train(resumed, parts())
  assert all(writer.has(step, 'heldout/') for step in (4, 8, 12))
  assert (tmp_path / 'metrics.jsonl').read_text().count('heldout/error') == 3


def test_waiting_for_data_is_interrupted(tmp_path, installed, small_run, monkeypatch):
  run, checkpoints = small_run(), Checkpoints(tmp_path / 'checkpoints')
  iterate = run.experiment.train.iterate

  def stuck(start, rows):
    for index, columns in enumerate(iterate(start, rows)):
      if index == 3:
        kill()
        pytest.fail('the signal waited for the data')
      yield columns

  monkeypatch.setattr(run.experiment.train, 'iterate', stuck)
  with pytest.raises(stopping.Stopped) as stopped:
    loop.train(run, [hooks.Save(checkpoints, 4, {})])
  assert stopped.value.step == 3 and checkpoints.steps() == [3]
