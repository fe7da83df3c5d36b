"""Synthetic data: 2D mixtures of Gaussians, for measuring mode collapse, and noise in place of large data sets.

Source of the mixtures: the 25-mode grid and 8-mode ring of Lin et al. 2018 (PacGAN), section 4.1.

Random tokens, images and latents have the shapes of large data sets. Plans, benchmarks and tests of full-size models
need nothing else.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns, RowRandom
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
  """Fixed samples of the grid: column 'point', float32 (size, 2), standard deviation 0.05."""
  return _mixture('gaussian_grid', grid_centres(), GRID_DEVIATION, size, seed)


def gaussian_ring(size: int = 100_000, seed: int = 0) -> Arrays:
  """Fixed samples of the ring: column 'point', float32 (size, 2), standard deviation 0.01."""
  return _mixture('gaussian_ring', ring_centres(), RING_DEVIATION, size, seed)


def _mixture(name: str, centres_K2: np.ndarray, deviation: float, size: int, seed: int) -> Arrays:
  generator = np.random.default_rng(seed)
  mode_N = generator.integers(len(centres_K2), size=size)
  point_N2 = centres_K2[mode_N] + deviation * generator.standard_normal((size, 2))
  return Arrays({'point': point_N2.astype(np.float32)}, {'name': name, 'seed': seed})


class Noise:
  """A source that draws row i from (seed, i) when it is read; it has any length and needs no memory.

  `random_tokens`, `random_images` and `random_latents` create it.
  """

  def __init__(self, draw: Any, length: int, seed: int, facts: Mapping[str, Any]):
    self._draw, self._length, self._seed, self._facts = draw, length, seed, dict(facts)

  def __len__(self) -> int:
    return self._length

  def get(self, indices: np.ndarray) -> Columns:
    return self._draw(RowRandom(self._seed, indices))

  def fingerprint(self) -> dict[str, Any]:
    return {**self._facts, 'seed': self._seed, 'examples': self._length}


def random_tokens(vocabulary: int, length: int, size: int, seed: int = 0) -> Noise:
  """Column 'tokens', int32 (size, length + 1): uniform tokens, so the lowest loss is log(vocabulary)."""

  def draw(random: RowRandom) -> Columns:
    return {'tokens': random.integers(0, vocabulary, length + 1).astype(np.int32)}

  return Noise(draw, size, seed, {'name': 'random_tokens', 'vocabulary': vocabulary, 'length': length})


def random_images(shape: tuple[int, ...], num_classes: int, size: int, seed: int = 0) -> Noise:
  """Column 'image', uint8 (size, *shape), uniform noise; with classes, column 'label', int32."""

  def draw(random: RowRandom) -> Columns:
    return {'image': random.integers(0, 256, *shape).astype(np.uint8), **_labels(random, num_classes)}

  return Noise(draw, size, seed, {'name': 'random_images', 'shape': list(shape), 'num_classes': num_classes})


def random_latents(shape: tuple[int, ...], num_classes: int, size: int, seed: int = 0) -> Noise:
  """Column 'image', float32 (size, *shape), standard Gaussian (Box-Muller); with classes, column 'label', int32."""

  def draw(random: RowRandom) -> Columns:
    radius = np.sqrt(-2.0 * np.log1p(-random.uniform(*shape)))
    image = radius * np.cos(2.0 * np.pi * random.uniform(*shape))
    return {'image': image.astype(np.float32), **_labels(random, num_classes)}

  return Noise(draw, size, seed, {'name': 'random_latents', 'shape': list(shape), 'num_classes': num_classes})


def _labels(random: RowRandom, num_classes: int) -> Columns:
  return {'label': random.integers(0, num_classes).astype(np.int32)} if num_classes else {}
