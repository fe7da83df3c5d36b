"""Imported U-Nets on pixels and autoencoders against `diffusers`: random ones of odd sizes, in and out."""

import json

import jax
import numpy as np
import pytest

from genjax import interop

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
from tests.parity import random_networks as random  # noqa: E402  # needs torch
from tests.parity.random_networks import normal, saved  # noqa: E402

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

D, A, R = 'DownBlock2D', 'AttnDownBlock2D', 'ResnetDownsampleBlock2D'
_UP = {D: 'UpBlock2D', A: 'AttnUpBlock2D', R: 'ResnetUpsampleBlock2D'}


def unet(down, **options):
  return dict(down_block_types=down, up_block_types=[_UP[kind] for kind in reversed(down)], norm_num_groups=4,
              sample_size=16) | options


UNETS = {
  'ddpm': unet((D, A, D), block_out_channels=(8, 16, 20), attention_head_dim=None, downsample_padding=0,
               flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, layers_per_block=1),
  'butterflies': unet((D, D, A), block_out_channels=(12, 20, 24), attention_head_dim=8),
  'classes': unet((A, D), block_out_channels=(8, 12), attention_head_dim=4, num_class_embeds=5, in_channels=5,
                  sample_size=(16, 12), add_attention=False),
  'consistency': unet((R, A, A), block_out_channels=(8, 12, 16), attention_head_dim=4, num_class_embeds=5,
                      resnet_time_scale_shift='scale_shift', downsample_type='resnet', upsample_type='resnet',
                      attn_norm_num_groups=4, layers_per_block=1),
  'scale_shift': unet((D, A), block_out_channels=(8, 16), attention_head_dim=8, resnet_time_scale_shift='scale_shift',
                      layers_per_block=1)}


def last(x):
  """B C H W of torch -> B H W C."""
  return x.detach().numpy().transpose(0, 2, 3, 1)


def check(model, imported, wanted, got, folder):
  """What `random.check` asks for, and what is written again has the same config."""
  assert entries(random.check(model, imported, wanted, got, folder)) == entries(model)


def entries(model):
  """The config of a model of diffusers as JSON holds it."""
  return json.loads(json.dumps({name: value for name, value in model.config.items() if not name.startswith('_')}))


@pytest.mark.parametrize('name', UNETS)
def test_unets_on_pixels(name, tmp_path):
  model = diffusers.UNet2DModel(**UNETS[name])
  imported = saved(model, tmp_path / 'theirs')
  height, width, channels = imported.config.shape
  x_BCHW, time_B = normal(0, 2, model.config.in_channels, height, width), np.array([7, 801])
  x_BHWC, given, told = x_BCHW.transpose(0, 2, 3, 1), {}, {}
  if imported.config.num_classes:
    given['label'] = np.array([3, 4])
    told['class_labels'] = torch.tensor(given['label'])
  if imported.config.image_channels:
    given['image'] = x_BHWC[..., channels:]
  with torch.no_grad():
    wanted = last(model(torch.tensor(x_BCHW), torch.tensor(time_B), **told).sample)
  got = jax.jit(imported.network.apply)(imported.params, {}, x_BHWC[..., :channels], time_B, given)[0]
  check(model, imported, wanted, np.asarray(got), tmp_path / 'ours')


def autoencoded(model, imported, x_BCHW):
  """What both make of the mean of the latents, which must agree, for `check`."""
  with torch.no_grad():
    found = model.encode(torch.tensor(x_BCHW))
    z_BZHW = next(getattr(found, name) for name in ('latents', 'latent', 'latent_dist') if hasattr(found, name))
    z_BZHW = getattr(z_BZHW, 'mean', None) if hasattr(found, 'latent_dist') else z_BZHW
    wanted = last(model.decode(z_BZHW).sample)
  mean, log_variance, got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1))[0]
  np.testing.assert_allclose(mean, last(z_BZHW), atol=1e-5 * np.abs(last(z_BZHW)).max())
  assert log_variance.shape == mean.shape
  return wanted, np.asarray(got)


def kl(down, **options):
  names = {D: ('DownEncoderBlock2D', 'UpDecoderBlock2D'), A: ('AttnDownEncoderBlock2D', 'AttnUpDecoderBlock2D')}
  return dict(down_block_types=[names[kind][0] for kind in down], up_block_types=[names[kind][1] for kind in
                                                                                 reversed(down)],
              norm_num_groups=4, sample_size=16, layers_per_block=1) | options


KLS = {'f2': kl((D, D), block_out_channels=(8, 12), latent_channels=3),
       'f4': kl((D, D, A), block_out_channels=(8, 12, 20), latent_channels=16, layers_per_block=2),
       'f8': kl((D, A, D, A), block_out_channels=(4, 8, 8, 12), use_quant_conv=False, use_post_quant_conv=False),
       'no attention': kl((D, D), block_out_channels=(8, 16), mid_block_add_attention=False)}


@pytest.mark.parametrize('name', KLS)
def test_kinds_of_kl_autoencoders(name, tmp_path):
  model = diffusers.AutoencoderKL(**KLS[name])
  imported = saved(model, tmp_path / 'theirs')
  wanted, got = autoencoded(model, imported, normal(0, 2, 3, 16, 24))
  check(model, imported, wanted, got, tmp_path / 'ours')


TINIES = {'f8': dict(encoder_block_out_channels=(10,) * 4, decoder_block_out_channels=(6,) * 4, latent_channels=16),
          'f2': dict(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(12, 12), num_encoder_blocks=(0, 2),
                     num_decoder_blocks=(2, 1), act_fn='gelu', scaling_factor=0.5, shift_factor=0.25)}


@pytest.mark.parametrize('name', TINIES)
def test_tiny_autoencoders(name, tmp_path):
  model = diffusers.AutoencoderTiny(**TINIES[name])
  imported = saved(model, tmp_path / 'theirs')
  wanted, got = autoencoded(model, imported, normal(0, 2, 3, 16, 24))
  check(model, imported, wanted, got, tmp_path / 'ours')
  moments = imported.mutable['moments']
  np.testing.assert_allclose(moments['mean'], model.config.shift_factor, rtol=1e-6)
  np.testing.assert_allclose(moments['square'] - moments['mean'] ** 2, model.config.scaling_factor ** -2, rtol=1e-6)
  interop.save(tmp_path / 'measured', imported, mutable=imported.mutable)
  measured = type(model).load_config(tmp_path / 'measured')
  assert [measured[name] for name in ('scaling_factor', 'shift_factor')] == pytest.approx(
    [model.config.scaling_factor, model.config.shift_factor])


B, V = 'ResBlock', 'EfficientViTBlock'
DCS = {
  'conv': dict(encoder_block_types=(B, V), decoder_block_types=(B, V), encoder_block_out_channels=(6, 12),
               decoder_block_out_channels=(10, 20), encoder_qkv_multiscales=((), (5, 3)), latent_channels=4,
               decoder_qkv_multiscales=((), (5, 3)), encoder_layers_per_block=(1, 2), decoder_layers_per_block=(2, 1),
               attention_head_dim=2, downsample_block_type='conv', upsample_block_type='interpolate',
               scaling_factor=0.41407),
  'pixels': dict(encoder_block_types=(B, B, V), decoder_block_types=(B, B, V), encoder_block_out_channels=(4, 8, 8),
                 decoder_block_out_channels=(4, 8, 16), encoder_qkv_multiscales=((), (), ()), latent_channels=4,
                 decoder_qkv_multiscales=((), (), ()), encoder_layers_per_block=(0, 1, 1),
                 decoder_layers_per_block=(0, 1, 1), attention_head_dim=4, encoder_out_shortcut=False,
                 decoder_act_fns='relu')}


@pytest.mark.parametrize('name', DCS)
def test_dc_autoencoders(name, tmp_path):
  model = diffusers.AutoencoderDC(**DCS[name])
  imported = saved(model, tmp_path / 'theirs')
  wanted, got = autoencoded(model, imported, normal(0, 2, 3, 16, 8))
  check(model, imported, wanted, got, tmp_path / 'ours')
  np.testing.assert_allclose(imported.mutable['moments']['square'], model.config.scaling_factor ** -2, rtol=1e-6)
