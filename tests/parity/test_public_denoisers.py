"""Imported denoisers and autoencoders of latent diffusion against `diffusers`: random small ones, in and out."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
from tests.parity.random_networks import check, normal, saved  # noqa: E402  # needs torch

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

UNETS = {
  'sd1': dict(block_out_channels=(32, 64, 96), down_block_types=('CrossAttnDownBlock2D', 'CrossAttnDownBlock2D',
                                                                'DownBlock2D'),
              up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'), attention_head_dim=4),
  'sdxl': dict(transformer_layers_per_block=(1, 3), attention_head_dim=(2, 4), use_linear_projection=True,
               addition_embed_type='text_time', addition_time_embed_dim=8, projection_class_embeddings_input_dim=80),
  'x4': dict(in_channels=7, only_cross_attention=(True, True), num_class_embeds=50, use_linear_projection=True),
  'lcm': dict(layers_per_block=1, time_cond_proj_dim=16),
}
UNET = dict(sample_size=16, block_out_channels=(32, 64), layers_per_block=2, cross_attention_dim=24, norm_num_groups=8,
            attention_head_dim=8, down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
            up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'))
SD3 = {'sd3': dict(num_layers=3), 'sd35': dict(num_layers=3, dual_attention_layers=(0, 1), qk_norm='rms_norm'),
       'dual': dict(num_layers=2, dual_attention_layers=(0, 1))}


@pytest.mark.parametrize('name', UNETS)
def test_unets_of_latent_diffusion(name, tmp_path):
  options = UNET | UNETS[name]
  model = diffusers.UNet2DConditionModel(**options)
  imported = saved(model, tmp_path / 'theirs')
  x_BCHW, text_BLE, time_B = normal(0, 2, model.config.in_channels, 16, 16), normal(1, 2, 5, 24), np.array([7, 801])
  x_BHWC = x_BCHW.transpose(0, 2, 3, 1)
  given, told = {'tokens': text_BLE}, {}
  if name == 'sdxl':
    given |= {'vector': normal(2, 2, 32), 'numbers': 20 * np.abs(normal(3, 2, 6))}
    told['added_cond_kwargs'] = {'text_embeds': torch.tensor(given['vector']), 'time_ids': torch.tensor(
      given['numbers'])}
  if name == 'x4':
    given |= {'label': np.array([3, 20]), 'image': x_BHWC[..., 4:]}
    told['class_labels'] = torch.tensor(given['label'])
  if name == 'lcm':
    given['guidance'] = np.array([7.5, 1.2], np.float32)
    told['timestep_cond'] = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding(
      None, torch.tensor(given['guidance']) - 1, embedding_dim=16)
  with torch.no_grad():
    wanted = model(torch.tensor(x_BCHW), torch.tensor(time_B), torch.tensor(text_BLE), **told).sample
  got = jax.jit(imported.network.apply)(imported.params, {}, x_BHWC[..., :4], time_B, given)[0]
  check(model, imported, wanted.numpy().transpose(0, 2, 3, 1), np.asarray(got), tmp_path / 'ours')


@pytest.mark.parametrize('name', SD3)
def test_stable_diffusion_3(name, tmp_path):
  model = diffusers.SD3Transformer2DModel(
    sample_size=12, patch_size=2, in_channels=4, out_channels=4, attention_head_dim=8, num_attention_heads=3,
    joint_attention_dim=20, caption_projection_dim=24, pooled_projection_dim=10, pos_embed_max_size=16, **SD3[name])
  imported = saved(model, tmp_path / 'theirs')
  x_BCHW, text_BLE, vector_BV = normal(0, 2, 4, 12, 8), normal(1, 2, 5, 20), normal(2, 2, 10)
  time_B = np.array([3.5, 870.0], np.float32)
  with torch.no_grad():
    wanted = model(*map(torch.tensor, (x_BCHW, text_BLE, vector_BV, time_B))).sample
  got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1), time_B,
                                        {'tokens': text_BLE, 'vector': vector_BV})[0]
  check(model, imported, wanted.numpy().transpose(0, 2, 3, 1), np.asarray(got), tmp_path / 'ours')


@pytest.mark.parametrize('guided', [False, True])
def test_flux(guided, tmp_path):
  model = diffusers.FluxTransformer2DModel(
    patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=12, num_attention_heads=3,
    joint_attention_dim=20, pooled_projection_dim=10, guidance_embeds=guided, axes_dims_rope=(4, 4, 4))
  imported = saved(model, tmp_path / 'theirs')
  x_BCHW, given = normal(0, 2, 4, 12, 8), {'tokens': normal(1, 2, 5, 20), 'vector': normal(2, 2, 10)}
  time_B, pipeline = np.array([3.5, 870.0], np.float32), diffusers.FluxPipeline
  if guided:
    given['guidance'] = np.array([3.5, 1.0], np.float32)
  with torch.no_grad():
    out = model(
      hidden_states=pipeline._pack_latents(torch.tensor(x_BCHW), 2, 4, 12, 8),
      encoder_hidden_states=torch.tensor(given['tokens']), pooled_projections=torch.tensor(given['vector']),
      timestep=torch.tensor(time_B) / 1000, txt_ids=torch.zeros(5, 3),
      img_ids=pipeline._prepare_latent_image_ids(2, 6, 4, 'cpu', torch.float32),
      guidance=torch.tensor(given['guidance']) if guided else None).sample
  wanted = pipeline._unpack_latents(out, 12 * 8, 8 * 8, 8).numpy().transpose(0, 2, 3, 1)
  got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1), time_B, given)[0]
  check(model, imported, wanted, np.asarray(got), tmp_path / 'ours')


@pytest.mark.parametrize('projections', [False, True])
def test_kl_autoencoders(projections, tmp_path):
  model = diffusers.AutoencoderKL(
    block_out_channels=(16, 32), layers_per_block=2, latent_channels=3, norm_num_groups=8, sample_size=16,
    down_block_types=('DownEncoderBlock2D',) * 2, up_block_types=('UpDecoderBlock2D',) * 2, scaling_factor=0.3,
    shift_factor=0.1, use_quant_conv=projections, use_post_quant_conv=projections)
  imported = saved(model, tmp_path / 'theirs')
  x_BCHW = normal(0, 2, 3, 16, 16)
  with torch.no_grad():
    posterior = model.encode(torch.tensor(x_BCHW)).latent_dist
    wanted = model.decode(posterior.mean).sample.numpy().transpose(0, 2, 3, 1)
  mean, log_variance, got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1))[0]
  for ours, theirs in ((mean, posterior.mean), (log_variance, posterior.logvar)):
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)
  moments = imported.mutable['moments']
  np.testing.assert_allclose(moments['mean'], 0.1, rtol=1e-6)
  np.testing.assert_allclose(moments['square'] - moments['mean'] ** 2, 0.3 ** -2, rtol=1e-6)
  check(model, imported, wanted, np.asarray(got), tmp_path / 'ours')
  again = tmp_path / 'measured'
  interop.save(again, imported, mutable={'moments': {'mean': np.array([0.0, 1.0, 2.0]), 'square': np.array(
    [4.0, 5.0, 8.0])}})
  config = type(model).load_config(again)
  assert config['scaling_factor'] == 1 and np.allclose(config['latents_std'], 2)
  assert config['latents_mean'] == [0, 1, 2]
  np.testing.assert_allclose(interop.load(again).mutable['moments']['square'], [4, 5, 8], rtol=1e-6)


@pytest.mark.parametrize('entry, value, message', [
  ('resnet_time_scale_shift', 'scale_shift', 'resnet_time_scale_shift'), ('norm_eps', 1e-6, 'norm_eps'),
  ('up_block_types', ['UpBlock2D', 'CrossAttnUpBlock2D'], 'in reverse'), ('only_cross_attention', True, 'by level'),
  ('attention_head_dim', [8], 'one for each of the 2 levels'), ('down_block_types', ['X', 'Y'], 'among')])
def test_other_unets_are_refused(entry, value, message, tmp_path):
  model = diffusers.UNet2DConditionModel(**UNET)
  model.save_pretrained(tmp_path / 'model')
  path = tmp_path / 'model' / 'config.json'

  path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
  with pytest.raises(UserError, match=message):
    interop.load(tmp_path / 'model')
