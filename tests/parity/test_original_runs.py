"""Runs of original files are those of the folders of diffusers, and adapters are imported on them."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import genjax
from genjax.cli.main import main
from genjax.interop import original_names
from genjax.types import named_leaves
from tests.interop import originals

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
from tests.parity import tiny_pipelines as tiny  # noqa: E402  # needs both

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow


def stable_diffusion(folder):
  """A folder of diffusers with the sizes that original files tell."""
  torch.manual_seed(0)
  text = tiny.randomised(transformers.CLIPTextModel(transformers.CLIPTextConfig(
    vocab_size=220, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, projection_dim=64,
    max_position_embeddings=77, hidden_act='quick_gelu', bos_token_id=0, eos_token_id=2, pad_token_id=1)))
  unet = tiny.unet(sample_size=8, block_out_channels=(32, 64), norm_num_groups=32, attention_head_dim=8,
                   cross_attention_dim=64)
  vae = tiny.autoencoder(block_out_channels=(32, 64), norm_num_groups=32, sample_size=16)
  return tiny.saved(diffusers.StableDiffusionPipeline(
    vae=vae, text_encoder=text, tokenizer=tiny.tokenizer(folder.with_name('tokens')), unet=unet,
    scheduler=tiny.scheduler(tiny.PNDM), safety_checker=None, feature_extractor=None, requires_safety_checker=False),
    folder)


def original(pipeline, path):
  """The same as one file."""
  held = {name: {key: tensor.numpy() for key, tensor in getattr(pipeline, name).state_dict().items()}
          for name in ('unet', 'vae', 'text_encoder')}
  text = {key if key.startswith('text_model.') else f'text_model.{key}': array
          for key, array in held['text_encoder'].items()}
  return originals.write(path, {
    **originals.renamed(held['unet'], original_names.unet((True, False), 1), 'model.diffusion_model.'),
    **originals.renamed(held['vae'], original_names.autoencoder(2), 'first_stage_model.'),
    **{f'cond_stage_model.transformer.{key}': array for key, array in text.items()},
    'model_ema.decay': np.zeros((), np.float32), 'betas': np.zeros(4, np.float32)})


def refused(order, message, capsys):
  capsys.readouterr()
  assert main(order) != 0
  assert message in capsys.readouterr().err


def test_a_file_is_the_run_of_the_folder_and_takes_adapters(tmp_path, capsys):
  pipeline = stable_diffusion(tmp_path / 'theirs')
  path = original(pipeline, tmp_path / 'sd.safetensors')
  assert main(['import', f'--from={tmp_path / "theirs"}', f'--workdir={tmp_path / "folder"}']) == 0
  refused(['import', f'--from={path}', f'--workdir={tmp_path / "none"}'], 'no tokenizer: give --tokenizer=FOLDER',
          capsys)
  assert not (tmp_path / 'none').exists() and not (tmp_path / 'none_components').exists()
  flags = [f'--tokenizer={tmp_path / "tokens"}', '--size=8']
  assert main(['import', f'--from={path}', f'--workdir={tmp_path / "file"}', *flags]) == 0
  one, two = (genjax.open(tmp_path / name, sampler=dict(steps=2)) for name in ('folder', 'file'))
  here, there = (named_leaves(jax.device_get({'params': run.state.params, 'frozen': run.run.frozen}))
                 for run in (one, two))
  assert here.keys() == there.keys() and all(np.array_equal(here[name], there[name]) for name in here)
  for section in ('model', 'objective', 'sampler', 'conditions'):
    assert one.config[section] == two.config[section]
  given = dict(prompt='a red circle', noise=np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32))
  _adapters(tmp_path, given, two, capsys)


def _adapters(tmp_path, given, base, capsys):
  """A file of kohya with an adapter of the text encoder, too, imported and written again in both layouts."""
  rng, tensors = np.random.default_rng(0), {}
  for module, outputs, inputs in (('lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q', 32, 32),
                                  ('lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v', 64, 64),
                                  ('lora_te_text_model_encoder_layers_0_self_attn_q_proj', 64, 64)):
    tensors |= {f'{module}.lora_down.weight': 3 * rng.normal(size=(2, inputs)).astype(np.float32),
                f'{module}.lora_up.weight': 3 * rng.normal(size=(outputs, 2)).astype(np.float32),
                f'{module}.alpha': np.asarray(1.0, np.float32)}
  save_file(tensors, tmp_path / 'lora.safetensors')
  order = ['import', f'--from={tmp_path / "lora.safetensors"}', f'--base={tmp_path / "file"}',
           f'--workdir={tmp_path / "adapted"}']
  refused(order, 'text_encoder (3 tensors)', capsys)
  assert main([*order, '--component=unet']) == 0
  adapted = genjax.open(tmp_path / 'adapted', sampler=dict(steps=2))
  plain, changed = (run.sample(1, **given, exact=True)['image'] for run in (base, adapted))
  assert np.abs(changed - plain).max() > 1e-3
  for layout in ('kohya', 'diffusers'):
    assert main(['export', f'--workdir={tmp_path / "adapted"}', f'--to={tmp_path / layout}', f'--format={layout}']) == 0
  again = load_file(tmp_path / 'kohya' / 'pytorch_lora_weights.safetensors')
  assert again.keys() == {name for name in tensors if 'unet' in name}
  assert all(np.array_equal(again[name], tensors[name]) for name in again)


def test_components_alone(tmp_path, capsys):
  path = original(stable_diffusion(tmp_path / 'theirs'), tmp_path / 'sd.safetensors')
  assert main(['import', f'--from={path}', '--component=vae', '--size=8', f'--to={tmp_path / "vae"}']) == 0
  assert json.loads((tmp_path / 'vae' / 'config.json').read_text())['scaling_factor'] == 0.18215
  assert main(['import', f'--from={path}', '--component=vae', '--size=8', f'--workdir={tmp_path / "run"}']) == 0
  assert genjax.open(tmp_path / 'run').config.model.name == 'kl'
  refused(['import', f'--from={path}', '--component=nothing', f'--workdir={tmp_path / "none"}'],
          'has unet, vae, text_encoder', capsys)
