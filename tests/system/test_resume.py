"""A killed and resumed run ends in the same checkpoint, bit for bit, as one that was never disturbed."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from saved import arrays

ROOT = pathlib.Path(__file__).parent.parent.parent
FAMILIES = {
  'language': ('language/python_code', 'genjax.experiments.language'),
  'mixture of experts': ('language/mixtral', 'genjax.experiments.language'),
  'vae': ('autoencoders/digits_vae', 'genjax.experiments.vae'),
  'gan': ('gans/digits_gan', 'genjax.experiments.gan'),
  'biggan': ('gans/cifar10_biggan', 'genjax.experiments.gan'),  # spectral norms, batch statistics
  'vqgan': ('autoencoders/vqgan', 'genjax.experiments.vq'),  # two optimizers, codes that are revived
  'stylegan2': ('gans/stylegan2', 'genjax.experiments.gan'),  # mean path length, mean style
  'cyclegan': ('gans/sprites_cyclegan', 'genjax.experiments.translation'),  # pools of pictures
  'stargan2': ('gans/stargan2', 'genjax.experiments.domains'),  # four updates a step, three averages
  'recurrent': ('language/additions', 'genjax.experiments.seq2seq'),
  'autoregressive': ('autoregressive/mnist_made', 'genjax.experiments.autoregressive'),
  'diffusion': ('quickstart', 'genjax.experiments.diffusion'),
}
# What else has a state: the controller of an augmentation, whose strength changes every 4 steps
FLAGS = {'gan': ('--config.objective.augment.name=ada', '--config.objective.augment.initial=0.5',
                 '--config.objective.augment.kimg=1')}


def train(config, workdir, devices, experiment, flags=(), **environment):
  """Trains 20 steps in a process of its own; returns its exit code and what it said."""
  argv = [
    sys.executable, '-m', 'genjax.cli.main', 'train', f'--config={ROOT}/configs/{config}.py:smoke',
    f'--workdir={workdir}', '--config.experiment=interrupted', '--config.steps=20', '--config.checkpoint.every=10',
    '--config.log_every=20', '--config.evaluate_every=0', '--config.sample_every=0', '--config.batch_size=16',
    '--config.checkpoint.best=', *flags
  ]
  path = os.pathsep.join([str(pathlib.Path(__file__).parent), str(ROOT), os.environ.get('PYTHONPATH', '')])
  done = subprocess.run(argv, capture_output=True, text=True, timeout=600, env={
    **os.environ, 'PYTHONPATH': path, 'INTERRUPTED_EXPERIMENT': experiment,
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={devices}', **environment})
  return done.returncode, done.stderr


EIGHT = ('mixture of experts', 'gan', 'diffusion')  # whose state is laid out or summed in a way of its own
CASES = [(family, 8 if family in EIGHT else 1) for family in FAMILIES]


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize(('family', 'devices'), CASES)
def test_killed_and_resumed_equals_undisturbed(tmp_path, family, devices):
  (config, experiment), flags = FAMILIES[family], FLAGS.get(family, ())
  straight, disturbed = tmp_path / 'straight', tmp_path / 'disturbed'
  code, said = train(config, straight, devices, experiment, flags)
  assert code == 0, said
  code, said = train(config, disturbed, devices, experiment, flags, INTERRUPTED_AT='14', INTERRUPTED_AFTER='10',
                     INTERRUPTED_WORKDIR=str(disturbed))
  assert code == -signal.SIGKILL, said
  code, said = train(config, disturbed, devices, experiment, flags)
  assert code == 0, said
  assert 'resuming' in said and 'at step 10 of 20' in said
  expected, actual = arrays(straight), arrays(disturbed)
  assert set(expected) == set(actual) and len(expected) > 10
  assert any('opt' in name for name in expected)
  different = [name for name in expected if expected[name].tobytes() != actual[name].tobytes()]
  assert not different
