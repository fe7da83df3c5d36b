"""What stays in float32 when networks compute in bfloat16: logits, and the statistics of norms."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.transformers import bert, decoder, seq2seq, t5, vit, whisper
from genjax.nn.blocks import BlockOptions

TOKENS = jnp.arange(12).reshape(2, 6) % 11
SMALL = {'layers': 1, 'heads': 2, 'width': 16, 'mlp_width': 16, 'dtype': 'bfloat16'}


def params_of(network):
  generator = np.random.default_rng(0)
  shapes = jax.eval_shape(network.init, jax.random.key(0))[0]
  return jax.tree.map(lambda leaf: jnp.asarray(generator.standard_normal(leaf.shape) / 4, jnp.float32), shapes)


def of_decoder(tied):
  network = decoder.transformer(decoder.TransformerConfig(vocab=11, context=8, tied=tied, **SMALL))
  return network, (TOKENS,)


def encoder_decoder(config):
  network = seq2seq.seq2seq(config)
  source = jnp.ones((2, 8, config.frames)) if config.frames else TOKENS
  return network, (source, TOKENS)


GENERATORS = {
  'tied': lambda: of_decoder(True),
  'untied': lambda: of_decoder(False),
  'seq2seq': lambda: encoder_decoder(seq2seq.Seq2SeqConfig(vocab=11, context=8, output_bias=True, **SMALL)),
  't5': lambda: encoder_decoder(t5.t5('small', vocab=11, head_dim=8, **SMALL)),
  't5_1_1': lambda: encoder_decoder(t5.t5_1_1('small', vocab=11, head_dim=8, **SMALL)),
  'whisper': lambda: encoder_decoder(whisper.whisper('tiny', vocab=11, frames=3, decoder_layers=1, source_context=4,
                                                     **SMALL)),
}


@pytest.mark.parametrize('name', GENERATORS)
def test_logits_of_generation_are_float32(name):
  """Products of what the output layer reads in bfloat16, and not rounded to it: among large logits it tells no two
  apart."""
  network, inputs = GENERATORS[name]()
  params = params_of(network)
  logits_BTV, _ = jax.jit(lambda params: network.apply(params, {}, *inputs))(params)
  (hidden_BTD, weight_VD), _ = jax.jit(lambda params: network.apply(params, {}, *inputs, project=False))(params)
  assert logits_BTV.dtype == jnp.float32 and hidden_BTD.dtype == jnp.bfloat16
  bias = weight_VD.shape[1] > 16 and weight_VD[:, 16]
  expected = np.asarray(hidden_BTD, np.float64)[..., :16] @ np.asarray(weight_VD[:, :16].astype(jnp.bfloat16),
                                                                       np.float64).T
  np.testing.assert_allclose(logits_BTV, expected + np.asarray(bias, np.float64), atol=1e-4)


def test_logits_of_bert_and_vit_are_float32():
  config = bert.BertConfig(vocab=11, context=8, masked_lm=True, next_sentence=True, classes=3, **SMALL)
  network = bert.encoder(config)
  outputs, _ = jax.jit(lambda params: network.apply(params, {}, TOKENS))(params_of(network))
  images = vit.classifier(vit.VitConfig(shape=(4, 4, 3), num_classes=5, patch=2, **SMALL))
  (classes_BK, _), _ = jax.jit(lambda params: images.apply(params, {}, jnp.ones((2, 4, 4, 3))))(params_of(images))
  for logits in (outputs['tokens'], outputs['next_sentence'], outputs['classes'], classes_BK):
    assert logits.dtype == jnp.float32
    assert jnp.any(logits != logits.astype(jnp.bfloat16).astype(jnp.float32))
  assert outputs['hidden'].dtype == jnp.bfloat16


@pytest.mark.parametrize('make', [
  lambda: decoder._norm(decoder.TransformerConfig(vocab=2, context=2, layers=1, heads=1, width=64), nnx.Rngs(0)),
  lambda: BlockOptions(64, 1, 64).make_norm(nnx.Rngs(0))])
def test_layer_norms_of_numbers_far_from_zero(make):
  """E[x^2] - E[x]^2 has no correct digit left here (Chan et al. 1983)."""
  x_BD = np.random.default_rng(0).standard_normal((3, 64)) + 30_000
  x_BD = x_BD.astype(np.float32)
  expected = x_BD.astype(np.float64)
  expected = (expected - expected.mean(axis=1, keepdims=True)) / expected.std(axis=1, keepdims=True)
  np.testing.assert_allclose(make()(jnp.asarray(x_BD)), expected, atol=5e-3)
