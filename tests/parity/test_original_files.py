"""Original files of latent diffusion against the conversion of `diffusers`."""

import inspect
import json

import numpy as np
import pytest

from genjax.interop import original, original_folder, original_names
from genjax.types import UserError
from tests.interop import originals

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
theirs = pytest.importorskip('diffusers.loaders.single_file_utils')
pytestmark = pytest.mark.slow

SD1 = dict(sample_size=64, block_out_channels=(32, 64), layers_per_block=2, cross_attention_dim=32,
           attention_head_dim=8, down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
           up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'))
SDXL = dict(sample_size=128, block_out_channels=(64, 128), layers_per_block=1, cross_attention_dim=96,
            attention_head_dim=(1, 2), transformer_layers_per_block=(1, 2), use_linear_projection=True,
            addition_embed_type='text_time', addition_time_embed_dim=256, projection_class_embeddings_input_dim=1568,
            down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'), up_block_types=('CrossAttnUpBlock2D',
                                                                                    'UpBlock2D'))
VAE = dict(sample_size=128, block_out_channels=(32, 64), layers_per_block=1, latent_channels=4,
           down_block_types=('DownEncoderBlock2D',) * 2, up_block_types=('UpDecoderBlock2D',) * 2)


def tensors(state):
  return {name: torch.tensor(array) for name, array in state.items()}


def same(component, state, ignored=()):
  """What is read equals what `diffusers` has, bit for bit."""
  assert set(component.tensors) == set(state) - set(ignored)
  for name, tensor in component.tensors.items():
    array, wanted = tensor.read(), np.asarray(state[name])
    assert array.shape == tensor.shape == wanted.shape and array.dtype == tensor.dtype
    np.testing.assert_array_equal(array, wanted, err_msg=name)


def agrees(entries, config, names):
  """The entries that config.json of the model would have."""
  plain = {name: list(value) if isinstance(value, tuple) else value for name, value in dict(config).items()}
  for name in names:
    value = plain[name]
    if isinstance(entries[name], list) and not isinstance(value, list):
      value = [value] * len(entries[name])
    assert entries[name] == value, name


@pytest.mark.parametrize('options', [SD1, SDXL], ids=['sd1', 'sdxl'])
def test_unets_are_those_of_diffusers(options, tmp_path):
  model = diffusers.UNet2DConditionModel(**options)
  state = originals.randomised(model)
  attends = [kind.startswith('Cross') for kind in options['down_block_types']]
  names = original_names.unet(attends, options['layers_per_block'])
  raw = originals.renamed(state, names, 'model.diffusion_model.')
  path = originals.write(tmp_path / 'unet.safetensors', raw)
  converted = theirs.convert_ldm_unet_checkpoint(tensors(raw), model.config)
  found = original.open_file(path).components['unet']
  same(found, converted)
  same(found, state)
  agrees(found.entries, model.config, (
    'in_channels', 'out_channels', 'block_out_channels', 'layers_per_block', 'cross_attention_dim', 'down_block_types',
    'up_block_types', 'transformer_layers_per_block', 'attention_head_dim', 'use_linear_projection', 'sample_size'))


def test_autoencoders_are_those_of_diffusers(tmp_path):
  model = diffusers.AutoencoderKL(**VAE)
  state = originals.randomised(model)
  raw = originals.renamed(state, original_names.autoencoder(2))
  path = originals.write(tmp_path / 'vae.safetensors', raw | {'loss.logvar': np.zeros((), np.float32)})
  config = {'down_block_types': VAE['down_block_types'], 'up_block_types': VAE['up_block_types']}
  found = original.open_file(path)
  same(found.components['vae'], theirs.convert_ldm_vae_checkpoint(tensors(raw), config))
  same(found.components['vae'], state)
  assert found.skipped == ('loss.logvar',)
  agrees(found.components['vae'].entries, model.config, (
    'in_channels', 'latent_channels', 'block_out_channels', 'layers_per_block', 'sample_size', 'scaling_factor',
    'use_quant_conv'))
  given = original.open_file(path, scaling=(0.5, 0.25)).components['vae'].entries
  assert (given['scaling_factor'], given['shift_factor']) == (0.5, 0.25)


def test_stable_diffusion_3_is_that_of_diffusers(tmp_path):
  model = diffusers.SD3Transformer2DModel(
    sample_size=128, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=64,
    num_attention_heads=1, joint_attention_dim=20, caption_projection_dim=64, pooled_projection_dim=10,
    pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm='rms_norm')
  state = originals.randomised(model)
  raw = originals.renamed(state, original_names.stable_diffusion_3(3), 'model.diffusion_model.')
  found = original.open_file(originals.write(tmp_path / 'sd3.safetensors', raw)).components['transformer']
  same(found, theirs.convert_sd3_transformer_checkpoint_to_diffusers(tensors(raw)))
  same(found, state)
  agrees(found.entries, model.config, (
    'in_channels', 'out_channels', 'num_layers', 'attention_head_dim', 'num_attention_heads', 'joint_attention_dim',
    'caption_projection_dim', 'pooled_projection_dim', 'pos_embed_max_size', 'dual_attention_layers', 'qk_norm'))


def test_flux_is_that_of_diffusers(tmp_path):
  model = diffusers.FluxTransformer2DModel(
    patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
    joint_attention_dim=20, pooled_projection_dim=10, guidance_embeds=True, axes_dims_rope=(4, 14, 14))
  state = originals.randomised(model)
  raw = originals.scales(originals.renamed(state, original_names.FLUX))
  found = original.open_file(originals.write(tmp_path / 'flux.safetensors', raw)).components['transformer']
  # their function knows Flux's width only
  source = inspect.getsource(theirs.convert_flux_transformer_checkpoint_to_diffusers)
  scope = {'torch': torch}
  exec(source.replace('inner_dim = 3072', 'inner_dim = 64'), scope)
  same(found, scope['convert_flux_transformer_checkpoint_to_diffusers'](tensors(raw)))
  same(found, state)
  agrees(found.entries, model.config, (
    'in_channels', 'out_channels', 'num_layers', 'num_single_layers', 'attention_head_dim', 'num_attention_heads',
    'joint_attention_dim', 'pooled_projection_dim', 'guidance_embeds', 'axes_dims_rope'))


def clip(projected=False, layers=2, width=64):
  config = transformers.CLIPTextConfig(vocab_size=60, hidden_size=width, intermediate_size=96, num_attention_heads=1,
                                       num_hidden_layers=layers, max_position_embeddings=16, projection_dim=32)
  kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
  state = originals.randomised(kind(config))
  return {name if name.startswith('text_') else f'text_model.{name}': array for name, array in state.items()}, config


def pipeline():
  """An SDXL with its autoencoder and both text encoders: (tensors of the file, tensors of diffusers by component)."""
  unet = originals.randomised(diffusers.UNet2DConditionModel(**SDXL))
  vae = originals.randomised(diffusers.AutoencoderKL(**VAE))
  (first, _), (second, _) = clip(), clip(projected=True)
  raw = {**originals.renamed(unet, original_names.unet((False, True), 1), 'model.diffusion_model.'),
         **originals.renamed(vae, original_names.autoencoder(2), 'first_stage_model.'),
         **{f'conditioner.embedders.0.transformer.{name}': array for name, array in first.items()},
         **originals.renamed(second, original_names.OPEN_CLIP, 'conditioner.embedders.1.model.'),
         'conditioner.embedders.1.model.logit_scale': np.zeros((), np.float32),
         'conditioner.embedders.0.transformer.text_model.embeddings.position_ids': np.arange(16)[None],
         'denoiser.sigmas': np.zeros(4, np.float32), 'model_ema.decay': np.zeros((), np.float32)}
  return raw, {'unet': unet, 'vae': vae, 'text_encoder': first, 'text_encoder_2': second}


def test_a_whole_sdxl(tmp_path):
  raw, wanted = pipeline()
  found = original.open_file(originals.write(tmp_path / 'sdxl.safetensors', raw))
  assert found.family == 'sdxl' and set(found.components) == set(wanted)
  for name, state in wanted.items():
    same(found.components[name], state)
  model = transformers.CLIPTextModelWithProjection(clip(projected=True)[1])
  prefix = 'conditioner.embedders.1.model.'
  held = {name: torch.tensor(array) for name, array in raw.items() if name.startswith(prefix)}
  for name, tensor in theirs.convert_open_clip_checkpoint(model, held, prefix).items():
    np.testing.assert_array_equal(found.components['text_encoder_2'].tensors[name].read(), tensor)
  entries = found.components['text_encoder_2'].entries
  assert (entries['hidden_act'], entries['projection_dim'], entries['num_attention_heads']) == ('gelu', 32, 1)
  assert found.components['vae'].entries['scaling_factor'] == 0.13025
  assert len(found.skipped) == 4


def test_the_folder_of_a_whole_sdxl(tmp_path):
  raw, wanted = pipeline()
  path, tokens, folder = tmp_path / 'sdxl.safetensors', tmp_path / 'tokens', tmp_path / 'folder'
  originals.write(path, raw | {'v_pred': np.zeros(0, np.float32)})
  tokens.mkdir()
  (tokens / 'tokenizer.json').write_text('{}')
  folder.mkdir()
  told = original_folder.write(folder, path, original_folder.Options(tokenizers=(tokens,)))
  assert 'the file is marked as predicting v' in told
  index = json.loads((folder / 'model_index.json').read_text())
  assert index['_class_name'] == 'StableDiffusionXLPipeline'
  assert index['text_encoder_2'] == ['transformers', 'CLIPTextModelWithProjection']
  assert set(wanted) | {'tokenizer', 'tokenizer_2', 'scheduler'} <= set(index)
  schedule = diffusers.EulerDiscreteScheduler.from_pretrained(folder / 'scheduler')
  assert schedule.config.prediction_type == 'v_prediction' and schedule.config.timestep_spacing == 'leading'
  assert json.loads((folder / 'tokenizer_2' / 'tokenizer_config.json').read_text())['pad_token'] == '!'
  assert not (folder / 'tokenizer' / 'tokenizer_config.json').exists()
  for given, message in (((), 'no tokenizer'), ((tokens,) * 3, 'got 3')):
    with pytest.raises(UserError, match=message):
      original_folder.write(tmp_path / 'no', path, original_folder.Options(tokenizers=given))


def test_stable_diffusion_2_has_a_text_encoder_without_its_last_block(tmp_path):
  unet = originals.randomised(diffusers.UNet2DConditionModel(**SD1 | dict(
    block_out_channels=(64, 128), attention_head_dim=(1, 2), use_linear_projection=True)))
  text, _ = clip(projected=True, layers=3)
  raw = {**originals.renamed(unet, original_names.unet((True, False), 2), 'model.diffusion_model.'),
         **originals.renamed(text, original_names.OPEN_CLIP, 'cond_stage_model.model.')}
  found = original.open_file(originals.write(tmp_path / 'sd2.safetensors', raw))
  assert found.family == 'sd2' and found.components['text_encoder'].entries['num_hidden_layers'] == 2
  same(found.components['text_encoder'], {name: array for name, array in text.items()
                                          if 'layers.2.' not in name and name != 'text_projection.weight'})


def test_stable_diffusion_3_takes_the_pooled_vector_of_its_first_encoder_as_it_is(tmp_path):
  model = diffusers.SD3Transformer2DModel(num_layers=1, attention_head_dim=64, num_attention_heads=1, in_channels=4,
                                          joint_attention_dim=8, caption_projection_dim=64, pooled_projection_dim=8,
                                          pos_embed_max_size=4)
  raw = originals.renamed(originals.randomised(model), original_names.stable_diffusion_3(1), 'model.diffusion_model.')
  (first, _), (second, _) = clip(projected=True), clip(projected=True, width=128)
  raw |= {f'text_encoders.clip_l.transformer.{name}': array for name, array in first.items()}
  raw |= {f'text_encoders.clip_g.transformer.{name}': array for name, array in second.items()}
  found = original.open_file(originals.write(tmp_path / 'sd3.safetensors', raw))
  same(found.components['text_encoder'], first | {'text_projection.weight': np.eye(64, dtype=np.float32)})
  same(found.components['text_encoder_2'], second)
  assert found.components['text_encoder_2'].entries['hidden_act'] == 'gelu'
