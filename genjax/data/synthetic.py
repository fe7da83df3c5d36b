"""Mixtures of Gaussians in the plane, where mode collapse can be counted.

Source: the 25-mode grid and 8-mode ring of Lin et al. 2018 (PacGAN), section 4.1.
"""

import numpy as np

from genjax.data.sources import Arrays

GRID_DEVIATION = 0.05
RING_DEVIATION = 0.01


def grid_centres() -> np.ndarray:
  """float32 (25, 2): five by five points, two apart, from -4 to 4."""
  axis = np.arange(-4, 5, 2, dtype=np.float32)
  return np.stack(np.meshgrid(axis, axis, indexing='ij'), axis=-1).reshape(-1, 2)


def ring_centres() -> np.ndarray:
  """float32 (8, 2): eight points on the unit circle."""
  angle_K = 2 * np.pi * np.arange(8) / 8
  return np.stack([np.cos(angle_K), np.sin(angle_K)], axis=-1).astype(np.float32)


def gaussian_grid(size: int = 100_000, seed: int = 0) -> Arrays:
  """A fixed sample of the grid: column 'point', float32 (size, 2), standard deviation 0.05."""
  return _mixture('gaussian_grid', grid_centres(), GRID_DEVIATION, size, seed)


def gaussian_ring(size: int = 100_000, seed: int = 0) -> Arrays:
  """A fixed sample of the ring: column 'point', float32 (size, 2), standard deviation 0.01."""
  return _mixture('gaussian_ring', ring_centres(), RING_DEVIATION, size, seed)


def _mixture(name: str, centres_K2: np.ndarray, deviation: float, size: int, seed: int) -> Arrays:
  generator = np.random.default_rng(seed)
  mode_N = generator.integers(len(centres_K2), size=size)
  point_N2 = centres_K2[mode_N] + deviation * generator.standard_normal((size, 2))
  return Arrays({'point': point_N2.astype(np.float32)}, {'name': name, 'seed': seed})
