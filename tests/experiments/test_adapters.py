"""What is measured of adapters: on a run that was trained, and with a fault that it must find."""

import math

import jax
import pytest

from genjax.cli.main import main
from genjax.experiments import adapters
from genjax.nn import lora
from genjax.runs import workdir


@pytest.fixture(scope='module')
def adapted(smoke_run, tmp_path_factory):
  """The folder of a run with adapters of the smoke run of a VAE."""
  folder = tmp_path_factory.mktemp('adapters') / 'run'
  flags = ['--config=configs/autoencoders/digits_vae.py:smoke',
           f'--config.init_from={smoke_run("autoencoders/digits_vae")}', '--config.lora.rank=2',
           "--config.lora.paths=('.*/kernel',)", '--config.lora.measures=True', '--config.sample_every=0']
  assert main(['train', *flags, f'--workdir={folder}']) == 0
  return str(folder)


def test_they_begin_as_their_base_and_merge_to_rounding(adapted):
  _, run = workdir.open_run(adapted)
  found = adapters.measure(run, averaged=True)
  kernels = [leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(run.frozen['base']['params'])
             if 'kernel' in str(path[-1])]
  assert found['trainable'] == sum(2 * (math.prod(shape[:-1]) + shape[-1]) for shape in kernels)
  assert found['initial_difference'] == 0.0
  assert 0.0 < found['merge_error'] < 1e-5  # trained adapters are not nothing


def test_a_wrong_merge_and_a_wrong_beginning_are_found(adapted, monkeypatch):
  right, begin = lora.merge, lora.init
  monkeypatch.setattr(lora, 'merge', lambda params, adapters, scale: right(params, adapters, 2 * scale))
  monkeypatch.setattr(lora, 'init', lambda key, kernels, rank: jax.tree.map(lambda leaf: leaf + 0.1,
                                                                            begin(key, kernels, rank)))
  _, run = workdir.open_run(adapted)
  found = adapters.measure(run, averaged=True)
  assert found['merge_error'] > 1e-5 and found['initial_difference'] > 1e-3


def test_they_stand_in_the_evaluation(adapted, capsys):
  assert main(['evaluate', f'--workdir={adapted}']) == 0
  said = capsys.readouterr().out
  assert '"adapters/trainable"' in said and '"adapters/merge_error"' in said
