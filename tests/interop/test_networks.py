"""config.json of U-Nets on pixels and autoencoders: what is read, what is written, and what is refused by name."""

import dataclasses
import json

import pytest

from genjax.interop import weights
from genjax.interop.entries import Entries
from genjax.models.autoencoders import dc, kl, tiny
from genjax.models.denoisers import unet
from genjax.types import UserError

DDPM = dict(sample_size=16, block_out_channels=[8, 16], down_block_types=['DownBlock2D', 'AttnDownBlock2D'],
            up_block_types=['AttnUpBlock2D', 'UpBlock2D'], norm_num_groups=4)
DC = dict(encoder_block_types=['ResBlock', 'EfficientViTBlock'], decoder_block_types=['ResBlock', 'EfficientViTBlock'],
          encoder_block_out_channels=[8, 8], decoder_block_out_channels=[8, 8], encoder_qkv_multiscales=[[], [5]],
          decoder_qkv_multiscales=[[], [5]], encoder_layers_per_block=[1, 1], decoder_layers_per_block=[1, 1],
          latent_channels=4, attention_head_dim=4)
KL = dict(block_out_channels=[8, 16], norm_num_groups=4, down_block_types=['DownEncoderBlock2D'] * 2,
          up_block_types=['UpDecoderBlock2D'] * 2)
BASES = {'UNet2DModel': DDPM, 'AutoencoderDC': DC, 'AutoencoderKL': KL, 'AutoencoderTiny': {}}


def read(name, **entries):
  return weights.ARCHITECTURES[name].read(Entries({**BASES[name], **entries}, 'config.json'), {})


@pytest.mark.parametrize('name, entries, message', [
  ('UNet2DModel', dict(up_block_types=['UpBlock2D', 'AttnUpBlock2D']), 'must mirror'),
  ('UNet2DModel', dict(down_block_types=['SkipDownBlock2D'] * 2), 'must be among'),
  ('UNet2DModel', dict(time_embedding_type='fourier'), "only supports 'positional'"),
  ('UNet2DModel', dict(mid_block_scale_factor=1.41), 'only supports 1'),
  ('UNet2DModel', dict(class_embed_type='timestep'), 'class_embed_type'),
  ('UNet2DModel', dict(attn_norm_num_groups=2), 'as many groups'),
  ('UNet2DModel', dict(in_channels=2), 'at least out_channels'),
  ('UNet2DModel', dict(down_block_types=['ResnetDownsampleBlock2D', 'AttnDownBlock2D'],
                       up_block_types=['AttnUpBlock2D', 'ResnetUpsampleBlock2D']), 'joined alike'),
  ('UNet2DModel', dict(block_out_channels=[8, 12], attention_head_dim=8), 'head_dim must divide'),
  ('AutoencoderKL', dict(up_block_types=['UpDecoderBlock2D', 'AttnUpDecoderBlock2D']), 'in reverse'),
  ('AutoencoderKL', dict(down_block_types=['DownEncoderBlock2D']), 'one for each entry'),
  ('AutoencoderDC', dict(decoder_norm_types='batch_norm'), 'rms_norm only'),
  ('AutoencoderDC', dict(decoder_act_fns=['relu', 'silu']), 'the same for all stages'),
  ('AutoencoderDC', dict(encoder_block_types=['EfficientViTBlock', 'ResBlock']), 'in the last stages'),
  ('AutoencoderDC', dict(decoder_qkv_multiscales=[[], [3]]), 'the same stages with the same'),
  ('AutoencoderTiny', dict(upsampling_scaling_factor=3), 'only supports 2'),
  ('AutoencoderTiny', dict(num_encoder_blocks=[1, 1]), 'an entry for each stage')])
def test_what_is_refused(name, entries, message):
  with pytest.raises(UserError, match=message):
    read(name, **entries)


@pytest.mark.parametrize('name, options', [
  ('UNet2DModel', unet.UNet(**unet.VARIANTS['ddpm_butterflies_128'])),
  ('UNet2DModel', unet.UNet(**unet.VARIANTS['cd_imagenet64'])),
  ('AutoencoderKL', kl.Kl(**kl.VARIANTS['kl_f32'])), ('AutoencoderTiny', tiny.Tiny((32, 32, 3), latent=16)),
  ('AutoencoderDC', dc.DcAe((32, 32, 3), scales=(), enlarge='pixels'))])
def test_what_is_written_is_read_again(name, options):
  architecture = weights.ARCHITECTURES[name]
  again = architecture.read(Entries(json.loads(json.dumps(architecture.write(options))), 'config.json'), {})
  same = dataclasses.replace(again, shape=options.shape)
  if name == 'UNet2DModel':  # it names the channels of each level
    assert same.widths == options.widths
    same = dataclasses.replace(same, base=options.base, channels=(), multipliers=options.multipliers)
  assert same == options


@pytest.mark.parametrize('options, message', [
  (unet.UNet((8, 8, 1), base=8, multipliers=(1, 2), attention=(), groups=4, heads=2), 'one attention head'),
  (unet.UNet((8, 8, 1), base=8, multipliers=(1, 2), attention=(), groups=4, norm='rms'), "norm='rms'"),
  (unet.UNet((8, 8, 1), base=8, multipliers=(1, 2), attention=(), groups=4, middle_attention='plain'), 'a norm before'),
  (kl.Kl((8, 8, 1), base=8, multipliers=(1, 2), groups=4, heads=2), 'heads=2')])
def test_what_cannot_be_written(options, message):
  with pytest.raises(UserError, match=message):
    weights.architecture_of(options)
