"""Imported ViT models against `transformers`: random small ones, in and out."""

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

SIZES = dict(hidden_size=33, num_hidden_layers=3, num_attention_heads=3, intermediate_size=47, image_size=35,
             patch_size=7, num_channels=3, initializer_range=0.2)
CASES = {
  'ViTModel': {'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-6},
  'ViTModel_unpooled': {'image_size': (21, 35), 'num_channels': 1},
  'ViTForImageClassification': {'num_labels': 5},
  'ViTModel_no_biases': {'qkv_bias': False},
}


def published(name, folder, dtype=torch.float32):
  torch.manual_seed(0)
  kind = getattr(transformers, name.partition('_')[0])
  model = kind(transformers.ViTConfig(**{**SIZES, **CASES[name]}),
               **({'add_pooling_layer': False} if name.endswith('unpooled') else {}))
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.to(dtype).save_pretrained(folder)
  return kind.from_pretrained(folder, dtype=torch.float32,
                              **({'add_pooling_layer': False} if name.endswith('unpooled') else {})).eval()


def images(model):
  size = model.config.image_size
  height, width = (size, size) if isinstance(size, int) else size
  return np.random.default_rng(0).uniform(-1, 1, (3, height, width, model.config.num_channels)).astype(np.float32)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', CASES)
def test_outputs_and_round_trip(name, dtype, tmp_path):
  theirs = published(name, tmp_path / 'public', dtype)
  ours = interop.load(tmp_path / 'public')
  image = images(theirs)
  found, _ = jax.jit(ours.network.apply)(ours.params, ours.mutable, image)
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  interop.save(tmp_path / 'own', ours.config, ours.params)
  for folder in ('public', 'copy', 'own'):
    again, report = type(theirs).from_pretrained(tmp_path / folder, dtype=torch.float32, output_loading_info=True)
    assert folder == 'public' or name.endswith('unpooled') or not any(
      report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    with torch.no_grad():
      expected = again.eval()(torch.tensor(image.transpose(0, 3, 1, 2)))
    pairs = {'hidden': 'last_hidden_state', 'pooled': 'pooler_output', 'classes': 'logits'}
    for output in set(found) - {'hidden'} if 'classes' in found else found:
      value = expected[pairs[output]].numpy()
      np.testing.assert_allclose(found[output], value, rtol=0, atol=1e-4 * np.abs(value).max())
  assert set(found) == {
    'ViTModel': {'hidden', 'pooled'}, 'ViTModel_no_biases': {'hidden', 'pooled'}, 'ViTModel_unpooled': {'hidden'},
    'ViTForImageClassification': {'hidden', 'classes'}
  }[name]


@pytest.mark.parametrize(('options', 'message'), [
  ({'pooler_act': 'relu'}, 'pooler_act is'), ({'patch_size': (7, 5)}, '7 by 5 pixels'),
  ({'image_size': 36}, 'patch must divide')])
def test_options_that_genjax_lacks(options, message, tmp_path):
  transformers.ViTModel(transformers.ViTConfig(**{**SIZES, **options})).save_pretrained(tmp_path / 'public')
  with pytest.raises(UserError, match=message):
    interop.load(tmp_path / 'public')
