"""Distributions of points in the plane, drawn anew for every example, and pairs of two of them.

`moons` and `eight_gaussians` have the scale of TorchCFM's examples (Tong et al. 2023).
"""

from collections.abc import Callable

import numpy as np

from genjax.data.pipeline import Columns, RowRandom
from genjax.data.synthetic import GRID_DEVIATION, RING_DEVIATION, Noise, grid_centres, ring_centres
from genjax.tables import Table

Draw = Callable[[RowRandom], np.ndarray]  # random numbers for B rows -> float64 B 2


def eight_gaussians(random: RowRandom) -> np.ndarray:
  """Eight Gaussians of variance sqrt(0.1), whose centres lie on a circle of radius 5."""
  return _mixture(random, 5.0 * ring_centres(), 0.1 ** 0.25)


def moons(random: RowRandom) -> np.ndarray:
  """Two interleaved half circles, moved along the diagonal by 0 to 0.2, then scaled: 3 x - 1."""
  lower_B, angle_B = random.uniform() < 0.5, np.pi * random.uniform()
  x_B = np.where(lower_B, 1.0 - np.cos(angle_B), np.cos(angle_B))
  y_B = np.where(lower_B, 0.5 - np.sin(angle_B), np.sin(angle_B))
  return 3.0 * (np.stack([x_B, y_B], axis=1) + 0.2 * random.uniform(1)) - 1.0


def gaussian(random: RowRandom) -> np.ndarray:
  """The standard normal distribution."""
  return random.normal(2)


def gaussian_grid(random: RowRandom) -> np.ndarray:
  """The 25 Gaussians of `genjax.data.synthetic.gaussian_grid`."""
  return _mixture(random, grid_centres(), GRID_DEVIATION)


def gaussian_ring(random: RowRandom) -> np.ndarray:
  """The 8 Gaussians of `genjax.data.synthetic.gaussian_ring`."""
  return _mixture(random, ring_centres(), RING_DEVIATION)


def _mixture(random: RowRandom, centre_K2: np.ndarray, deviation: float) -> np.ndarray:
  return centre_K2[random.integers(0, len(centre_K2))] + deviation * random.normal(2)


DISTRIBUTIONS: Table[Draw] = Table('distribution of points', {
  'eight_gaussians': eight_gaussians, 'moons': moons, 'gaussian': gaussian, 'gaussian_grid': gaussian_grid,
  'gaussian_ring': gaussian_ring}, takes=('random',))


def pairs(name: str, source: str, size: int, seed: int) -> Noise:
  """Column 'point' from one distribution and 'source' from another, independent, each float32 (size, 2).

  Args:
    name: in `DISTRIBUTIONS`, of the points.
    source: in `DISTRIBUTIONS`, of the column 'source'; '' for no such column.
    size: how many examples.
    seed: of what is drawn.
  """

  def draw(random: RowRandom) -> Columns:
    columns = {'point': DISTRIBUTIONS[name](random).astype(np.float32)}
    return {**columns, 'source': DISTRIBUTIONS[source](random).astype(np.float32)} if source else columns

  return Noise(draw, size, seed, {'name': name, 'source': source or 'noise'})


def drawn(name: str, size: int, seed: int) -> np.ndarray:
  """`size` points of a distribution, float32 (size, 2)."""
  return DISTRIBUTIONS[name](RowRandom(seed, np.arange(size))).astype(np.float32)
