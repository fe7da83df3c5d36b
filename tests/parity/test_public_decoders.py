"""Imported GPT-2, LLaMA, Mistral and Mixtral models against `transformers`: random small ones, in and out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import interop
from genjax.models.transformers.decoder import init_cache, lay_out

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

LLAMA3 = {
  'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
  'original_max_position_embeddings': 16
}
NO_TOKENS = {'bos_token_id': None, 'eos_token_id': None}


def gpt2(**options):
  sizes = dict(vocab_size=53, n_positions=48, n_embd=42, n_layer=3, n_head=3)
  return transformers.GPT2Config(**{**sizes, **NO_TOKENS, **options})


def llama_like(config, **options):
  sizes = dict(vocab_size=53, max_position_embeddings=64, hidden_size=36, intermediate_size=50, num_hidden_layers=3,
               num_attention_heads=6, num_key_value_heads=2, initializer_range=0.2)
  return config(**{**sizes, **NO_TOKENS, **options})


def llama(**options):
  return llama_like(transformers.LlamaConfig, **options)


def mistral(**options):
  return llama_like(transformers.MistralConfig, **options)


def mixtral(**options):
  # Torch's grouped products want such widths
  return llama_like(transformers.MixtralConfig, **{'intermediate_size': 52, **options})


CASES = {
  'gpt2': lambda: gpt2(),
  'gpt2_untied_exact_gelu': lambda: gpt2(n_inner=70, activation_function='gelu', tie_word_embeddings=False,
                                         layer_norm_epsilon=1e-3),
  'gpt2_relu': lambda: gpt2(activation_function='relu'),
  'gpt2_torch_tanh': lambda: gpt2(activation_function='gelu_pytorch_tanh'),
  'llama_grouped': lambda: llama(rms_norm_eps=1e-5),
  'llama_tied_odd': lambda: llama(vocab_size=51, hidden_size=30, intermediate_size=41, num_attention_heads=5,
                                  num_key_value_heads=1, tie_word_embeddings=True),
  'llama_biases': lambda: llama(attention_bias=True, mlp_bias=True, num_key_value_heads=6, rope_theta=500.0),
  'llama_attention_bias': lambda: llama(attention_bias=True, head_dim=10),
  'llama3_scaling': lambda: llama(rope_scaling=LLAMA3, rope_theta=5000.0),
  'llama_linear_scaling': lambda: llama(rope_scaling={'rope_type': 'linear', 'factor': 2.5}),
  'llama_dynamic_gelu': lambda: llama(rope_scaling={'rope_type': 'dynamic', 'factor': 2.5}, hidden_act='gelu'),
  'llama_yarn': lambda: llama(rope_scaling={'rope_type': 'yarn', 'factor': 4.0,
                                            'original_max_position_embeddings': 16}, head_dim=14),
  'llama_yarn_options': lambda: llama(rope_theta=500.0, head_dim=14, rope_scaling={
    'rope_type': 'yarn', 'factor': 8.0, 'original_max_position_embeddings': 8, 'beta_fast': 3.0, 'beta_slow': 0.2,
    'attention_factor': 0.8, 'truncate': False}),
  'mistral_window': lambda: mistral(sliding_window=7),
  'mistral_whole_head_dim': lambda: mistral(sliding_window=None, head_dim=8),
  'mixtral_window': lambda: mixtral(num_local_experts=4, sliding_window=7, router_aux_loss_coef=0.0),
  'mixtral_eight': lambda: mixtral(num_local_experts=8, num_experts_per_tok=3, head_dim=8, router_aux_loss_coef=0.02),
}


def published(config, folder, dtype=torch.float32):
  """A random model of `transformers`, without the zeros and ones of a fresh one, saved in a folder."""
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model = model.to(dtype)
  model.save_pretrained(folder)
  return model


def options(config):
  """The entries that describe the model, not how it was made."""
  made = ('transformers_version', 'dtype', 'torch_dtype', 'architectures')
  return {
    name: value for name, value in config.to_dict().items() if name[0] != '_' and name not in made and value is not None
  }


def loaded(folder):
  """What `transformers` makes of a folder, with every tensor found and used."""
  model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
  assert not report['missing_keys'] and not report['unexpected_keys'] and not report['mismatched_keys']
  return model.eval()


def logits(model, tokens):
  with torch.no_grad():
    return model(torch.tensor(tokens)).logits


@pytest.mark.parametrize('name', CASES)
def test_logits_and_round_trip(name, tmp_path):
  theirs = published(CASES[name](), tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  tokens = np.random.default_rng(0).integers(0, 51, (2, 37))
  expected = logits(theirs, tokens)
  found = jax.jit(ours.network.apply)(ours.params, ours.mutable, jnp.asarray(tokens))[0]
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))

  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  interop.save(tmp_path / 'shards', ours, shard_bytes=20_000)
  assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
  public, copy, shards = (loaded(tmp_path / folder) for folder in ('public', 'copy', 'shards'))
  # torch's products round by where their operands lie in memory, so models from files are compared with each other.
  assert torch.equal(logits(copy, tokens), logits(public, tokens))
  theirs.load_state_dict(shards.state_dict())
  assert torch.equal(logits(theirs, tokens), expected)
  assert options(copy.config) == options(theirs.config)


def test_config_alone_is_enough_to_save(tmp_path):
  """Options and parameters of genjax, never imported, are a model of `transformers`."""
  published(mistral(sliding_window=7), tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  interop.save(tmp_path / 'own', ours.config, ours.params)
  assert json.loads((tmp_path / 'own' / 'config.json').read_text())['model_type'] == 'mistral'
  tokens = np.random.default_rng(0).integers(0, 51, (2, 37))
  models = [transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ('public', 'own')]
  assert torch.equal(logits(models[0], tokens), logits(models[1], tokens))


@pytest.mark.parametrize('name', ['gpt2', 'llama_grouped'])
def test_half_precision(name, tmp_path):
  """Parameters keep the type of the files, computed with in float32, and go out as they came."""
  published(CASES[name](), tmp_path / 'public', torch.bfloat16)
  ours = interop.load(tmp_path / 'public')
  assert {leaf.dtype for leaf in jax.tree.leaves(ours.params)} == {jnp.dtype('bfloat16')}
  tokens = np.random.default_rng(0).integers(0, 51, (2, 20))
  interop.save(tmp_path / 'copy', ours)

  def theirs(folder, dtype):  # read anew: `.to` rounds buffers that are no weights
    return logits(
      transformers.AutoModelForCausalLM.from_pretrained(tmp_path / folder, torch_dtype=dtype).eval(), tokens)

  assert theirs('copy', 'auto').dtype == torch.bfloat16
  assert torch.equal(theirs('copy', 'auto'), theirs('public', 'auto'))
  expected = theirs('public', torch.float32)
  for model in (ours, interop.load(tmp_path / 'public', dtype='float32')):
    found = model.network.apply(model.params, model.mutable, jnp.asarray(tokens))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('bare', [transformers.GPT2Model, transformers.LlamaModel])
def test_bare_models(bare, tmp_path):
  """A model saved without its head has names without a prefix; tied embeddings need nothing else."""
  config = gpt2() if bare is transformers.GPT2Model else llama(tie_word_embeddings=True)
  model = bare(config).eval()
  model.save_pretrained(tmp_path / 'bare')
  ours = interop.load(tmp_path / 'bare')
  tokens = np.random.default_rng(0).integers(0, 51, (2, 12))
  (hidden, _), _ = ours.network.apply(ours.params, ours.mutable, jnp.asarray(tokens), project=False)
  with torch.no_grad():
    expected = model(torch.tensor(tokens)).last_hidden_state
  np.testing.assert_allclose(hidden, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('name', ['gpt2', 'llama3_scaling', 'mistral_window', 'mixtral_window', 'mixtral_eight'])
def test_greedy_decoding(name, tmp_path):
  """Token by token with a cache, the same tokens as `generate`, past the window."""
  theirs = published(CASES[name](), tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  prompt, count = np.random.default_rng(0).integers(0, 51, (2, 9)), 32
  expected = theirs.generate(torch.tensor(prompt), attention_mask=torch.ones(2, 9, dtype=torch.long),
                             max_new_tokens=count, do_sample=False, pad_token_id=0)[:, 9:]
  params = lay_out(ours.config, ours.params)

  @jax.jit
  def advance(tokens, cache, position):
    (output, cache), _ = ours.network.apply(params, ours.mutable, tokens, cache=cache, position=position)
    return jnp.argmax(output[:, -1:], axis=-1), cache

  tokens, found = jnp.asarray(prompt), []
  cache, position = init_cache(ours.config, 2, 9 + count), 0
  for _ in range(count):
    size = tokens.shape[1]
    tokens, cache = advance(tokens, cache, position)
    position += size
    found.append(tokens)
  np.testing.assert_array_equal(jnp.concatenate(found, axis=1), expected)


@pytest.mark.parametrize('side', ['left', 'right', 'none'])
def test_padding_and_balance_of_experts(side, tmp_path):
  """Logits where there are tokens, and the load-balancing loss, in which padding has no part."""
  theirs = published(mixtral(num_local_experts=8, sliding_window=7), tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  tokens = np.random.default_rng(0).integers(0, 51, (3, 21))
  real = np.ones((3, 21), np.int32)
  for row, count in enumerate((0, 4, 9) if side != 'none' else ()):
    real[row, slice(0, count) if side == 'left' else slice(21 - count, 21)] = 0
  positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens), attention_mask=torch.tensor(real), position_ids=torch.tensor(positions),
                      output_router_logits=True)
  (found, balance), _ = jax.jit(ours.network.apply)(ours.params, ours.mutable, jnp.asarray(tokens),
                                                    segments_BT=jnp.asarray(real), positions_BT=jnp.asarray(positions),
                                                    balance_BT=jnp.asarray(real, jnp.float32))
  logits, mask = expected.logits.numpy(), real > 0
  np.testing.assert_allclose(found[mask], logits[mask], rtol=0, atol=1e-4 * float(np.abs(logits[mask]).max()))
  assert float(balance) == pytest.approx(float(expected.aux_loss), rel=1e-5)
