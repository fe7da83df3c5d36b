"""Imported DiT, SiT and PixArt against `diffusers`, and against a transcript of the original DiT: small random ones."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.interop import weights
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
safetensors_torch = pytest.importorskip('safetensors.torch')
from tests.parity.random_networks import check, filled, normal  # noqa: E402  # needs torch

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

DIT = dict(sample_size=12, patch_size=3, in_channels=5, num_layers=3, num_attention_heads=3, attention_head_dim=12,
           num_embeds_ada_norm=11)
DITS = {'plain': dict(out_channels=5), 'sigma': dict(out_channels=10, norm_eps=1e-6, activation_fn='gelu')}
PIXART = dict(sample_size=8, num_layers=3, attention_head_dim=8, num_attention_heads=3, in_channels=4, out_channels=8,
              caption_channels=20, cross_attention_dim=24)
PIXARTS = {'sigma': dict(interpolation_scale=2), 'alpha': dict(use_additional_conditions=True, norm_eps=1e-5),
           'bare': dict(caption_channels=None, cross_attention_dim=20, out_channels=4)}


def dit(name):
  """A DiT whose blocks have equal embedders, as published ones have."""
  model = filled(diffusers.DiTTransformer2DModel(**DIT | DITS[name]))
  for block in model.transformer_blocks:
    block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
  return model


@pytest.mark.parametrize('name', DITS)
def test_dit(name, tmp_path):
  model = dit(name)
  model.save_pretrained(tmp_path / 'theirs')
  imported = interop.load(tmp_path / 'theirs')
  for side in (12, 15):  # positions of another size are stretched
    x_BCHW, time_B, label_B = normal(0, 2, 5, side, side), np.array([3, 870]), np.array([7, 11])
    with torch.no_grad():
      wanted = model(torch.tensor(x_BCHW), torch.tensor(time_B), torch.tensor(label_B)).sample
    got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1), time_B,
                                          {'label': label_B})[0]
    np.testing.assert_allclose(got, wanted.numpy().transpose(0, 2, 3, 1), atol=1e-5 * np.abs(wanted.numpy()).max())
  check(model, imported, wanted.numpy().transpose(0, 2, 3, 1), np.asarray(got), tmp_path / 'ours')


def test_a_dit_with_several_embedders_is_refused(tmp_path):
  model = dit('plain')
  with torch.no_grad():
    model.transformer_blocks[2].norm1.emb.class_embedder.embedding_table.weight[0, 0] += 1
  model.save_pretrained(tmp_path)
  with pytest.raises(UserError, match=r'transformer_blocks.2.norm1.emb.*differ.*trained apart'):
    interop.load(tmp_path)


@pytest.mark.parametrize('name', PIXARTS)
def test_pixart(name, tmp_path):
  model = filled(diffusers.PixArtTransformer2DModel(**PIXART | PIXARTS[name]))
  model.save_pretrained(tmp_path / 'theirs')
  imported = interop.load(tmp_path / 'theirs')
  given = {'tokens': normal(1, 2, 5, 20), 'tokens_mask': np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])}
  told = {}
  if name == 'alpha':
    given['numbers'] = np.array([[512, 768, 2 / 3], [1024, 64, 16]], np.float32)
    told = {'resolution': torch.tensor(given['numbers'][:, :2]), 'aspect_ratio': torch.tensor(given['numbers'][:, 2:])}
  for height, width in ((8, 8), (6, 12)):
    x_BCHW, time_B = normal(0, 2, 4, height, width), np.array([3, 870])
    with torch.no_grad():
      wanted = model(torch.tensor(x_BCHW), torch.tensor(given['tokens']), torch.tensor(time_B),
                     added_cond_kwargs=told or {'resolution': None, 'aspect_ratio': None},
                     encoder_attention_mask=torch.tensor(given['tokens_mask'])).sample.numpy().transpose(0, 2, 3, 1)
    got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1), time_B, given)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
  again = check(model, imported, wanted, np.asarray(got), tmp_path / 'ours')
  with torch.no_grad():  # config.json says the same, too
    other = again(torch.tensor(x_BCHW), torch.tensor(given['tokens']), torch.tensor(time_B),
                  added_cond_kwargs=told or {'resolution': None, 'aspect_ratio': None},
                  encoder_attention_mask=torch.tensor(given['tokens_mask'])).sample.numpy().transpose(0, 2, 3, 1)
  np.testing.assert_array_equal(other, wanted)


@pytest.mark.parametrize('entry, value, message', [
  ('norm_type', 'ada_norm', 'norm_type'), ('out_channels', 5, 'out_channels'), ('cross_attention_dim', 20, 'captions'),
  ('activation_fn', 'geglu', 'activation_fn'), ('attention_bias', False, 'attention_bias')])
def test_other_pixarts_are_refused(entry, value, message, tmp_path):
  diffusers.PixArtTransformer2DModel(**PIXART).save_pretrained(tmp_path)
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
  with pytest.raises(UserError, match=message):
    interop.load(tmp_path)


def test_the_original_layout_of_dit(tmp_path):
  """The names and shapes of facebookresearch/DiT and willisma/SiT; diffusers has other frequencies of the time."""
  width, depth, patch, channels = 24, 2, 2, 3
  shapes = {
    'x_embedder.proj.weight': (width, channels, patch, patch), 'x_embedder.proj.bias': (width,),
    't_embedder.mlp.0.weight': (width, 256), 't_embedder.mlp.0.bias': (width,),
    't_embedder.mlp.2.weight': (width, width), 't_embedder.mlp.2.bias': (width,),
    'y_embedder.embedding_table.weight': (8, width), 'pos_embed': (1, 16, width),
    'final_layer.linear.weight': (patch ** 2 * channels * 2, width), 'final_layer.linear.bias': (patch ** 2 * 6,),
    'final_layer.adaLN_modulation.1.weight': (2 * width, width), 'final_layer.adaLN_modulation.1.bias': (2 * width,)}
  for layer in range(depth):
    for name, (outputs, inputs) in {'attn.qkv': (3, 1), 'attn.proj': (1, 1), 'mlp.fc1': (4, 1), 'mlp.fc2': (1, 4),
                                    'adaLN_modulation.1': (6, 1)}.items():
      shapes[f'blocks.{layer}.{name}.weight'] = outputs * width, inputs * width
      shapes[f'blocks.{layer}.{name}.bias'] = (outputs * width,)
  tensors = {name: 0.2 * normal(index, *shape) for index, (name, shape) in enumerate(shapes.items())}
  source = {'_class_name': 'DiT', 'input_size': 8, 'patch_size': patch, 'in_channels': channels, 'hidden_size': width,
            'depth': depth, 'num_heads': 4, 'num_classes': 7}
  imported = weights.from_tensors('model.safetensors', source, tensors)
  positions = weights.ARCHITECTURES['DiT'].constants(imported.config)['pos_embed']
  tensors['pos_embed'] = positions
  interop.save(tmp_path, imported)
  again = safetensors_torch.load_file(tmp_path / 'diffusion_pytorch_model.safetensors')
  assert again.keys() == tensors.keys() and all(np.array_equal(again[name], tensors[name]) for name in tensors)
  x_BHWC, time_B, label_B = normal(0, 2, 8, 8, channels), np.array([3.5, 870.0], np.float32), np.array([7, 2])
  got = jax.jit(imported.network.apply)(imported.params, {}, x_BHWC, time_B, {'label': label_B})[0]
  wanted = original(tensors, x_BHWC.transpose(0, 3, 1, 2), time_B, label_B, depth, 4)
  np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


def original(tensors, x_BCHW, time_B, label_B, depth, heads):
  """The forward pass of Peebles & Xie (2023), with torch's functions."""
  held = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
  F = torch.nn.functional
  linear = lambda name, x: F.linear(x, held[f'{name}.weight'], held[f'{name}.bias'])
  norm = lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6)
  x = F.conv2d(torch.tensor(x_BCHW), held['x_embedder.proj.weight'], held['x_embedder.proj.bias'], stride=2)
  x = x.flatten(2).transpose(1, 2) + held['pos_embed']
  angle = torch.tensor(time_B)[:, None] * torch.exp(-np.log(10000) * torch.arange(128) / 128)
  time = linear('t_embedder.mlp.2', F.silu(linear('t_embedder.mlp.0', torch.cat([angle.cos(), angle.sin()], dim=-1))))
  condition = F.silu(time + held['y_embedder.embedding_table.weight'][torch.tensor(label_B)])
  for layer in range(depth):
    block = f'blocks.{layer}'
    told = linear(f'{block}.adaLN_modulation.1', condition)[:, None].chunk(6, dim=-1)
    parts = linear(f'{block}.attn.qkv', norm(x) * (1 + told[1]) + told[0])
    query, key, value = parts.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + told[2] * linear(f'{block}.attn.proj', attended)
    hidden = F.gelu(linear(f'{block}.mlp.fc1', norm(x) * (1 + told[4]) + told[3]), approximate='tanh')
    x = x + told[5] * linear(f'{block}.mlp.fc2', hidden)
  shift, scale = linear('final_layer.adaLN_modulation.1', condition)[:, None].chunk(2, dim=-1)
  x = linear('final_layer.linear', norm(x) * (1 + scale) + shift).reshape(-1, 4, 4, 2, 2, 6)
  return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 6).numpy()
