"""Optimizers by name."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.training import optimizers
from genjax.types import UserError


def test_schedules():
  rate = optimizers.learning_rate(1.0, 110, 10, 'cosine', 0.1)
  assert [round(float(rate(step)), 4) for step in (0, 4, 9, 10, 60, 110)] == [0.1, 0.5, 1.0, 1.0, 0.55, 0.1]
  rate = optimizers.learning_rate(2.0, 100, 0, 'linear', 0.0)
  assert [float(rate(step)) for step in (0, 50, 100)] == [2.0, 1.0, 0.0]
  assert float(optimizers.learning_rate(3.0, 100, 0, 'constant', 0.0)(99)) == 3.0


def test_first_adam_update_is_the_learning_rate():
  optimizer = optimizers.make('adam', 0.1, 10)
  params = {'kernel': jnp.array([1.0, -2.0])}
  updates, _ = optimizer.update({'kernel': jnp.array([0.3, -5.0])}, optimizer.init(params), params)
  np.testing.assert_allclose(updates['kernel'], [-0.1, 0.1], rtol=1e-5)


def test_weight_decay_leaves_biases_alone():
  optimizer = optimizers.make('adamw', 0.1, 10, weight_decay=0.5)
  params = {'layer': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}
  zero = {'layer': {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}}
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  np.testing.assert_allclose(updates['layer']['kernel'], -0.05, rtol=1e-6)
  np.testing.assert_allclose(updates['layer']['bias'], 0.0)


def test_clipping_limits_the_norm_of_the_group():
  optimizer = optimizers.make('sgd', 1.0, 10, clip=1.0)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  updates, _ = optimizer.update({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}, optimizer.init(params), params)
  assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(('options', 'words'), [
  (dict(name='adamm'), 'adamm'), (dict(schedule='step'), 'step'), (dict(warmup=11), 'warmup'), (dict(wd=1.0), 'wd'),
  (dict(weight_decay=0.1), 'adamw')])
def test_bad_options_name_the_config_key(options, words):
  with pytest.raises(UserError, match=f'config.optimizers.net.*{words}'):
    optimizers.from_config({'net': {'name': 'adam', 'lr': 0.1, **options}}, 10)
