import numpy as np
import pytest

from genjax.data import synthetic


def test_centres():
  grid, ring = synthetic.grid_centres(), synthetic.ring_centres()
  assert grid.shape == (25, 2) and set(grid.ravel().tolist()) == {-4.0, -2.0, 0.0, 2.0, 4.0}
  assert len(np.unique(grid, axis=0)) == 25
  assert ring.shape == (8, 2)
  np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1, rtol=1e-6)
  gaps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
  np.testing.assert_allclose(gaps, 2 * np.sin(np.pi / 8), rtol=1e-5)


@pytest.mark.parametrize(
  ('make', 'centres', 'deviation'),
  [
    (synthetic.gaussian_grid, synthetic.grid_centres, 0.05),
    (synthetic.gaussian_ring, synthetic.ring_centres, 0.01),
  ],
)
def test_mixture_has_its_modes_and_deviation(make, centres, deviation):
  source = make(size=20_000, seed=1)
  point = source.get(np.arange(20_000))['point']
  assert point.dtype == np.float32 and point.shape == (20_000, 2)
  offset = point[:, None] - centres()[None]
  nearest = (offset**2).sum(-1).argmin(1)
  share = np.bincount(nearest, minlength=len(centres())) / 20_000
  np.testing.assert_allclose(share, 1 / len(centres()), rtol=0.15)
  residual = offset[np.arange(20_000), nearest]
  np.testing.assert_allclose(residual.std(0), deviation, rtol=0.03)
  assert source.fingerprint() == make(size=20_000, seed=1).fingerprint()
  assert source.fingerprint()['checksum'] != make(size=20_000, seed=2).fingerprint()['checksum']
