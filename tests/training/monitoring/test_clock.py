"""Time adds up, whatever is nested in what; what was compiled is known; a killed attempt is counted."""

import contextlib
import json
import time

import jax
import jax.numpy as jnp
import pytest

from genjax.training import hooks, loop
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import clock as clock_lib
from genjax.training.monitoring import logs
from genjax.training.monitoring.clock import Clock, Status


@pytest.fixture
def clock():
  clock = Clock()
  clock.listen()
  yield clock
  clock.close()


def test_sections_are_exclusive_and_add_up(clock):
  begin = time.perf_counter()
  clock.started()
  with clock.section('step'):
    time.sleep(0.02)
    with clock.section('save'):
      time.sleep(0.03)
  with contextlib.suppress(ValueError), clock.section('evaluate'):
    time.sleep(0.01)
    raise ValueError
  seconds = clock.seconds()
  assert sum(seconds.values()) == pytest.approx(time.perf_counter() - begin, abs=0.005)
  assert 0.02 <= seconds['step'] < 0.03 and seconds['save'] >= 0.03 and seconds['evaluate'] >= 0.01
  assert set(seconds) == set(clock_lib.SECTIONS)


def test_compilation_is_taken_out_of_its_section(clock):
  with clock.section('step'):
    jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T + 12.375)(jnp.ones((3, 5))).block_until_ready()
  seconds = clock.seconds()
  assert seconds['compile'] > 0.005 > seconds['step'] - 0.5 and all(value > -1e-3 for value in seconds.values())
  with clock.section('evaluate'):
    inner = clock.seconds()['evaluate']
    time.sleep(0.05)
    # A report of 40 ms that holds one of 30 ms: together 40.
    jax.monitoring.record_event_duration_secs('/jax/core/compile/jaxpr_trace_duration', 0.03)
    jax.monitoring.record_event_duration_secs('/jax/core/compile/backend_compile_duration', 0.04)
  later = clock.seconds()
  assert later['compile'] - seconds['compile'] == pytest.approx(0.04, abs=2e-3)
  assert later['evaluate'] - inner == pytest.approx(0.01, abs=5e-3)


def test_the_status_is_what_a_killed_process_leaves(tmp_path):
  path = tmp_path / 'status.json'
  first = Clock(status=Status(path))
  first.started()
  with first.section('step'):
    time.sleep(0.02)
  first.finished_step(7)
  with first.section('evaluate'):
    record = json.loads(path.read_text())  # as if it were killed here
  assert (record['doing'], record['step'], record['attempt']) == ('evaluate', 7,
                                                                  1) and record['seconds']['step'] >= 0.02
  status = Status(path)
  assert (status.attempt, status.reached, status.damaged) == (2, 7, False)
  second = Clock(status=status)
  second.finished_step(5)
  summary = second.summary()
  assert summary['attempts'] == 2 and summary['seconds']['step'] >= 0.02 > summary['attempt_seconds']['step']
  assert sum(summary['seconds'].values()) == pytest.approx(summary['wall_seconds'])
  assert summary['goodput'] == pytest.approx(summary['seconds']['step'] / summary['wall_seconds'])
  second.close()
  assert Status(path).reached == 7  # the furthest of all attempts


def test_a_damaged_status_is_said(tmp_path):
  path = tmp_path / 'status.json'
  path.write_text('{"attempt": 1, ')
  status = Status(path)
  assert status.damaged and status.attempt == 1
  status.write('step', 1, {})
  assert Status(path).attempt == 2


def test_steps_that_are_run_again_are_lost_time(tmp_path, small_run):
  run = small_run()
  run.reached = 12
  loop.train(run, [hooks.Log(logs.Writer(tmp_path), 3), hooks.Save(Checkpoints(tmp_path / 'checkpoints'), 4, {})])
  seconds = run.clock.seconds()
  assert seconds['lost'] > 0 and seconds['step'] == 0
  run = small_run()
  loop.train(run, [hooks.Log(logs.Writer(tmp_path), 3)])
  seconds = run.clock.seconds()
  assert seconds['lost'] == 0 and seconds['step'] > 0 and seconds['data'] > 0
