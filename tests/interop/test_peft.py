"""Adapters of PEFT: what is refused and what does not fit, on folders that genjax wrote and that are then changed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.interop import peft
from genjax.models.transformers.decoder import TransformerConfig, llama, transformer
from genjax.nn import lora
from genjax.types import UserError, named_leaves

SIZES = dict(vocab=19, context=12, layers=2, heads=4, width=16)
CONFIGS = {'gpt2': TransformerConfig(**SIZES, mlp='gelu'), 'llama': llama(**SIZES, kv_heads=2, mlp_width=15),
           'mixtral': llama(**SIZES, kv_heads=2, mlp_width=15, experts=3, experts_per_token=2),
          'wider': llama(**{**SIZES, 'width': 24}, kv_heads=2, mlp_width=15)}


def public(name, folder):
  config = CONFIGS[name]
  interop.save(folder, config, transformer(config).init(jax.random.key(0))[0])
  return interop.load(folder)


def adapter(model, *paths, rank=2):
  options = lora.Options(rank, 3.0, paths)
  params = lora.init(jax.random.key(0), lora.targets(options, {'net': model.params})['net'], rank)
  noise = np.random.default_rng(0)
  return peft.Adapter(options, jax.tree.map(lambda leaf: noise.normal(size=leaf.shape).astype(np.float32), params))


@pytest.fixture
def saved(tmp_path):
  """A LLaMA, and a folder with an adapter of its queries and of the matrices after its gates."""
  model = public('llama', tmp_path / 'base')
  peft.save(tmp_path / 'adapter', model, adapter(model, 'blocks/attention/query/kernel', 'blocks/down/kernel'))
  return model, tmp_path / 'adapter'


def edit(folder, **entries):
  path = folder / peft.CONFIG
  path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def edit_tensors(folder, change):
  tensors = load_file(folder / peft.WEIGHTS)
  change(tensors)
  save_file(tensors, folder / peft.WEIGHTS)


def refusal(model, folder):
  with pytest.raises(UserError) as caught:
    peft.load(folder, model)
  return str(caught.value)


def test_round_trip(saved, tmp_path):
  model, folder = saved
  first = peft.load(folder, model)
  assert sorted(load_file(folder / peft.WEIGHTS))[0] == 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight'
  assert first.options.scale == 1.5 and first.options.rank == 2
  jax.tree.map(np.testing.assert_array_equal, first.params,
               adapter(model, 'blocks/attention/query/kernel', 'blocks/down/kernel').params)
  # The paths are those of the adapted kernels: training may go on from here.
  assert sorted(lora.targets(first.options,
                             {'net': model.params})['net']) == ['blocks/attention/query/kernel', 'blocks/down/kernel']
  peft.save(tmp_path / 'again', model, first)
  for file in (peft.CONFIG, peft.WEIGHTS):
    assert (tmp_path / 'again' / file).read_bytes() == (folder / file).read_bytes()


def test_adapters_of_a_bare_model(saved):
  """Saved from a model without its output layer's module, names have no prefix."""
  model, folder = saved
  expected = peft.load(folder, model)
  tensors = load_file(folder / peft.WEIGHTS)
  save_file({name.replace('model.model.', 'model.', 1): tensor for name, tensor in tensors.items()},
            folder / peft.WEIGHTS)
  jax.tree.map(np.testing.assert_array_equal, peft.load(folder, model).params, expected.params)


def test_kernels_side_by_side(tmp_path):
  """One public module for queries, keys and values: one A if they share it, blocks if not; a kernel without an adapter
  has zeros."""
  model = public('gpt2', tmp_path / 'base')
  own = adapter(model, 'blocks/attention/(query|value)/kernel', 'blocks/down/kernel')
  peft.save(tmp_path / 'blocks', model, own)
  tensors = load_file(tmp_path / 'blocks' / peft.WEIGHTS)
  assert tensors['base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'].shape == (4, 16)
  assert tensors['base_model.model.transformer.h.0.attn.c_attn.lora_B.weight'].shape == (48, 4)
  again = peft.load(tmp_path / 'blocks', model)
  jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, atol=1e-5),
               lora.merge(model.params, again.params, again.options.scale),
               lora.merge(model.params, own.params, own.options.scale))
  peft.save(tmp_path / 'shared', model, again)  # its three A are equal now
  assert load_file(
    tmp_path / 'shared' / peft.WEIGHTS)['base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'].shape == (4, 16)


def test_experts(tmp_path):
  """One A and B for each matrix of each expert; those without an adapter have zeros, since PEFT wants all of them or
  none."""
  model = public('mixtral', tmp_path / 'base')
  own = adapter(model, 'blocks/experts/(up|down)_kernel', 'blocks/attention/out/kernel')
  own = own._replace(options=dataclasses.replace(own.options, dropout=0.1))
  peft.save(tmp_path / 'out', model, own)
  written = json.loads((tmp_path / 'out' / peft.CONFIG).read_text())
  assert written['target_modules'] == ['self_attn.o_proj', 'w1', 'w2', 'w3'] and written['lora_dropout'] == 0
  tensors = load_file(tmp_path / 'out' / peft.WEIGHTS)
  assert len(tensors) == 2 * 2 * (1 + 3 * 3)
  experts = own.params['blocks']['experts']
  module = 'base_model.model.model.layers.1.block_sparse_moe.experts.2'
  np.testing.assert_array_equal(tensors[f'{module}.w3.lora_A.weight'], experts['up_kernel']['A'][1, 2].T)
  np.testing.assert_array_equal(tensors[f'{module}.w2.lora_B.weight'], experts['down_kernel']['B'][1, 2].T)
  assert tensors[f'{module}.w1.lora_A.weight'].shape == (2, 16) and not tensors[f'{module}.w1.lora_B.weight'].any()
  again = peft.load(tmp_path / 'out', model)
  jax.tree.map(np.testing.assert_array_equal, lora.merge(model.params, again.params, 1.5),
               lora.merge(model.params, own.params, 1.5))
  edit(tmp_path / 'out', layers_to_transform=[0])
  assert 'beyond them: model.layers.1.block_sparse_moe.experts.0.w1' in refusal(model, tmp_path / 'out')
  edit(tmp_path / 'out', layers_to_transform=None, target_parameters=['mlp.experts.down_proj'])
  assert "target_parameters=['mlp.experts.down_proj']" in refusal(model, tmp_path / 'out')


@pytest.mark.parametrize(
  ('entries', 'said'),
  [(dict(use_dora=True), 'use_dora=True'), (dict(bias='lora_only'), "bias is 'lora_only'"),
   (dict(modules_to_save=['lm_head']), "modules_to_save=['lm_head']"),
   (dict(rank_pattern={'q_proj': 4}), "rank_pattern={'q_proj': 4}"),
   (dict(alpha_pattern={'q_proj': 4}), "alpha_pattern={'q_proj': 4}"), (dict(lora_bias=True), 'lora_bias=True'),
   (dict(trainable_token_indices=[3]), 'trainable_token_indices=[3]'),
   (dict(something_new={'x': 1}), "something_new={'x': 1}"), (dict(peft_type='LOHA'), "peft_type is 'LOHA'"),
   (dict(init_lora_weights='pissa'), "init_lora_weights is 'pissa'"),
   (dict(r=0), 'r must be a whole number of at least 1'), (dict(lora_alpha='x'), 'lora_alpha must be a number above 0'),
   (dict(target_modules=['q_proj', 'down_proj', 'k_proj']),
    'missing: model.layers.0.self_attn.k_proj, model.layers.1.self_attn.k_proj'),
   (dict(target_modules=['q_proj']), 'beyond them: model.layers.0.mlp.down_proj'),
   (dict(layers_to_transform=[0]), 'beyond them: model.layers.1.mlp.down_proj, model.layers.1.self_attn.q_proj'),])
def test_refused_options(saved, entries, said):
  model, folder = saved
  edit(folder, **entries)
  assert said in refusal(model, folder)


def test_harmless_options_and_another_scale(saved):
  model, folder = saved
  edit(folder, task_type=None, use_dora=False, rank_pattern={}, init_lora_weights='gaussian', use_rslora=True,
       lora_alpha=8)
  assert peft.load(folder, model).options.scale == pytest.approx(8 / 2 ** 0.5)


def test_tensors_that_do_not_fit_are_listed(saved, tmp_path):
  model, folder = saved
  edit_tensors(
    folder, lambda tensors: tensors.update({
      'base_model.model.model.layers.7.mlp.down_proj.lora_A.weight': np.ones(
        (2, 15)), 'base_model.model.lm_head.lora_magnitude_vector': np.ones(3)
    }))
  edit_tensors(folder, lambda tensors: tensors.pop('base_model.model.model.layers.0.mlp.down_proj.lora_B.weight'))
  said = refusal(model, folder)
  assert ('2 without a place in the base: base_model.model.lm_head.lora_magnitude_vector, '
          'base_model.model.model.layers.7') in said
  assert '1 with A or B only: model.layers.0.mlp.down_proj' in said
  _, folder = saved
  said = refusal(public('wider', tmp_path / 'wider'), folder)
  assert 'model.layers.0.self_attn.q_proj.lora_A.weight has (2, 16), not (2, 24)' in said
  said = refusal(public('gpt2', tmp_path / 'gpt2'), folder)
  assert '9 without a place in the base' in said
  assert 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight' in said


def test_pickles_and_damaged_files(saved):
  model, folder = saved
  (folder / peft.WEIGHTS).write_bytes((folder / peft.WEIGHTS).read_bytes()[:-100])
  assert 'truncated or damaged' in refusal(model, folder)
  (folder / peft.WEIGHTS).unlink()
  (folder / 'adapter_model.bin').write_bytes(b'')
  assert 'adapter_model.bin, a pickle, which genjax does not open' in refusal(model, folder)
  (folder / peft.CONFIG).unlink()
  assert 'adapter_config.json does not exist' in refusal(model, folder)


def test_the_output_layer_beside_an_adapter_must_be_that_of_the_base(saved):
  model, folder = saved
  table = np.asarray(named_leaves(model.params)['head/out/kernel']).T
  name = 'base_model.model.lm_head.base_layer.weight'
  edit_tensors(folder, lambda tensors: tensors.update({name: np.ascontiguousarray(table)}))
  peft.load(folder, model)
  edit_tensors(folder, lambda tensors: tensors.update({name: table + 1}))
  assert f'{name} differs from the base' in refusal(model, folder)


def test_what_cannot_be_written(saved, tmp_path):
  model, folder = saved
  own = adapter(model, 'blocks/down/kernel')
  with pytest.raises(UserError, match='llama has no modules for adapters of other/kernel'):
    peft.save(tmp_path / 'x', model,
              own._replace(params={'other': {'kernel': {'A': np.ones((2, 2)), 'B': np.ones((2, 2))}}}))
  with pytest.raises(UserError, match='do not fit the base'):
    peft.save(tmp_path / 'x', model, own._replace(params=jax.tree.map(lambda leaf: leaf[:1], own.params)))
  with pytest.raises(UserError, match='not an empty folder'):
    peft.save(folder, model, own)
  assert not (tmp_path / 'x').exists()
