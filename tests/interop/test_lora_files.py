"""Files of adapters of image models: both layouts and back, and what is refused."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.interop import lora_files, weights
from genjax.models.denoisers import dit, latent_unet, mmdit
from genjax.nn import lora
from genjax.types import UserError, named_leaves

UNET = latent_unet.LatentUNet(shape=(8, 8, 4), channels=(8, 16), blocks=1, depths=(0, 2), middle_depth=2, heads=(2, 2),
                              groups=4, token_width=6, null_class=False, vector_width=12, numbers=6, number_features=8,
                              linear_projection=True)
SD1 = latent_unet.LatentUNet(shape=(8, 8, 4), channels=(8, 16), blocks=1, depths=(1, 0), middle_depth=1, heads=(2, 2),
                             groups=4, token_width=6)
FLUX = mmdit.MmDit(shape=(8, 8, 4), patch=2, layers=2, single=2, heads=2, head_dim=8, norm_queries=True, token_width=6,
                   vector_width=5, positions='rope', rope_axes=(4, 2, 2))
SD3 = mmdit.MmDit(shape=(8, 8, 4), patch=2, layers=2, heads=2, head_dim=8, token_width=6, vector_width=5, grid=4,
                  largest=8)
PATHS = {'unet': ('.*/(query|value)/kernel', '.*/(up|gate|conv_in|project)/kernel'),
         'sd1': ('.*/(query|out|conv_out|project)/kernel', 'enlarge/.*kernel', 'shrink/.*kernel'),
         'flux': ('.*(query|key|value|out|up)/kernel', 'head/modulation/kernel'),
         'sd3': ('.*/(query|key|value|modulation)/kernel',)}
CONFIGS = {'unet': UNET, 'sd1': SD1, 'flux': FLUX, 'sd3': SD3}


def public(config, rng=None):
  """A model of random parameters, made on the host."""
  architecture = weights.architecture_of(config)
  network = weights.ARCHITECTURES[architecture].network(config)
  rng = rng or np.random.default_rng(0)
  shapes = jax.eval_shape(network.init, jax.random.key(0))[0]
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  return interop.Model(architecture, config, network, params, {}, {})


def adapter(model, paths, rank=2, alpha=3.0):
  options = lora.Options(rank, alpha, paths)
  kernels = lora.targets(options, {'net': model.params})['net']
  shapes = jax.eval_shape(lambda key: lora.init(key, kernels, rank), jax.random.key(0))
  rng = np.random.default_rng(1)
  return lora_files.Adapter(options, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes))


def deltas(found):
  """What adapters add to kernels."""
  pairs = named_leaves(found.params)
  return {name[:-2]: found.options.scale * np.asarray(lora.product(pairs[name], pairs[f'{name[:-2]}/B']))
          for name in pairs if name.endswith('/A')}


@pytest.mark.parametrize('layout', lora_files.FORMATS)
@pytest.mark.parametrize('name', CONFIGS)
def test_files_come_back(name, layout, tmp_path):
  model = public(CONFIGS[name])
  given = adapter(model, PATHS[name])
  lora_files.save(tmp_path / 'a', model, given, layout)
  found = lora_files.load(tmp_path / 'a', model)
  wanted, got = deltas(given), deltas(found)
  assert wanted.keys() == got.keys()
  for kernel in wanted:
    np.testing.assert_allclose(got[kernel], wanted[kernel], atol=1e-5)
  lora_files.save(tmp_path / 'b', model, found, layout)
  first, second = (load_file(tmp_path / folder / lora_files.WEIGHTS) for folder in 'ab')
  assert first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_ranks_and_alphas_of_modules(tmp_path):
  model = public(UNET)
  down, up = 'lora_unet_mid_block_attentions_0_transformer_blocks_', '_attn1_to_'
  rng = np.random.default_rng(0)
  tensors = {}
  for layer, name, rank, alpha in ((0, 'q', 3, 6.0), (1, 'k', 1, 0.5), (1, 'q', 2, 4.0)):
    module = f'{down}{layer}{up}{name}'
    tensors |= {f'{module}.lora_down.weight': rng.normal(size=(rank, 16)).astype(np.float32),
                f'{module}.lora_up.weight': rng.normal(size=(16, rank)).astype(np.float32),
                f'{module}.alpha': np.asarray(alpha, np.float32)}
  save_file(tensors, tmp_path / 'mixed.safetensors')
  found = lora_files.load(tmp_path / 'mixed.safetensors', model)
  assert (found.options.rank, found.options.scale) == (3, 2.0)
  got = deltas(found)
  assert set(got) == {f'middle/0/blocks/attention/{name}/kernel' for name in ('query', 'key')}
  for layer, name, scale in ((0, 'q', 2.0), (1, 'k', 0.5), (1, 'q', 2.0)):
    module, own = f'{down}{layer}{up}{name}', {'q': 'query', 'k': 'key'}[name]
    wanted = scale * (tensors[f'{module}.lora_up.weight'] @ tensors[f'{module}.lora_down.weight']).T
    np.testing.assert_allclose(got[f'middle/0/blocks/attention/{own}/kernel'][layer], wanted, atol=1e-5)
  assert not got['middle/0/blocks/attention/key/kernel'][0].any()
  lora_files.save(tmp_path / 'again', model, found, 'kohya')  # smaller ranks are written as they came
  again = load_file(tmp_path / 'again' / lora_files.WEIGHTS)
  assert sorted(array.shape[0] for name, array in again.items() if 'down' in name) == [1, 2, 3]


def changed(folder, change):
  path = folder / lora_files.WEIGHTS
  tensors = load_file(path)
  change(tensors)
  save_file(tensors, path)


@pytest.mark.parametrize('name, message', [
  ('unet.nowhere.lora_A.weight', r'1 tensors have no place.*unet\.nowhere'),
  ('lora_unet_mid_block_attentions_0_proj_in.hada_w1_a', 'they are of LoHa'),
  ('unet.mid_block.attentions.0.proj_in.lora_magnitude_vector', 'they are of DoRA'),
  ('unet.mid_block.attentions.0.proj_out.lora_A.weight', 'A or B is missing for unet.mid_block'),
  ('lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha', r'text_encoder \(1 tensors\).*--component=unet')])
def test_tensors_without_a_place_are_errors(name, message, tmp_path):
  model = public(UNET)
  lora_files.save(tmp_path / 'a', model, adapter(model, ('.*/query/kernel',)))
  changed(tmp_path / 'a', lambda tensors: tensors.update({name: np.ones((2, 2), np.float32)}))
  with pytest.raises(UserError, match=message):
    lora_files.load(tmp_path / 'a', model)
  if 'te1' in name:
    assert lora_files.load(tmp_path / 'a', model, only=True).options.rank == 2


def test_adapters_of_another_base_and_pickles_are_errors(tmp_path):
  model = public(UNET)
  lora_files.save(tmp_path / 'a', model, adapter(model, ('.*/query/kernel',)))
  changed(tmp_path / 'a', lambda tensors: tensors.update(
    {name: array[:, :-1] for name, array in tensors.items() if 'lora_A' in name}))
  with pytest.raises(UserError, match=r'adapters do not fit the base.*attn1\.to_q'):
    lora_files.load(tmp_path / 'a', model)
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'pytorch_lora_weights.bin').write_bytes(b'x')
  with pytest.raises(UserError, match='may run any code'):
    lora_files.load(tmp_path / 'b', model)
  flux = public(FLUX)
  given = adapter(flux, ('embed/patch/kernel',))
  with pytest.raises(UserError, match='no modules for adapters of embed/patch/kernel'):
    lora_files.save(tmp_path / 'c', flux, given)


@pytest.mark.slow
@pytest.mark.parametrize('config, paths, count', [
  (latent_unet.LatentUNet(shape=(64, 64, 4), token_width=768), ('.*/blocks/(attention|cross)/.*/kernel',), 797_184),
  (latent_unet.LatentUNet(shape=(128, 128, 4), channels=(320, 640, 1280), depths=(0, 2, 10), middle_depth=10,
                          heads=(5, 10, 20), token_width=2048, vector_width=1280, numbers=6, number_features=256),
   ('.*/blocks/(attention|cross)/.*/kernel',), 5_806_080),
  (dit.DiT(shape=(32, 32, 4), patch=2, width=1152, depth=28, heads=16, num_classes=1000),
   ('blocks/attention/(query|key|value|out)/kernel',), 1_032_192),
  (mmdit.MmDit(shape=(128, 128, 16), patch=2, layers=19, single=38, heads=24, head_dim=128, norm_queries=True,
               token_width=4096, vector_width=768, positions='rope', rope_axes=(16, 56, 56)),
   ('[^/]*/?image/heads/(query|key|value)/kernel', '[^/]*/?image/out/kernel', 'single/heads/.*/kernel'), 4_669_440)],
  ids=['sd15', 'sdxl', 'dit', 'flux'])
def test_counts_of_published_adapters(config, paths, count):
  make = {latent_unet.LatentUNet: latent_unet.network_of, dit.DiT: dit.network, mmdit.MmDit: mmdit.network_of}
  shapes = jax.eval_shape(make[type(config)](config).init, jax.random.key(0))[0]
  kernels = lora.targets(lora.Options(4, 4.0, paths), {'net': shapes})['net']
  adapters = jax.eval_shape(lambda key: lora.init(key, kernels, 4), jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == count


@pytest.mark.parametrize(('suffix', 'value', 'message'), [
  ('lora_down.weight', np.full((2, 6), np.nan, np.float32), 'NaN'),
  ('lora_down.weight', np.zeros((0, 6), np.float32), 'rank of at least 1'),
  ('lora_up.weight', np.ones((), np.float32), 'matrices'),
  ('alpha', np.zeros((), np.float32), 'other than 0'),
  ('alpha', np.ones(2, np.float32), 'one number')])
def test_damaged_adapters_are_refused(suffix, value, message, tmp_path):
  model = public(SD1)
  lora_files.save(tmp_path / 'a', model, adapter(model, PATHS['sd1']), 'kohya')
  tensors = load_file(tmp_path / 'a' / lora_files.WEIGHTS)
  name = next(name for name in tensors if name.endswith(suffix))
  save_file({**tensors, name: value}, tmp_path / 'damaged.safetensors')
  with pytest.raises(UserError, match=message):
    lora_files.load(tmp_path / 'damaged.safetensors', model)
