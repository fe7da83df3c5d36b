"""events.jsonl tells what happens beside the steps."""

import json

import pytest

from genjax.training import events, hooks, loop, stopping
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs
from genjax.types import NonFiniteError


class Do(hooks.Hook):
  """Calls a function after a step."""

  def __init__(self, step, function):
    self.step, self.function = step, function

  def after_step(self, run, metrics):
    if run.step == self.step:
      self.function()


def ask_to_stop():
  stopping._noted = 'SIGTERM'


def fail():
  raise RuntimeError('a broken disk <b>')


def train(run, folder, *more):
  """Trains with a log every three steps and a checkpoint every four; the events of the folder."""
  checkpoints, happened = Checkpoints(folder / 'checkpoints'), events.Events(folder)
  state = checkpoints.restore(run.target, logs.say)
  if state is not None:
    run.restore(state)
  save = hooks.Save(checkpoints, 4, {})
  try:
    with happened.told(run):
      loop.train(run, [hooks.Log(logs.Writer(folder), 3), *more, save, hooks.RollBack(save), happened])
  except (stopping.Stopped, NonFiniteError, RuntimeError):
    stopping._noted = None
  finally:
    checkpoints.close()
  return [json.loads(line) for line in (folder / events.NAME).read_text().splitlines()]


def short(found):
  return [(entry['event'], entry['step']) for entry in found]


def test_stops_and_resumes(tmp_path, small_run):
  found = train(small_run(), tmp_path, Do(6, ask_to_stop))
  assert short(found) == [('started', 0), ('stopped', 6)] and found[1]['text'] == 'by SIGTERM'
  found = train(small_run(), tmp_path)
  assert short(found) == [('started', 0), ('stopped', 6), ('resumed', 6), ('finished', 12)]
  assert all(entry['time'].startswith('20') and '+00:00' in entry['time'] for entry in found)


def test_a_killed_process_is_told_by_the_next(tmp_path, small_run):
  train(small_run(), tmp_path, Do(4, ask_to_stop))
  run = small_run()
  run.reached = 7
  assert train(run, tmp_path)[2]['text'] == 'attempt 1; step 7 had been reached'


def test_skips_and_roll_backs(tmp_path, small_run):
  found = train(small_run([2, 7, 8, 12], nonfinite='skip'), tmp_path / 'skip')
  assert short(found) == [('started', 0), ('skipped', 3), ('skipped', 9), ('skipped', 12), ('finished', 12)]
  assert found[2]['text'].startswith('2 updates')
  found = train(small_run([7], nonfinite='rollback'), tmp_path / 'back')
  assert short(found) == [('started', 0), ('rolled back', 7), ('finished', 12)]
  assert found[1]['text'].endswith('; to step 4') and 'is nan at step 7' in found[1]['text']


@pytest.mark.parametrize(('bad', 'more', 'said'), [
  ([3], (), ('failed', 3, 'NonFiniteError: ')), ([], (Do(5, fail),), ('failed', 5, 'RuntimeError: a broken disk <b>'))])
def test_failures(tmp_path, small_run, bad, more, said):
  event, step, text = said
  last = train(small_run(bad), tmp_path, *more)[-1]
  assert (last['event'], last['step']) == (event, step) and last['text'].startswith(text)


def test_only_the_first_process_writes(tmp_path, small_run, monkeypatch):
  monkeypatch.setattr(events.distributed, 'is_first', lambda: False)
  happened = events.Events(tmp_path)
  happened.start(small_run())
  assert not (tmp_path / events.NAME).exists()


def test_sizes(small_run):
  assert small_run().sizes() == {'parameters': {'a': 3, 'b': 3}, 'frozen_parameters': 0,
                                 'step_flops': small_run().step_flops(('first', 'second'))}
