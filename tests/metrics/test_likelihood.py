"""Units of likelihood, and the importance-weighted bound where the marginal likelihood is known."""

import math

import numpy as np
import pytest

from genjax.metrics import likelihood
from genjax.types import UserError


def test_a_uniform_distribution_over_bytes_costs_eight_bits():
  assert likelihood.bits_per_byte(math.log(256)) == pytest.approx(8.0)
  assert likelihood.bits_per_byte(math.log(256 ** 3), bytes_per_token=3.0) == pytest.approx(8.0)
  assert likelihood.bits_per_dim(12 * math.log(256), dims=12) == pytest.approx(8.0)


def test_a_uniform_density_costs_eight_bits_on_any_scale():
  """The density of the uniform distribution is 1 on [0, 1) and 1/2 on [-1, 1) in each dimension."""
  assert likelihood.bits_per_dim(0.0, dims=12, scale=256) == pytest.approx(8.0)
  assert likelihood.bits_per_dim(12 * math.log(2), dims=12, scale=128) == pytest.approx(8.0)


def test_perplexity():
  assert likelihood.perplexity(math.log(65)) == pytest.approx(65.0)
  assert likelihood.perplexity(1e6) == math.inf


def test_bound_of_known_weights():
  log_weight_KN = np.log(np.array([[1.0, 2.0], [3.0, 6.0]]))
  np.testing.assert_allclose(likelihood.importance_bound(log_weight_KN), np.log([2.0, 4.0]))
  np.testing.assert_allclose(likelihood.importance_bound(log_weight_KN[:1]), log_weight_KN[0])


def test_bound_of_tiny_weights_does_not_underflow():
  np.testing.assert_allclose(likelihood.importance_bound(np.full((50, 1), -1e5)), [-1e5])
  np.testing.assert_array_equal(likelihood.importance_bound(np.full((5, 1), -np.inf)), [-np.inf])


def test_bound_grows_with_the_number_of_samples_to_the_marginal():
  """z ~ N(0, 1), x | z ~ N(z, 1), q = prior: log p(x) is that of N(0, 2)."""
  x, generator = 1.5, np.random.default_rng(0)
  normal = lambda value, variance: -0.5 * (value ** 2 / variance + np.log(2 * np.pi * variance))
  bounds = [likelihood.importance_bound(normal(x - generator.standard_normal((count, 4000)), 1.0)).mean()
            for count in (1, 5, 200)]
  assert bounds[0] == pytest.approx(normal(x, 1.0) - 0.5, abs=0.1)  # E log w = log N(x; 0, 1) - var(z) / 2
  assert bounds[0] < bounds[1] < bounds[2] < normal(x, 2.0) + 0.01
  assert bounds[2] == pytest.approx(normal(x, 2.0), abs=0.01)


def test_bad_input():
  with pytest.raises(UserError, match='bytes_per_token must be positive'):
    likelihood.bits_per_byte(1.0, 0.0)
  with pytest.raises(UserError, match='dims >= 1'):
    likelihood.bits_per_dim(1.0, 0)
  with pytest.raises(UserError, match='at least one sample'):
    likelihood.importance_bound(np.zeros((0, 3)))
