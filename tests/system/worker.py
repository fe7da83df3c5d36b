"""One of several processes that a test starts: what the words in WORKER say, with the flags of `genjax.cli.hosts`."""

import argparse
import os
import signal
import sys
import time
import traceback

import jax
import numpy as np
import pytest

from genjax import distributed, sharding
from genjax.cli import hosts
from genjax.types import UserError


def talk():
  """What the processes tell each other."""
  me = distributed.gather(os.getpid(), 'pids').index(os.getpid())
  assert distributed.is_first() == (me == 0)
  assert distributed.broadcast({'from': me}, 'a value') == {'from': 0}
  order = []
  with distributed.first_then_others('work'):
    with distributed.first_then_others('work within'):
      order.append(time.monotonic())
      time.sleep(0.3 if me == 0 else 0)
  begun = distributed.gather(order[0], 'times')
  assert all(later >= begun[0] + 0.3 for later in begun[1:])
  distributed.check_equal([1, (2, 3)], 'what is equal')
  with pytest.raises(UserError, match="process 0 has 'value 0', and process 1 has 'value 1'"):
    distributed.check_equal(f'value {me}', 'what differs')
  with pytest.raises(UserError, match='no space'):
    fail_first(me)
  distributed.barrier('together')


def fail_first(me):
  with distributed.first_then_others('a failure'):
    assert me == 0, 'the others do not begin'
    raise UserError('no space')


def rows():
  """Batches on a mesh whose devices lie so that a process holds every second row."""
  devices = np.asarray(jax.devices()).reshape(2, -1).T.reshape(-1)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': -1}, list(devices))
  mine = sharding.local_rows(mesh, 16)
  assert mine.tolist() == [2 * i + part for i in range(jax.process_index(), 8, 2) for part in (0, 1)]
  whole = np.arange(48).reshape(16, 3)
  batch = sharding.put_batch({'x': whole[mine]}, mesh)['x']
  everywhere = sharding.replicated(mesh)
  assert np.array_equal(jax.device_get(jax.jit(lambda x: x, out_shardings=everywhere)(batch)), whole)
  placed = sharding.put_tree({'w': whole}, {'w': sharding.batch_sharding(mesh)})['w']
  assert np.array_equal(jax.device_get(jax.jit(lambda x: x, out_shardings=everywhere)(placed)), whole)


def late():
  """Process 0 compiles longer, and later comes later to a collective, than Gloo waits for the first one."""
  mesh = sharding.make_mesh({'data': -1})
  pause = lambda: time.sleep(35 if distributed.is_first() else 0)

  def traced(x):
    pause()
    return x.sum()

  total = distributed.compiled_together(jax.jit(traced, out_shardings=sharding.replicated(mesh)), 'a sum')
  batch = sharding.put_batch({'x': np.ones(jax.local_device_count())}, mesh)['x']
  assert float(total(batch)) == jax.device_count()
  pause()
  assert float(total(batch)) == jax.device_count()


def stop():
  """Steps until all are asked to stop together."""
  count = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(sharding.make_mesh({'data': -1})))
  batch = sharding.put_batch({'x': np.ones(jax.local_device_count())}, sharding.make_mesh({'data': -1}))['x']
  step = 0
  while not ASKED:
    count(batch).block_until_ready()
    step += 1
    print(f'step {step}', flush=True)
    distributed.stop_together(step)
    time.sleep(0.02)
  assert ASKED == ['SIGTERM']
  print(f'stopped at {step}', flush=True)


def wait():
  """Process 1 does not come to a barrier."""
  if not distributed.is_first():
    time.sleep(60)
  distributed.barrier('where one is missing', seconds=2)


def silent():
  """Process 1 lives, and does nothing at all."""
  if distributed.is_first():
    time.sleep(60)
  else:
    os.kill(os.getpid(), signal.SIGSTOP)


ASKED = []

if __name__ == '__main__':
  signal.signal(signal.SIGTERM, lambda number, frame: ASKED.append(signal.Signals(number).name))
  parser = argparse.ArgumentParser()
  hosts.add(parser)
  assert distributed.join(hosts.options(parser.parse_args()), stops=True)
  assert jax.process_count() > 1
  try:
    for name in os.environ['WORKER'].split():
      globals()[name]()
  except Exception:
    traceback.print_exc()
    distributed.leave(1, 'an error')
  sys.exit(distributed.leave(0))
