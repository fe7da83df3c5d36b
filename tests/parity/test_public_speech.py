"""Imported Whisper models, and the frames that they read, against `transformers`: random small models, in and out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import interop
from genjax.data.audio.mel import LogMel, fit, mel_filters
from genjax.models.transformers.seq2seq import seq2seq, start_cache
from genjax.models.transformers.whisper import SIZES, whisper
from genjax.nn.functional import count
from genjax.objectives.base import Context
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

START, STOP, PAD = 50, 51, 52
TINY = dict(vocab_size=53, d_model=36, encoder_layers=3, decoder_layers=2, encoder_attention_heads=3,
            decoder_attention_heads=3, encoder_ffn_dim=47, decoder_ffn_dim=47, max_source_positions=13,
            max_target_positions=33, num_mel_bins=7, init_std=0.2, decoder_start_token_id=START, eos_token_id=STOP,
            pad_token_id=PAD, bos_token_id=PAD, begin_suppress_tokens=None)
CASES = {'gelu': {}, 'relu_one_layer': dict(activation_function='relu', encoder_layers=1, decoder_layers=3, d_model=22,
                                            encoder_attention_heads=1, decoder_attention_heads=1),
         'untied_sides': dict(tie_word_embeddings=False, decoder_attention_heads=9, decoder_ffn_dim=31)}


def published(name, folder, dtype=torch.float32):
  """A random model whose fixed positions are rounded, as those of public weights are."""
  torch.manual_seed(0)
  model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**{**TINY, **CASES[name]}))
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
    positions = model.model.encoder.embed_positions.weight
    positions.copy_(transformers.models.whisper.modeling_whisper.sinusoids(*positions.shape).half())
  model.to(dtype).save_pretrained(folder)
  return transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def inputs():
  rng = np.random.default_rng(0)
  return rng.normal(size=(3, 26, 7)).astype(np.float32), rng.integers(0, 53, (3, 31))


def logits(model, frames, target):
  with torch.no_grad():
    return model(torch.tensor(frames).transpose(1, 2), decoder_input_ids=torch.tensor(target)).logits


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', CASES)
def test_logits_cache_and_round_trip(name, dtype, tmp_path):
  theirs = published(name, tmp_path / 'public', dtype)
  ours = interop.load(tmp_path / 'public')
  frames, target = inputs()
  expected = logits(theirs, frames, target)
  tolerance = dict(rtol=0, atol=1e-4 * float(expected.abs().max()))
  apply = jax.jit(ours.network.apply)
  np.testing.assert_allclose(apply(ours.params, ours.mutable, frames, target)[0], expected, **tolerance)

  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  interop.save(tmp_path / 'own', ours.config, ours.params)
  for folder in ('copy', 'own'):
    again, report = type(theirs).from_pretrained(tmp_path / folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    np.testing.assert_allclose(logits(again.eval(), frames, target), expected, **tolerance)

  cache = jax.jit(functools.partial(start_cache, ours.config, length=31))(ours.params, frames, None)
  position = 0
  for size in (10, 1, 10, 10):
    (found, cache), _ = apply(ours.params, {}, None, target[:, position:position + size], cache=cache,
                              position=position)
    np.testing.assert_allclose(found, expected[:, position:position + size], **tolerance)
    position += size


@pytest.mark.parametrize('beams', [1, 3])
def test_decoding(beams, tmp_path):
  """The tokens of the plain `generate`, without the rules of Whisper's own about timestamps and windows."""
  theirs = published('gelu', tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  frames, _ = inputs()
  expected = transformers.GenerationMixin.generate(
    theirs, input_features=torch.tensor(frames).transpose(1, 2), max_new_tokens=25, do_sample=False, num_beams=beams,
    suppress_tokens=[PAD], decoder_start_token_id=START)[:, 1:].numpy()
  objective = Seq2Seq(ours.network, functools.partial(start_cache, ours.config), Tokens(START, STOP, PAD),
                      sampler=SamplerOptions(length=25, temperature=0.0, beams=beams))
  context = Context(step=0, mutable={}, ema={}, frozen={})
  keys, conditions = jax.random.split(jax.random.key(0), 3), {'source': jnp.asarray(frames)}
  found = np.asarray(jax.jit(objective.sample)({'net': ours.params}, context, keys, conditions)['tokens'])
  assert expected.shape[1] > 5 and not (found[:, expected.shape[1]:] != PAD).any()
  np.testing.assert_array_equal(found[:, :expected.shape[1]], expected)


@pytest.mark.parametrize('size', SIZES)
def test_parameter_counts(size):
  ours = whisper(size)
  with torch.device('meta'):
    theirs = transformers.WhisperForConditionalGeneration(
      transformers.WhisperConfig(vocab_size=ours.vocab, d_model=ours.width, encoder_layers=ours.layers,
                                 decoder_layers=ours.depth, num_mel_bins=ours.frames,
                                 encoder_attention_heads=ours.heads, decoder_attention_heads=ours.heads,
                                 encoder_ffn_dim=4 * ours.width, decoder_ffn_dim=4 * ours.width))
  assert count(jax.eval_shape(seq2seq(ours).init, jax.random.key(0))[0]) == theirs.num_parameters()


@pytest.mark.parametrize(('options', 'message'), [({'scale_embedding': True}, 'scale_embedding is True'),
                                                  ({'activation_function': 'tanh'}, "activation_function is 'tanh'")])
def test_options_that_genjax_lacks(options, message, tmp_path):
  transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**{**TINY, **options})).save_pretrained(
    tmp_path / 'public')
  with pytest.raises(UserError, match=message):
    interop.load(tmp_path / 'public')


@pytest.mark.parametrize(('bands', 'window', 'rate'), [(80, 400, 16_000), (128, 400, 16_000), (40, 200, 8_000),
                                                       (23, 512, 22_050)])
def test_mel_filters(bands, window, rate):
  expected = transformers.audio_utils.mel_filter_bank(window // 2 + 1, bands, 0.0, rate / 2, rate, norm='slaney',
                                                      mel_scale='slaney')
  np.testing.assert_allclose(mel_filters(bands, window, rate), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(('bands', 'seconds'), [(80, 1.0), (128, 0.613)])
def test_log_mel_frames(bands, seconds):
  """Those of Whisper's own front end, for a chirp with noise that fades, and silence to the end of its window."""
  time = np.arange(int(16_000 * seconds)) / 16_000
  noise = np.random.default_rng(0).normal(size=time.size)
  sound = (np.exp(-3 * time) * (0.3 * np.sin(2 * np.pi * (200 + 1500 * time) * time) + 0.02 * noise)).astype(np.float32)
  extractor = transformers.WhisperFeatureExtractor(feature_size=bands, chunk_length=2)
  expected = extractor(sound, sampling_rate=16_000, return_tensors='np').input_features[0].T
  found = LogMel(bands=bands)(fit(sound, 32_000))
  assert found.dtype == np.float32 and found.shape == expected.shape == (200, bands)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
