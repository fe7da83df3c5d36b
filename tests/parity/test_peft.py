"""Adapters of PEFT on random small models: read here, and written here for PEFT, against its logits."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from genjax import interop
from genjax.interop import peft as ours
from genjax.nn import lora

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  theirs = pytest.importorskip('peft', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
# PEFT's own calls of what transformers deprecates, its word that it found out by itself how Conv1D lies, and that it
# saves the weights of an adapted output layer beside the adapter, and that it does not find where it has just joined
# ranks and alphas of experts.
pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:.*is_gradient_checkpointing', 'ignore:fan_in_fan_out',
                             'ignore:Setting `save_embedding_layers`',
                             'ignore:The following (rank|alpha)_pattern keys did not match')
]

NO_TOKENS = {'bos_token_id': None, 'eos_token_id': None}
SIZES = dict(vocab_size=53, max_position_embeddings=64, hidden_size=36, intermediate_size=50, num_hidden_layers=3,
             num_attention_heads=6, num_key_value_heads=2, initializer_range=0.2, **NO_TOKENS)
BASES = {
  'gpt2': lambda: transformers.GPT2Config(vocab_size=53, n_positions=48, n_embd=42, n_layer=3, n_head=3, n_inner=61,
                                          **NO_TOKENS),
  'llama': lambda: transformers.LlamaConfig(**{**SIZES, 'hidden_size': 30, 'num_attention_heads': 5,
                                               'num_key_value_heads': 1,
                                               'intermediate_size': 41}),
  'mistral': lambda: transformers.MistralConfig(**SIZES, sliding_window=7),
  # torch's grouped products want a hidden width of such a size
  'mixtral': lambda: transformers.MixtralConfig(**{**SIZES, 'hidden_size': 24, 'intermediate_size': 52},
                                                num_local_experts=4),
}
EVERY = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
ADAPTERS = {
  'gpt2_attention': ('gpt2', dict(target_modules=['c_attn'])),
  'gpt2_every': ('gpt2', dict(target_modules=['c_attn', 'c_proj', 'c_fc'], use_rslora=True)),
  'llama_every': ('llama', dict(target_modules=EVERY)),
  'llama_head_and_layers': ('llama', dict(target_modules=r'.*layers\.[02]\.self_attn\.[qv]_proj|lm_head',
                                          use_rslora=True)),
  'mistral_every': ('mistral', dict(target_modules=EVERY)),
  'mistral_some_layers': ('mistral', dict(target_modules=['q_proj', 'down_proj'], layers_to_transform=[1])),
}


def logits(model, tokens):
  with torch.no_grad():
    return model(torch.tensor(tokens)).logits


def published(base, folder, **options):
  """A random base, and a random adapter of it whose effect is not small, saved in folders."""
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(BASES[base]()).eval()
  model.save_pretrained(folder / 'base')
  tokens = np.random.default_rng(0).integers(0, 53, (2, 31))
  plain = logits(model, tokens)
  adapted = theirs.get_peft_model(model, theirs.LoraConfig(r=3, lora_alpha=5, task_type='CAUSAL_LM', **options)).eval()
  with torch.no_grad():
    for name, parameter in adapted.named_parameters():
      if 'lora_' in name:
        parameter.copy_(0.3 * torch.randn_like(parameter))
  adapted.save_pretrained(folder / 'adapter')
  expected = logits(adapted, tokens)
  assert float((expected - plain).abs().max()) > 0.05 * float(plain.abs().max())
  return tokens, expected


def reloaded(folder, name):
  """What PEFT makes of a base and an adapter, with every tensor of the file used."""
  base = transformers.AutoModelForCausalLM.from_pretrained(folder / 'base')
  model = theirs.PeftModel.from_pretrained(base, folder / name).eval()
  there = set(theirs.get_peft_model_state_dict(model, save_embedding_layers=False))
  # It joins what belongs to the experts of a layer: gates and the matrices beside them, and around these the matrices
  # after them.
  renamed = {
    r'block_sparse_moe\.experts\.\d+\.w[13]': 'mlp.experts.base_layer',
    r'block_sparse_moe\.experts\.\d+\.w2': 'mlp.experts', r'block_sparse_moe\.gate': 'mlp.gate'
  }
  tensors = set(load_file(folder / name / ours.WEIGHTS))
  for pattern, other in renamed.items():
    tensors = {re.sub(pattern, other, tensor) for tensor in tensors}
  assert there == tensors
  return model


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(np.asarray(expected)).max()))


@pytest.mark.parametrize('name', ADAPTERS)
def test_logits_and_round_trip(name, tmp_path):
  base, options = ADAPTERS[name]
  tokens, expected = published(base, tmp_path, **options)
  model = interop.load(tmp_path / 'base')
  adapter = ours.load(tmp_path / 'adapter', model)
  merged = lora.merge(model.params, adapter.params, adapter.options.scale)
  assert_close(jax.jit(model.network.apply)(merged, model.mutable, jnp.asarray(tokens))[0], expected)

  ours.save(tmp_path / 'copy', model, adapter)
  assert json.loads((tmp_path / 'copy' / ours.CONFIG).read_text())['r'] == 3  # one A for what shared one
  assert_close(logits(reloaded(tmp_path, 'copy'), tokens), expected)
  again = ours.load(tmp_path / 'copy', model)
  jax.tree.map(np.testing.assert_array_equal, again.params, adapter.params)
  assert again.options.scale == pytest.approx(adapter.options.scale)

  interop.save(tmp_path / 'merged', model, merged)
  assert_close(logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'merged').eval(), tokens), expected)


@pytest.mark.parametrize(('base', 'paths', 'rank'), [
  ('gpt2', ('blocks/attention/(query|value)/kernel', 'blocks/down/kernel'), 4),  # two A of rank 2 in the fused module
  ('llama', ('blocks/attention/.*/kernel', 'blocks/gate/kernel', 'head/out/kernel'), 2),
  ('mixtral', ('blocks/attention/value/kernel', 'blocks/experts/.*kernel'), 2),
  ('mixtral', ('blocks/experts/down_kernel',), 2),
  ('mixtral', ('blocks/experts/up_kernel',), 2),
])
def test_an_adapter_of_our_own_loads_in_peft(base, paths, rank, tmp_path):
  tokens, _ = published(base, tmp_path, target_modules=['c_attn' if base == 'gpt2' else 'q_proj'])
  model = interop.load(tmp_path / 'base')
  options = lora.Options(2, 3.0, paths)
  kernels = lora.targets(options, {'net': model.params})['net']
  params = lora.init(jax.random.key(0), kernels, options.rank)
  params = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
  ours.save(tmp_path / 'own', model, ours.Adapter(options, params))
  assert json.loads((tmp_path / 'own' / ours.CONFIG).read_text())['r'] == rank
  merged = lora.merge(model.params, params, options.scale)
  expected = jax.jit(model.network.apply)(merged, model.mutable, jnp.asarray(tokens))[0]
  assert_close(logits(reloaded(tmp_path, 'own'), tokens), expected)
