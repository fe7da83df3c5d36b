"""Public autoencoders of latent diffusion: as runs, as parts of other runs, and written again."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.cli.main import main
from genjax.configs.diffusion import captioned_flow
from genjax.experiments import diffusion, parts
from genjax.interop import files
from genjax.models.autoencoders.kl import Kl, autoencoder
from genjax.runs import workdir
from genjax.types import UserError

SIZE = dict(shape=(16, 16, 1), latent=3, base=8, multipliers=(1, 2), blocks=1, groups=4)


@pytest.fixture(scope='module')
def public(tmp_path_factory):
  """A folder as diffusers writes it, and its parameters."""
  config = Kl(**SIZE)
  folder = tmp_path_factory.mktemp('public') / 'vae'
  params = autoencoder(config).init(jax.random.key(0))[0]
  measured = {'moments': {'mean': np.full(3, 0.5), 'square': np.full(3, 4.25)}}
  interop.save(folder, config, params, mutable=measured)
  return folder, params


def test_shift_and_scale_are_told(public):
  told = json.loads((public[0] / 'config.json').read_text())
  assert told['_class_name'] == 'AutoencoderKL' and 'model_type' not in told
  assert told['scaling_factor'] == pytest.approx(0.5) and told['shift_factor'] == pytest.approx(0.5)


def test_a_run_of_it_is_evaluated_and_written_again(public, tmp_path, capsys):
  folder, params = public
  assert main(['import', f'--from={folder}', f'--workdir={tmp_path}/run']) == 0
  assert main(['evaluate', f'--workdir={tmp_path}/run', '--set', 'data.name=digits', 'data.heldout=test',
               'data.resize=bilinear']) == 0
  assert json.loads((tmp_path / 'run' / 'evaluation.json').read_text())['metrics']['heldout/psnr'] > 0
  assert main(['export', f'--workdir={tmp_path}/run', f'--to={tmp_path}/again']) == 0
  for name in ('config.json', 'diffusion_pytorch_model.safetensors'):
    assert (tmp_path / 'again' / name).read_bytes() == (folder / name).read_bytes()


def test_it_is_a_part_for_pictures_of_any_size(public):
  folder, params = public
  config = captioned_flow.get_config('smoke')
  with config.unlocked():
    config.parts = {'autoencoder': str(folder)}
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), resize='', crop=False, flip=False)
    config.conditions = {}
    config.sampler.guidance = 1.0
  experiment = diffusion.build(config)
  assert experiment.objective.shape == (4, 4, 3)
  part = parts.open(config, 'autoencoder', 'autoencoder')
  group = {'params': {'net': params}, 'mutable': interop.load(folder).mutable, 'frozen': {}}
  image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
  mean, _ = part.functions.encode(group, image)
  x = experiment.objective.codec.encode({'autoencoder': group}, {'image': image}, None)
  np.testing.assert_allclose(x, (mean - 0.5) * 0.5, rtol=1e-4, atol=1e-6)
  with config.unlocked():
    config.data.shape = (9, 8, 1)
  with pytest.raises(UserError, match='reads and writes'):
    diffusion.build(config)


def test_a_trained_one_is_written_with_what_it_measured(tmp_path):
  assert main(['train', '--config=configs/autoencoders/kl.py:smoke', f'--workdir={tmp_path}/run',
               '--config.objective.reconstruction=laplace']) == 0
  assert main(['export', f'--workdir={tmp_path}/run', f'--to={tmp_path}/public', '--raw']) == 0
  _, run = workdir.open_run(str(tmp_path / 'run'))
  model = interop.load(tmp_path / 'public')
  for name in ('mean', 'square'):
    np.testing.assert_allclose(model.mutable['moments'][name], run.state.mutable['moments'][name], rtol=1e-4, atol=1e-5)
  for side in ('encoder', 'decoder'):
    jax.tree.map(np.testing.assert_array_equal, model.params[side], jax.device_get(run.state.params['net'][side]))


def test_half_precision_is_read_where_there_is_no_other(public, tmp_path):
  folder = tmp_path / 'half'
  interop.save(folder, interop.load(public[0]), dtype='float16')
  plain = folder / 'diffusion_pytorch_model.safetensors'
  plain.rename(folder / 'diffusion_pytorch_model.fp16.safetensors')
  assert all(leaf.dtype == np.float16 for leaf in jax.tree.leaves(interop.load(folder).params))
  (folder / 'diffusion_pytorch_model.fp16.safetensors').rename(folder / 'weights.bin')
  with pytest.raises(UserError, match='pickle files'):
    interop.load(folder)
  assert files.LAYOUTS['diffusers'][0] == plain.stem
