"""Synthetic data: 2D mixtures of Gaussians, for measuring mode collapse, and noise in place of large data sets.

Source of the mixtures: the 25-mode grid and 8-mode ring of Lin et al. 2018 (PacGAN), section 4.1.

Random tokens, images and latents have the shapes of large data sets. Plans, benchmarks and tests of full-size models
need nothing else.

Captioned shapes are a data set for models with conditions: what a caption asks for can be read off a sample.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError

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


def random_clips(shape: tuple[int, ...], num_classes: int, size: int, seed: int = 0) -> Noise:
  """Column 'clip', uint8 (size, T, H, W, C), uniform noise; with classes, column 'label', int32."""

  def draw(random: RowRandom) -> Columns:
    return {'clip': random.integers(0, 256, *shape).astype(np.uint8), **_labels(random, num_classes)}

  return Noise(draw, size, seed, {'name': 'random_clips', 'shape': list(shape), 'num_classes': num_classes})


def random_sounds(shape: tuple[int, ...], num_classes: int, size: int, seed: int = 0) -> Noise:
  """Column 'sound', float32 (size, S) or (size, S, C), uniform in -1 .. 1; with classes, column 'label', int32."""

  def draw(random: RowRandom) -> Columns:
    return {'sound': (2.0 * random.uniform(*shape) - 1.0).astype(np.float32), **_labels(random, num_classes)}

  return Noise(draw, size, seed, {'name': 'random_sounds', 'shape': list(shape), 'num_classes': num_classes})


def random_latents(shape: tuple[int, ...], num_classes: int, size: int, seed: int = 0) -> Noise:
  """Column 'image', float32 (size, *shape), standard Gaussian (Box-Muller); with classes, column 'label', int32."""

  def draw(random: RowRandom) -> Columns:
    return {'image': random.normal(*shape).astype(np.float32), **_labels(random, num_classes)}

  return Noise(draw, size, seed, {'name': 'random_latents', 'shape': list(shape), 'num_classes': num_classes})


def _labels(random: RowRandom, num_classes: int) -> Columns:
  return {'label': random.integers(0, num_classes).astype(np.int32)} if num_classes else {}


COLOURS = {'red': (214, 40, 40), 'green': (52, 168, 83), 'blue': (58, 94, 230), 'yellow': (244, 200, 40)}
FORMS = ('square', 'circle')
PLACES = ('top left', 'top right', 'bottom left', 'bottom right')


def captioned_shapes(shape: tuple[int, int, int], num_classes: int, size: int, seed: int = 0) -> Noise:
  """One coloured shape on dark grey in each image, and in words what it is.

  The colours, forms and places are those of `COLOURS`, `FORMS` and `PLACES`; sizes, and how bright and where exactly
  the shape is, vary.

  Args:
    shape: (H, W, 3) of the images, H and W at least 8.
    num_classes: 0, or the number of colours.
    size: how many examples.
    seed: of what is drawn.

  Returns:
    Columns 'image' uint8 (size, H, W, 3); 'text', such as 'a red square at the top left'; 'mask' uint8 (size, H, W, 1),
    255 on the shape; 'extent' float32, the side or diameter as a share of the image; with classes, 'label' int32, the
    number of the colour.

  Raises:
    UserError: another shape or number of classes.
  """
  if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 8 or num_classes not in (0, len(COLOURS)):
    raise UserError(f'captioned_shapes are images of at least 8 by 8 pixels with 3 channels and 0 or {len(COLOURS)} '
                    f'classes; got config.data.shape {tuple(shape)} and config.data.num_classes {num_classes}')

  def draw(random: RowRandom) -> Columns:
    colour_B, form_B, place_B = (random.integers(0, len(names)) for names in (COLOURS, FORMS, PLACES))
    extent_B = 0.25 + 0.2 * random.uniform()
    middle_B2 = np.stack([place_B // 2, place_B % 2], axis=-1) * 0.5 + 0.25 + 0.06 * (random.uniform(2) - 0.5)
    inside_BHW = _inside(shape[:2], form_B, middle_B2, extent_B)
    bright_B3 = np.asarray(list(COLOURS.values()))[colour_B] * (0.85 + 0.15 * random.uniform(1))
    ground_B1 = 24 + 24 * random.uniform(1)
    image_BHWC = np.where(inside_BHW[..., None], bright_B3[:, None, None], ground_B1[:, None, None])
    names = list(COLOURS)
    text_B = [f'a {names[colour]} {FORMS[form]} at the {PLACES[place]}'
              for colour, form, place in zip(colour_B, form_B, place_B)]
    return {'image': np.round(image_BHWC).astype(np.uint8), 'text': np.asarray(text_B, object),
            'mask': inside_BHW[..., None].astype(np.uint8) * np.uint8(255), 'extent': extent_B.astype(np.float32),
            **({'label': colour_B.astype(np.int32)} if num_classes else {})}

  return Noise(draw, size, seed, {'name': 'captioned_shapes', 'shape': list(shape), 'num_classes': num_classes})


def _inside(size: tuple[int, ...], form_B: np.ndarray, middle_B2: np.ndarray, extent_B: np.ndarray) -> np.ndarray:
  """Which pixels B H W have their middle inside of a shape; all lengths are shares of the image."""
  y_H, x_W = ((np.arange(count) + 0.5) / count for count in size)
  away_2BHW = np.abs(np.stack(np.broadcast_arrays(y_H[:, None] - middle_B2[:, 0, None, None],
                                                  x_W[None] - middle_B2[:, 1, None, None])))
  distance_BHW = np.where(form_B[:, None, None] == FORMS.index('circle'), np.hypot(*away_2BHW), away_2BHW.max(0))
  return distance_BHW <= extent_B[:, None, None] / 2


def seen_colour(image_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """What images of captioned shapes show: the numbers of the colour and of the place of the strongest colour, each
  (N,).

  A pixel counts as much as its channels differ. The colour is the one whose direction from grey is nearest to the
  weighted mean's.
  """
  image = image_NHWC.astype(np.float64)
  strength_NHW = image.max(-1) - image.min(-1)
  height, width = image.shape[1:3]
  quarters = [(slice(0, height // 2), slice(height // 2, None)), (slice(0, width // 2), slice(width // 2, None))]
  strong_N4 = np.stack([strength_NHW[:, rows, columns].sum((1, 2)) for rows in quarters[0]
                        for columns in quarters[1]], -1)
  mean_N3 = (image * strength_NHW[..., None]).sum((1, 2)) / np.maximum(strength_NHW.sum((1, 2)), 1e-9)[:, None]
  direction = lambda colour: (away := colour - colour.mean(-1, keepdims=True)) / np.maximum(
    np.linalg.norm(away, axis=-1, keepdims=True), 1e-9)
  alike_NK = direction(mean_N3) @ direction(np.asarray(list(COLOURS.values()), np.float64)).T
  return alike_NK.argmax(-1), strong_N4.argmax(-1)
