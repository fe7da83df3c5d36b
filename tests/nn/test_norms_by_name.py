"""Norms by name: every model takes those of the table, and parameters of the default keep their names."""

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from genjax.models import classifier
from genjax.models.adversarial import dcgan
from genjax.models.denoisers import dit, unet
from genjax.models.transformers import bert, decoder, seq2seq, vit
from genjax.nn.norms import NORMS
from genjax.types import named_leaves

TOKENS, IMAGE = jnp.zeros((2, 4), jnp.int32), jnp.zeros((2, 8, 8, 1))
SIZES = dict(layers=2, heads=2, width=8)
# name -> (options, network of the options, inputs, the default norm)
MODELS = {
  'decoder': (lambda **options: decoder.TransformerConfig(vocab=5, context=4, **SIZES, **options), decoder.transformer,
              (TOKENS,), 'layer'),
  'bert': (lambda **options: bert.BertConfig(vocab=5, context=4, **SIZES, **options), bert.encoder, (TOKENS,), 'layer'),
  'vit': (lambda **options: vit.VitConfig((8, 8, 1), 3, 4, **SIZES, **options), vit.classifier, (IMAGE,), 'layer'),
  'seq2seq': (lambda **options: seq2seq.Seq2SeqConfig(vocab=5, context=4, **SIZES, **options), seq2seq.seq2seq,
              (TOKENS, TOKENS), 'layer'),
  'dit': (lambda **options: dit.DiT((8, 8, 1), width=8, depth=2, heads=2, frequencies=4, **options), dit.network,
          (IMAGE, jnp.zeros(2)), 'layer'),
  'unet': (lambda **options: unet.UNet((8, 8, 1), base=8, multipliers=(1, 2), attention=(4,), groups=4, **options),
           unet.network, (IMAGE, jnp.zeros(2)), 'group'),
  'dcgan': (lambda **options: dcgan.Dcgan(8, 1, 4, 8, 8, **options), lambda config: config.generator(),
            (jnp.zeros((2, 4)),), 'batch'),
  'classifier': (lambda **options: classifier.Classifier((8, 8, 1), 3, width=4, features=4, **options),
                 classifier.network, (IMAGE,), 'batch'),
}


class Half(nnx.Module):
  """A norm of one's own, with a parameter of its own."""

  def __init__(self, features, *, rngs, **options):
    self.half = nnx.Param(jnp.full(features, 0.5))

  def __call__(self, x):
    return (x * self.half).astype(x.dtype)


def shapes(name, **options):
  """The parameters of a model by path; its output is traced, too."""
  config, network, inputs, _ = MODELS[name]
  net = network(config(**options))
  params, mutable = jax.eval_shape(net.init, jax.random.key(0))
  jax.eval_shape(lambda *args: net.apply(*args)[0], params, mutable, *inputs)
  return named_leaves(params)


@pytest.mark.parametrize('name', MODELS)
def test_norms_by_name(name, monkeypatch):
  rms = shapes(name, norm='rms')
  assert not [path for path in rms if 'norm' in path and path.endswith('/bias')]
  monkeypatch.setitem(NORMS, 'half', Half)
  half = shapes(name, norm='half')
  assert [path for path in half if path.endswith('/half')]
  assert {path for path in half if 'norm' not in path} == {path for path in rms if 'norm' not in path}
  with pytest.raises(Exception, match='norm must be one of .*half'):
    MODELS[name][0](norm='nothing')


def test_long_and_short_names_are_one():
  assert MODELS['decoder'][0](norm='rmsnorm') == MODELS['decoder'][0](norm='rms')
  for name in ('decoder', 'bert', 'vit', 'seq2seq', 'dit'):
    assert MODELS[name][0](norm='layernorm') == MODELS[name][0]()
  for name in ('unet', 'dcgan', 'classifier'):
    assert MODELS[name][0](norm=MODELS[name][3]) == MODELS[name][0]()
