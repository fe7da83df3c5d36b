"""The likelihood of binary images: that of a mixture of orderings, in nats and bits, and draws from it."""

import itertools
import math

import jax
import numpy as np
import pytest

from genjax.models.autoregressive import made, nade
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.base import Context

SHAPE = (2, 3, 1)
GRID = 255 * np.asarray(list(itertools.product((0, 1), repeat=6)), np.uint8).reshape(-1, *SHAPE)
OBJECTIVES = {
  'made': Autoregressive(made.made(made.MadeConfig(6, hidden=(30,), orderings=3)), SHAPE, 3),
  'nade': Autoregressive(nade.nade(nade.NadeConfig(6, hidden=5)), SHAPE),
}


def start(objective):
  variables = objective.init(jax.random.key(0), {})
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: leaf + generator.normal(size=leaf.shape).astype(np.float32), variables.params)
  return params, Context(0, variables.mutable, {}, {})


@pytest.mark.parametrize('name', OBJECTIVES)
def test_probabilities_of_all_images_sum_to_one(name):
  params, context = start(OBJECTIVES[name])
  values = jax.jit(OBJECTIVES[name].evaluate)(params, context, {'image': GRID}, jax.random.key(0))
  assert np.exp(-np.asarray(values['nll'], np.float64)).sum() == pytest.approx(1, abs=1e-5)
  np.testing.assert_allclose(values['bits_per_dim'], values['nll'] / (6 * math.log(2)), rtol=1e-6)


def test_a_mixture_is_the_mean_of_its_orderings_and_its_loss_is_one_of_them():
  objective, batch = OBJECTIVES['made'], {'image': GRID[:8]}
  params, context = start(objective)
  parts = [objective.network.apply(params['net'], context.mutable, GRID[:8].reshape(8, 6) / 255.0, which)[0]
           for which in range(3)]
  x = GRID[:8].reshape(8, 6) / 255.0
  log_MB = np.stack([(x * logits - np.logaddexp(0, logits)).sum(axis=1) for logits in parts])
  found = objective.evaluate(params, context, batch, jax.random.key(0))['nll']
  np.testing.assert_allclose(found, -np.log(np.exp(log_MB).mean(axis=0)), rtol=1e-4)
  loss = jax.jit(lambda key: objective.loss(params, context, batch, key).loss)
  losses = {round(float(loss(jax.random.key(seed))), 4) for seed in range(20)}
  assert losses == {round(float(value), 4) for value in -log_MB.mean(axis=1)}


@pytest.mark.parametrize('name', OBJECTIVES)
def test_samples_are_as_likely_as_the_model_says(name):
  objective = OBJECTIVES[name]
  params, context = start(objective)
  values = jax.jit(objective.evaluate)(params, context, {'image': GRID}, jax.random.key(0))
  probability = np.exp(-np.asarray(values['nll']))
  keys = jax.random.split(jax.random.key(1), 4000)
  image = np.asarray(jax.jit(lambda keys: objective.sample(params, context, keys, {})['image'])(keys))
  assert image.dtype == np.uint8 and set(np.unique(image)) == {0, 255}
  number = (image.reshape(-1, 6) // 255) @ (2 ** np.arange(5, -1, -1))
  counts, expected = np.bincount(number, minlength=64), 4000 * probability
  rare = expected < 5  # together, as is usual for this statistic
  counts, expected = (np.append(each[~rare], each[rare].sum()) for each in (counts, expected))
  statistic = ((counts - expected) ** 2 / np.maximum(expected, 1)).sum()
  assert statistic < len(expected) + 4 * math.sqrt(2 * len(expected))
  again = jax.jit(objective.sample)(params, context, keys[5:7], {})['image']
  np.testing.assert_array_equal(again, image[5:7])
