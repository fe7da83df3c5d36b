"""Every family on every mesh: the initial state, the losses and the checkpoints are those of one device, and memory is
split.

Each case runs in a process of its own with eight fake devices; see `meshes.py` beside this file.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
MESHES = ('data:8', 'data:2+fsdp:4', 'data:2+fsdp:2+tensor:2', 'fsdp:8')  # the last one writes the checkpoint
SPLIT = ('data:2+fsdp:2+tensor:2', 'fsdp:8')
CONTEXT = ('data:2+context:4', *MESHES)
DIGITS = ('--config.data.name=digits', '--config.data.shape=(8,8,1)')
SLOW = ('--config.optimizers.generator.lr=3e-6', '--config.optimizers.critic.lr=3e-6')
POSITIVE = '--config.objective.loss=non_saturating'  # a relative bound has a meaning
CASES = {
  'diffusion transformer': ('quickstart', CONTEXT, ()),
  'language': ('language/python_code', CONTEXT, ()),
  'mixture of experts': ('language/mixtral', (
    'data:2+expert:4', 'data:2+context:2+expert:2', 'fsdp:2+tensor:2+expert:2', 'fsdp:4+expert:2', *MESHES), ()),
  'vae': ('autoencoders/digits_vae', MESHES, ()),
  'gan': ('gans/digits_gan', MESHES, (POSITIVE,)),
  # Grouped convolutions. Changes of colours, which take long to compile, are with another case.
  'r3gan': ('gans/r3gan', SPLIT, tuple(
    f'--config.objective.augment.{name}=0.0' for name in ('brightness', 'contrast', 'hue', 'luma', 'saturation'))),
  # Codes by averages and revived ones, a critic that begins late, an adaptive weight. With a tensor axis losses differ
  # by up to 4e-4 within 20 steps, beyond the bound of this test.
  'vqgan': ('autoencoders/vqgan', ('data:8', 'fsdp:8'), ('--config.batch_size=16',)),
  # Pools of pictures, which every device has; batch statistics and dropout of a U-Net. At the rates of the configs
  # rounding grows threefold a step.
  'cyclegan': ('gans/sprites_cyclegan', ('data:8', 'data:2+fsdp:2+tensor:2', 'fsdp:8'), (
    '--config.batch_size=8', '--config.model.width=8', '--config.critic.width=8', *SLOW)),
  'pix2pix': ('gans/emoji_pix2pix', ('data:8', 'data:2+fsdp:2+tensor:2', 'fsdp:8'), (
    '--config.model.width=8', '--config.critic.width=8', *SLOW)),
  'u-net': ('diffusion/mnist_flow', MESHES, (*DIGITS, '--config.model.attention=(4,)')),
  'recurrent': ('language/additions', MESHES, ()),
  'n-grams': ('language/names_ngram', MESHES, (
    '--config.data.name=python_stdlib', '--config.data.train=test[:4]', '--config.data.heldout=test[4:6]',
    '--config.data.separator=\x01', '--config.model.width=16', '--config.model.hidden=64')),  # sizes that eight divides
  'pixart': ('diffusion/pixart', SPLIT, ('--config.model.width=96', '--config.model.text_width=64')),
  'mm-dit': ('diffusion/flux', SPLIT, ('--config.model.head_dim=48', '--config.model.rope_axes=(16,16,16)',
                                       '--config.model.text_width=64')),
  'made': ('autoregressive/mnist_made', MESHES, ()),
  'nade': ('autoregressive/mnist_nade', MESHES, ()),
  # What may depend on who holds which row: packs of samples, a gradient penalty, accumulation, batch statistics of a
  # microbatch, augmentation and the sums of its controller. All in each step, so that there is one program.
  'gan with packs, R1 and microbatches': ('gans/digits_gan', ('data:8', 'fsdp:8'), (
    '--config.batch_size=32', '--config.microbatches=2', '--config.model.pack=2', '--config.objective.r1_gamma=1.0',
    '--config.objective.r1_every=1', POSITIVE, '--config.objective.augment.name=ada',
    '--config.objective.augment.initial=0.5', '--config.objective.augment.every=1')),
  # Groups of the discriminator's deviation, the mean of path lengths, the mean style
  'stylegan2': ('gans/stylegan2', ('data:8', 'fsdp:8'), (
    '--config.batch_size=16', '--config.microbatches=2', '--config.objective.r1_every=1',
    '--config.objective.path_every=1')),
}


def measure(config, meshes, flags):
  argv = [sys.executable, pathlib.Path(__file__).with_name('meshes.py'), '20', ','.join(meshes),
          f'--config={ROOT}/configs/{config}.py:smoke', '--config.steps=20', *flags]
  done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  assert done.returncode == 0, done.stderr[-5000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('case', CASES)
def test_a_mesh_changes_nothing_but_where_arrays_lie(case):
  config, meshes, flags = CASES[case]
  found = measure(config, meshes, flags)
  assert len(found['losses']) == 20 and all(found['losses'])
  assert set(found['meshes']) == {*meshes, 'one device'}
  assert all(entry['restored'] for entry in found['meshes'].values())
  for mesh in meshes:
    entry = found['meshes'][mesh]
    assert entry['initial'], f'{mesh}: initial parameters'
    assert entry['state'], f'{mesh}: initial state'
    assert entry['inspected'], f'{mesh}: layouts that inspect prints'
    assert entry['losses'] < 1e-5, f'{mesh}: losses differ by {entry["losses"]}'
    if 'context' in mesh:
      assert entry['samples'] <= 1 and entry['evaluation'] < 1e-5, mesh
  entry = found['meshes']['fsdp:8']
  assert entry['bytes'] <= 1.15 * entry['total'] / 8


ADAPTED = {
  'language/mixtral': ('fsdp:2+expert:2+tensor:2', 'data:2+fsdp:2+expert:2'),
  'language/python_code': ('fsdp:2+tensor:2+context:2', 'data:8'),
  'diffusion/ddpm_256': ('fsdp:2+tensor:4', 'fsdp:8'),  # convolutions
}


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('name', ADAPTED)
def test_a_mesh_changes_no_loss_of_adapters(name):
  paths = "('blocks/.*kernel',)" if name == 'language/mixtral' else "('.*/kernel',)"
  argv = [
    sys.executable,
    pathlib.Path(__file__).with_name('adapter_meshes.py'), f'{ROOT}/configs/{name}.py:smoke', ','.join(ADAPTED[name]),
    '--config.lora.rank=2', f'--config.lora.paths={paths}', '--config.optimizers.net.lr=0.02',
    '--config.optimizers.net.warmup=1'
  ]
  done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, check=False, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 0, done.stderr[-5000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['moved'] > 1e-3 and max(found['meshes'].values()) < 1e-5


@pytest.mark.slow
def test_codebooks_are_learned_from_the_whole_batch():
  """Averages, numbers of vectors and revived codes on data:8 are those of one device."""
  argv = [sys.executable, pathlib.Path(__file__).with_name('codebooks.py')]
  done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 0, done.stderr[-5000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert set(found) == {'averages', 'gradient'}
  assert found['averages']['variables'] == ['embedding', 'size', 'sum', 'weight']
  assert all(way['same_codes'] and way['difference'] < 1e-5 for way in found.values()), found
