"""Imported Marian and T5 models against `transformers`: random small ones, sources padded on either side, in and
out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.models.transformers.seq2seq import start_cache
from genjax.nn.embeddings import relative_buckets
from genjax.objectives.base import Context
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow


def marian(**options):
  sizes = dict(vocab_size=53, d_model=33, encoder_layers=3, decoder_layers=2, encoder_attention_heads=3,
               decoder_attention_heads=3, encoder_ffn_dim=47, decoder_ffn_dim=47, max_position_embeddings=40,
               init_std=0.2)
  tokens = dict(pad_token_id=52, decoder_start_token_id=52, eos_token_id=0, forced_eos_token_id=None)
  return transformers.MarianMTModel, transformers.MarianConfig(**{**sizes, **tokens, **options})


def t5(**options):
  sizes = dict(vocab_size=53, d_model=22, d_kv=7, d_ff=37, num_layers=3, num_decoder_layers=2, num_heads=3,
               relative_attention_num_buckets=10, relative_attention_max_distance=17)
  return transformers.T5ForConditionalGeneration, transformers.T5Config(
    **{**sizes, 'decoder_start_token_id': 0, **options})


CASES = {
  'marian': lambda: marian(scale_embedding=True, activation_function='swish'),
  'marian_unscaled': lambda: marian(d_model=30, activation_function='relu', encoder_layers=1),
  'marian_two_sizes': lambda: marian(decoder_attention_heads=11, decoder_ffn_dim=31),
  'marian_two_vocabularies': lambda: marian(share_encoder_decoder_embeddings=False, decoder_vocab_size=55),
  't5_1.0': lambda: t5(),
  't5_1.1': lambda: t5(feed_forward_proj='gated-gelu', tie_word_embeddings=False, layer_norm_epsilon=1e-5),
  't5_gated_silu': lambda: t5(feed_forward_proj='gated-silu', num_decoder_layers=3, relative_attention_num_buckets=32,
                              relative_attention_max_distance=128),
}


def published(name, folder, dtype=torch.float32):
  """A random model, without the zeros and ones of a fresh one, saved in a folder; read anew, as `transformers` reads
  it."""
  torch.manual_seed(0)
  kind, config = CASES[name]()
  model = kind(config)
  if name == 't5_1.1':  # its output layer is its own
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
    if name.startswith('marian'):
      model.final_logits_bias.normal_()
  model.to(dtype).save_pretrained(folder)
  return kind.from_pretrained(folder, dtype=torch.float32).eval()


def sources(padding):
  rng = np.random.default_rng(0)
  mask = np.ones((3, 23), int)
  for row, size in enumerate((0, 4, 13)):
    mask[row, slice(0, size) if padding == 'left' else slice(23 - size, 23)] = 0
  return rng.integers(1, 52, (3, 23)), mask, rng.integers(1, 52, (3, 29))


@pytest.mark.parametrize('padding', ['left', 'right'])
@pytest.mark.parametrize('name', CASES)
def test_logits_and_cache(name, padding, tmp_path):
  theirs = published(name, tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  source, mask, target = sources(padding)
  with torch.no_grad():
    expected = theirs(torch.tensor(source), attention_mask=torch.tensor(mask),
                      decoder_input_ids=torch.tensor(target)).logits
  apply = jax.jit(ours.network.apply)
  found, _ = apply(ours.params, ours.mutable, *map(jnp.asarray, (source, target, mask)))
  tolerance = dict(rtol=0, atol=1e-4 * float(expected.abs().max()))
  np.testing.assert_allclose(found, expected, **tolerance)

  cache = jax.jit(functools.partial(start_cache, ours.config, length=31))(ours.params, jnp.asarray(source),
                                                                          jnp.asarray(mask))
  position = 0
  for size in (9, 1, 1, 1, 17):
    (logits, cache), _ = apply(ours.params, {}, None, jnp.asarray(target[:, position:position + size]), cache=cache,
                               position=position)
    np.testing.assert_allclose(logits, expected[:, position:position + size], **tolerance)
    position += size


@pytest.mark.parametrize('beams', [1, 4])
@pytest.mark.parametrize('padding', ['left', 'right'])
@pytest.mark.parametrize('name', ['marian', 't5_1.1'])
def test_decoding(name, padding, beams, tmp_path):
  """The tokens that `generate` gives, to the stop token and past the cache's first slots."""
  theirs = published(name, tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  source, mask, _ = sources(padding)
  start, stop, pad = theirs.config.decoder_start_token_id, theirs.config.eos_token_id, theirs.config.pad_token_id
  expected = theirs.generate(torch.tensor(source), attention_mask=torch.tensor(mask), max_new_tokens=25,
                             do_sample=False, num_beams=beams, suppress_tokens=[pad], pad_token_id=pad,
                             eos_token_id=stop)[:, 1:].numpy()
  objective = Seq2Seq(ours.network, functools.partial(start_cache, ours.config), Tokens(start, stop, pad),
                      sampler=SamplerOptions(length=25, temperature=0.0, beams=beams))
  context = Context(step=0, mutable={}, ema={}, frozen={})
  conditions = {'source': jnp.asarray(source), 'source_weights': jnp.asarray(mask)}
  found = np.asarray(
    jax.jit(objective.sample)({'net': ours.params}, context, jax.random.split(jax.random.key(0), 3),
                              conditions)['tokens'])
  assert expected.shape[1] > 5 and not (found[:, expected.shape[1]:] != pad).any()
  np.testing.assert_array_equal(found[:, :expected.shape[1]], expected)


@pytest.mark.parametrize('name', CASES)
def test_round_trip(name, tmp_path):
  theirs = published(name, tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  copy, report = type(theirs).from_pretrained(tmp_path / 'copy', output_loading_info=True)
  assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  entries = [{
    key: value for key, value in model.config.to_dict().items() if key not in ('_name_or_path', 'dtype', 'n_positions')
  } for model in (theirs, copy)]
  assert entries[0] == entries[1]
  interop.save(tmp_path / 'own', ours.config, ours.params, architecture=ours.architecture)
  source, mask, target = map(torch.tensor, sources('right'))
  own = type(theirs).from_pretrained(tmp_path / 'own').eval()
  with torch.no_grad():
    expected, *others = (
      model(source, attention_mask=mask, decoder_input_ids=target).logits for model in (theirs, copy.eval(), own))
  for other in others:
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize('name', ['marian', 't5_1.1'])
def test_half_precision(name, tmp_path):
  theirs = published(name, tmp_path / 'public', torch.bfloat16)
  ours = interop.load(tmp_path / 'public')
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  source, mask, target = sources('left')
  with torch.no_grad():
    expected = theirs(torch.tensor(source), attention_mask=torch.tensor(mask),
                      decoder_input_ids=torch.tensor(target)).logits
  found, _ = ours.network.apply(ours.params, ours.mutable, *map(jnp.asarray, (source, target, mask)))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_the_encoder_of_t5_alone(tmp_path):
  """As image models have it for their texts."""
  torch.manual_seed(0)
  model = transformers.T5EncoderModel(t5(feed_forward_proj='gated-gelu', tie_word_embeddings=False)[1]).eval()
  model.save_pretrained(tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  source, mask, _ = sources('right')
  with torch.no_grad():
    expected = model(torch.tensor(source), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
  found, _ = jax.jit(lambda source, mask: ours.network.apply(ours.params, {}, source, None, mask))(source, mask)
  np.testing.assert_allclose(found[mask == 1], expected[mask == 1], rtol=0, atol=1e-4 * np.abs(expected).max())
  with pytest.raises(UserError, match='only an encoder'):
    ours.network.apply(ours.params, {}, source, source, mask)
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  again, report = transformers.T5EncoderModel.from_pretrained(tmp_path / 'copy', output_loading_info=True)
  assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  assert again.config.architectures == ['T5EncoderModel']


@pytest.mark.parametrize('name', ['marian', 't5_1.0'])
def test_repeated_embeddings_and_fixed_positions(name, tmp_path):
  """What older files hold besides."""
  published(name, tmp_path / 'public')
  expected = interop.load(tmp_path / 'public')
  path = tmp_path / 'public' / 'model.safetensors'
  tensors = load_file(path)
  prefix = 'model.' if name == 'marian' else ''
  for other in (f'{prefix}encoder.embed_tokens.weight', f'{prefix}decoder.embed_tokens.weight', 'lm_head.weight'):
    tensors[other] = tensors[f'{prefix}shared.weight'].copy()
  if name == 'marian':
    tensors['model.encoder.embed_positions.weight'] = np.zeros((40, 33), np.float32)
  save_file(tensors, path)
  jax.tree.map(np.testing.assert_array_equal, interop.load(tmp_path / 'public').params, expected.params)


@pytest.mark.parametrize('bidirectional', [False, True])
@pytest.mark.parametrize(('buckets', 'distance'), [(32, 128), (32, 20), (10, 17), (64, 1000), (8, 512)])
def test_buckets_of_relative_positions(buckets, distance, bidirectional):
  offsets, theirs = np.arange(-1500, 1501), transformers.models.t5.modeling_t5.T5Attention
  expected = theirs._relative_position_bucket(torch.tensor(offsets), bidirectional, buckets, distance)
  np.testing.assert_array_equal(relative_buckets(jnp.asarray(offsets), buckets, distance, bidirectional), expected)
