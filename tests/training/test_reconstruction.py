"""Averages after training equal those that are kept while training."""

import numpy as np
import pytest

from genjax.training import averages, reconstruction
from genjax.types import UserError


def test_a_width_that_was_not_kept_is_that_of_a_direct_average():
  """Parameters that wander for 400 steps; two averages, saved every 20 steps, as EDM2 does with 0.05 and 0.1."""
  drift = np.random.default_rng(0).standard_normal((401, 50)).cumsum(axis=0)
  widths, saved, wanted = (0.05, 0.1, 0.075), [], 0.075
  means = dict.fromkeys(widths, drift[0])
  for step in range(400):
    for width in widths:
      weight = float(averages.Power(width).weight(step, 8))
      means[width] = means[width] + weight * (drift[step + 1] - means[width])
    if (step + 1) % 20 == 0:
      saved += [reconstruction.Saved(step + 1, width, {'w': means[width].astype(np.float32)}) for width in (0.05, 0.1)]
  found = reconstruction.average(saved, 400, wanted)['w']
  assert found.dtype == np.float32
  error = lambda value: np.linalg.norm(value - means[wanted]) / np.linalg.norm(drift[400] - means[wanted])
  assert error(found) < 0.01 < 0.1 < min(error(means[0.05]), error(means[0.1]))


def test_what_was_saved_is_found_again():
  saved = [reconstruction.Saved(step, width, {'w': np.full(3, step * width)}) for step in (50, 100)
           for width in (0.05, 0.1)]
  np.testing.assert_allclose(reconstruction.coefficients(saved, 100, 0.1), [0, 0, 0, 1], atol=1e-9)
  np.testing.assert_allclose(reconstruction.average(saved, 50, 0.05)['w'], 2.5)


@pytest.mark.parametrize(('steps', 'step', 'width', 'message'), [
  ((), 100, 0.1, r'needs saved ones up to there, got those of steps \[\]'), ((50,), 51, 0.1, r'steps \[50\]'),
  ((50,), 50, 0.4, 'sigma_rel must be more than 0')])
def test_bad_requests(steps, step, width, message):
  with pytest.raises(UserError, match=message):
    reconstruction.coefficients([reconstruction.Saved(at, 0.1, {}) for at in steps], step, width)
