"""Whole processes: a small fault campaign, other devices, no compilation after the beginning."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from genjax.cli import configs
from genjax.experiments.benchmarks import faults
from genjax.runs import builders
from genjax.runs import checkpoints as checkpoints_lib
from genjax.training import hooks, loop
from genjax.training.monitoring import logs
from genjax.training.run import Run

ROOT = pathlib.Path(__file__).parent.parent.parent
ARGV = ('--config.steps=2', '--config.batch_size=8', '--config.evaluate_every=0', '--config.sample_every=0')


@pytest.mark.slow
def test_a_small_fault_campaign_finds_nothing_lost(tmp_path, capsys):
  code = faults.main(['--kills=4', '--families=vae,gan', '--steps=60', f'--workdir={tmp_path}'])
  said = capsys.readouterr().out
  assert code == 0, said
  assert '4 kills, 0 problems' in said


def test_the_campaign_notices_what_differs(tmp_path, monkeypatch):
  """The comparison can fail: another array, checkpoint, evaluation and sample are problems."""
  campaign = faults.Campaign('vae', tmp_path, 20, 10)
  runs = {'a': ([10, 20], {'w': np.zeros(2)}, [{'step': 5}], {'x.png': b'1'}),
          'b': ([20], {'w': np.array([0.0, -0.0])}, [{'step': 6}], {'x.png': b'2'})}
  for name, index in (('checkpoint_steps', 0), ('evaluations', 2), ('samples', 3)):
    monkeypatch.setattr(faults, name, lambda path, index=index: runs[path.name][index])
  monkeypatch.setattr(faults, 'arrays', lambda path, step: runs[path.name][1])
  assert campaign.compare(tmp_path / 'a', tmp_path / 'a') == 2 and not campaign.problems
  campaign.compare(tmp_path / 'a', tmp_path / 'b')
  assert len(campaign.problems) == 4


def test_kills_cover_families_phases_and_signals():
  planned = faults.plan(52, list(faults.FAMILIES), 200, 0)
  assert sum(map(len, planned.values())) == 52
  for kills in planned.values():
    assert {(kill.phase, kill.number) for kill in kills
           } == {(phase, number) for phase in faults.PHASES for number in faults.SIGNALS}
    assert [kill.after for kill in kills] == sorted(kill.after for kill in kills) and kills[-1].after < 200
  assert len({
    (kill.phase, kill.number) for kills in faults.plan(4, list(faults.FAMILIES), 200, 0).values() for kill in kills
  }) == 4


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('family', faults.FAMILIES)
def test_a_run_of_eight_devices_goes_on_on_this_one(tmp_path, family):
  config, folder = f'--config={ROOT}/configs/{faults.FAMILIES[family]}.py:smoke', tmp_path / 'run'
  done = subprocess.run(
    [
      sys.executable, '-m', 'genjax.cli.main', 'train', config, f'--workdir={folder}', *ARGV, '--config.mesh.data=2',
      '--config.mesh.fsdp=4'
    ], capture_output=True, text=True, timeout=600,
    env={**os.environ, 'PYTHONPATH': str(ROOT),
         'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  assert done.returncode == 0, done.stderr
  values, paths = configs.parse('train', [config, *ARGV], '')
  run = Run(builders.build(values.config, paths), builders.settings(values.config))
  checkpoints = checkpoints_lib.of_run(folder, values.config)
  run.restore(checkpoints.restore(run.target, pytest.fail))
  _, written = checkpoints.load(pytest.fail, None, ('params', 'ema', 'opt', 'mutable', 'step'))
  checkpoints.close()
  expected = [leaf.tobytes() for leaf in jax.tree.leaves(written)]
  state = run.state
  parts = {'params': state.params, 'ema': state.ema, 'opt': state.opt, 'mutable': state.mutable, 'step': state.step}
  # Optimizer states come back as nested dicts when the model is unknown: in another order, so as multisets of arrays.
  assert sorted(expected) == sorted(
    np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(parts)) and len(expected) > 10
  run.train_step(next(run.experiment.train.iterate(2, run.rows(8))))
  run.check_finite()
  assert run.step == 3


@pytest.mark.slow
def test_nothing_is_compiled_after_each_combination_of_phases_ran_once(tmp_path):
  """Over more than an epoch, with evaluation and samples between steps; the discriminator's penalty runs at some steps
  only."""
  values, paths = configs.parse('train',
                                [f'--config={ROOT}/configs/gans/digits_gan.py:smoke', '--config.batch_size=32'], '')
  experiment, settings = builders.build(values.config, paths), builders.settings(values.config)
  epoch = -(-len(experiment.train.source) // 32)
  run = Run(experiment, dataclasses.replace(settings, steps=2 * epoch + 3))
  run.initialise()
  compiled, at = [], {}

  def listen(event, duration, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(run.step)

  class Count(hooks.Hook):
    def after_step(self, run, metrics):
      at[run.step] = len(compiled)

  writer = logs.Writer(tmp_path)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    loop.train(run, [hooks.Log(writer, 5), hooks.Evaluate(writer, 7, 2), hooks.Sample(writer, 7, 4), Count()])
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert compiled and at[1] > 0, 'nothing was counted: the event has another name'
  assert at[2 * epoch + 2] == at[epoch], f'compiled at steps {sorted(set(compiled))}'
