"""The watchdog ends a process that hangs, with the stacks of its threads, and no other."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from genjax.training import loop
from genjax.training.monitoring.watchdog import Watchdog
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent.parent
HANGS = '''
import pathlib, sys, threading, types
from genjax.training.monitoring.clock import Clock
from genjax.training.monitoring.watchdog import Watchdog

run = types.SimpleNamespace(clock=Clock(), step=3)
watchdog = Watchdog(pathlib.Path(sys.argv[1]), 0.5)
watchdog.start(run)

def waits_for_ever():
  threading.Event().wait()

waits_for_ever()
'''


def test_a_hang_dumps_the_stacks_and_exits_5(tmp_path):
  done = subprocess.run([sys.executable, '-c', HANGS, str(tmp_path / 'watchdog.txt')], capture_output=True, text=True,
                        timeout=120, env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 5, done.stderr
  for text in (done.stderr, (tmp_path / 'watchdog.txt').read_text()):
    assert 'waits_for_ever' in text and 'after step 3' in text and 'watchdog_seconds=0.5' in text


def test_a_run_that_goes_on_is_left_alone_and_the_thread_ends(tmp_path, small_run):
  run, watchdog = small_run(), Watchdog(tmp_path / 'watchdog.txt', 60)
  run.clock.beaten -= 1000  # start-up does not count
  loop.train(run, [watchdog])
  assert run.step == 12 and not (tmp_path / 'watchdog.txt').exists()
  assert watchdog._thread is not None and not watchdog._thread.is_alive()
  assert time.perf_counter() - run.clock.beaten < 60


def test_switched_off_and_wrong(tmp_path, small_run):
  watchdog = Watchdog(tmp_path / 'watchdog.txt', 0)
  loop.train(small_run(), [watchdog])
  assert watchdog._thread is None
  with pytest.raises(UserError, match='-1'):
    Watchdog(tmp_path / 'watchdog.txt', -1)
