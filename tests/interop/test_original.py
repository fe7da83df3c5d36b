"""Original files of latent diffusion: what is refused, and folders that stand for them."""

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.interop import files, original, original_folder, original_names
from genjax.models.autoencoders import kl
from genjax.types import UserError
from tests.interop import originals


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  """A folder of an autoencoder, its tensors, and an original file of them."""
  folder = tmp_path_factory.mktemp('originals')
  config = kl.Kl(shape=(128, 128, 3), latent=4, base=32, multipliers=(1, 2), blocks=1)
  shapes = jax.eval_shape(kl.autoencoder(config).init, jax.random.key(0))[0]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  interop.save(folder / 'theirs', config, params)
  state = {name: tensor.read() for name, tensor in files.open_folder(folder / 'theirs').items()}
  raw = originals.renamed(state, original_names.autoencoder(2), 'first_stage_model.')
  return folder, state, raw, originals.write(folder / 'vae.safetensors', raw)


def test_tensors_without_a_place_are_named(vae, tmp_path):
  _, _, raw, path = vae
  more = originals.write(tmp_path / 'a.safetensors', raw | {'first_stage_model.extra.weight': np.zeros(3, np.float32)})
  with pytest.raises(UserError, match=r'1 tensors have no place.*first_stage_model\.extra\.weight'):
    original.open_file(more)
  other = originals.write(tmp_path / 'b.safetensors', {'anything': np.zeros(3, np.float32)})
  with pytest.raises(UserError, match='no original layout that genjax knows.*anything'):
    original.open_file(other)
  assert original.recognises(path) and not original.recognises(other)
  pickle = tmp_path / 'model.ckpt'
  pickle.write_bytes(b'x')
  with pytest.raises(UserError, match='a pickle can run any code.*model.safetensors'):
    original.open_file(pickle)


def test_folders_that_stand_for_a_file_load_as_its_component(vae, tmp_path):
  folder, state, raw, _ = vae
  path = originals.write(tmp_path / 'vae.safetensors', raw | {
    'model_ema.decay': np.zeros((), np.float32), 'first_stage_model.loss.discriminator.weight': np.zeros(2, np.int64)})
  (tmp_path / 'stands').mkdir()
  told = original_folder.write(tmp_path / 'stands', path, original_folder.Options(scaling=(0.5, 0.25)))
  assert told == [f'component vae of {path}, of the family unknown']
  model = interop.load(tmp_path / 'stands')
  assert model.source['scaling_factor'] == 0.5
  interop.save(tmp_path / 'saved', model)
  stored = files.open_folder(tmp_path / 'saved')
  assert set(stored) == set(state)
  assert all(np.array_equal(stored[name].read(), array) for name, array in state.items())
  path.rename(tmp_path / 'moved.safetensors')
  with pytest.raises(UserError, match='is not there; import the file again'):
    interop.load(tmp_path / 'stands')


def test_what_a_file_does_not_hold_is_asked_for(vae, tmp_path):
  path = vae[3]
  with pytest.raises(UserError, match='--component=unet: .* has vae'):
    original_folder.write(tmp_path, path, original_folder.Options(component='unet'))
  with pytest.raises(UserError, match='--prediction must be one of'):
    original_folder.Options(prediction='x')
  assert original_folder.recognised(path) and not original_folder.recognised(vae[0] / 'theirs')
