"""Classification of sequences: loss and hits of the logits, padding, what it cannot do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.models.transformers.bert import BertConfig, encoder
from genjax.objectives.base import Context
from genjax.objectives.sequence_classification import SequenceClassification
from genjax.types import UserError

CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})
CONFIG = BertConfig(vocab=50, context=12, layers=1, heads=2, width=16, classes=3, dropout=0.2, init_scale=0.3)


@pytest.fixture(scope='module')
def objective():
  made = SequenceClassification(encoder(CONFIG), smoothing=0.3)
  return made, jax.jit(lambda key: made.init(key, {}).params)(jax.random.key(0))


def batch():
  tokens = jax.random.randint(jax.random.key(0), (8, 12), 0, 50)
  return {'tokens': tokens, 'weights': jnp.ones((8, 12)).at[:4, 7:].set(0), 'label': jnp.arange(8) % 3}


def test_loss_and_accuracy_are_those_of_the_logits(objective):
  made, params = objective
  values = jax.jit(made.evaluate)(params, CONTEXT, batch(), jax.random.key(0))
  logits = encoder(CONFIG).apply(params['net'], {}, batch()['tokens'], None, batch()['weights'])[0]['classes']
  wanted = optax.softmax_cross_entropy_with_integer_labels(logits, batch()['label'])
  np.testing.assert_allclose(values['loss'], wanted, rtol=1e-5)
  np.testing.assert_array_equal(values['accuracy'], logits.argmax(axis=1) == batch()['label'])
  other = dict(batch(), tokens=batch()['tokens'].at[:4, 7:].set(1))  # padding is not seen
  np.testing.assert_allclose(
    jax.jit(made.evaluate)(params, CONTEXT, other, jax.random.key(0))['loss'], values['loss'], rtol=1e-5)


def test_training_smooths_labels_and_drops_out(objective):
  made, params = objective
  loss = jax.jit(made.loss)
  first, second = (loss(params, CONTEXT, batch(), jax.random.key(seed)) for seed in (0, 1))
  assert float(first.weight) == 8 and float(first.loss) != float(second.loss)
  still = SequenceClassification(encoder(BertConfig(**{**vars(CONFIG), 'dropout': 0.0})), smoothing=0.3)
  logits = encoder(CONFIG).apply(params['net'], {}, batch()['tokens'], None, batch()['weights'])[0]['classes']
  target = 0.7 * np.eye(3)[batch()['label']] + 0.1
  output = jax.jit(still.loss)(params, CONTEXT, batch(), jax.random.key(0))
  assert float(output.loss) == pytest.approx(float(optax.softmax_cross_entropy(logits, target).mean()), rel=1e-5)


def test_what_it_cannot_do(objective):
  with pytest.raises(UserError, match='nothing to sample'):
    objective[0].sample(objective[1], CONTEXT, jax.random.split(jax.random.key(0), 2), {})
  with pytest.raises(UserError, match=r'smoothing must lie in \[0, 1\), got 1.0'):
    SequenceClassification(encoder(CONFIG), smoothing=1.0)
