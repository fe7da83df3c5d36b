"""What is shown of samples: pictures as uint8 arrays, clips and sounds, for `Experiment.render`."""

from collections.abc import Mapping, Sequence
import functools
import math
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genjax.artifacts import Clip, Sound

_WIDTH = 96  # pixels of an image with a caption, at least
_LINES = 3  # most lines of a caption
_FONT = 10
PAIRS = 8  # images, and their reconstructions, in a row


def grid(image_NHWC: np.ndarray, columns: int = 0, gap: int = 1, enlarge: int = 0) -> np.ndarray:
  """Images in a grid, row by row, on white.

  Args:
    image_NHWC: uint8.
    columns: images per row; 0 makes the grid about square.
    gap: white pixels between images.
    enlarge: each pixel becomes a square of this size; 0 chooses it so that an image has about 56 pixels.

  Returns:
    uint8 H W C.
  """
  count, height, width, channels = image_NHWC.shape
  columns = min(count, columns or math.ceil(math.sqrt(count)))
  rows = -(-count // columns)
  enlarge = enlarge or max(1, 56 // height)
  image_NHWC = image_NHWC.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
  height, width = height * enlarge + gap, width * enlarge + gap
  sheet_HWC = np.full((rows * height + gap, columns * width + gap, channels), 255, np.uint8)
  for index, image_HWC in enumerate(image_NHWC):
    top, left = index // columns * height + gap, index % columns * width + gap
    sheet_HWC[top:top + height - gap, left:left + width - gap] = image_HWC
  return sheet_HWC


def pairs(original_NHWC: np.ndarray, reconstruction_NHWC: np.ndarray, columns: int) -> np.ndarray:
  """Images, each beside its reconstruction, in a grid with so many images per row; see `grid`."""
  pair_N2HWC = np.stack([original_NHWC, reconstruction_NHWC], axis=1)
  return grid(pair_N2HWC.reshape(-1, *pair_N2HWC.shape[2:]), columns=columns)


def autoencoded(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The pictures of an autoencoder: 'samples' of the column 'image', and 'reconstructions' beside their originals, of
  'original' and 'reconstruction'; each column uint8 N H W C, and each may be left out."""
  pictures = {}
  if 'image' in columns:
    pictures['samples'] = grid(columns['image'])
  if 'reconstruction' in columns:
    pictures['reconstructions'] = pairs(columns['original'], columns['reconstruction'], PAIRS)
  return pictures


def clips(clip_NTHWC: np.ndarray, rate: float, captions: Sequence[str] = (), columns: int = 0) -> Clip:
  """Clips side by side in a grid, as one.

  Args:
    clip_NTHWC: uint8, with 1 or 3 channels.
    rate: frames a second.
    captions: one a clip, drawn below it; () for none.
    columns: clips per row; 0 makes the grid about square.
  """
  _, length, height, width, channels = clip_NTHWC.shape
  enlarge = max(1, 56 // height, -(-_WIDTH // width) if any(captions) else 1)
  clip_NTHWC = clip_NTHWC.repeat(enlarge, axis=2).repeat(enlarge, axis=3)
  if any(captions):
    strips = np.stack(_strips(captions, width * enlarge, channels))
    clip_NTHWC = np.concatenate([clip_NTHWC, strips[:, None].repeat(length, axis=1)], axis=2)
  frames = [grid(clip_NTHWC[:, frame], columns, enlarge=1) for frame in range(length)]
  return Clip(np.stack(frames), rate, captions[0] if len(captions) == 1 else '')


def sounds(sound_NSC: np.ndarray, rate: int, pause: float = 0.25) -> Sound:
  """Sounds one after the other, as one.

  Args:
    sound_NSC: in -1 .. 1, N S or N S C.
    rate: samples a second.
    pause: silence between two of them, in seconds.
  """
  silence = np.zeros((round(pause * rate), *sound_NSC.shape[2:]), sound_NSC.dtype)
  parts = [part for sound in sound_NSC for part in (sound, silence)]
  return Sound(np.concatenate(parts[:-1]), rate)


def _strips(captions: Sequence[str], width: int, channels: int) -> list[np.ndarray]:
  """Captions as pictures of one size, black on white; what does not fit ends in dots."""
  font = _font()
  letters = max(1, int(width // font.getlength('n')))
  texts = [textwrap.wrap(caption, letters, max_lines=_LINES, placeholder='...') for caption in captions]
  height = _FONT // 4 + (_FONT + 2) * max(map(len, texts))
  strips = []
  for lines in texts:
    picture = Image.new('L', (width, height), 'white')
    for number, line in enumerate(lines):
      ImageDraw.Draw(picture).text((1, number * (_FONT + 2)), line, fill='black', font=font)
    strips.append(np.asarray(picture)[..., None].repeat(channels, axis=-1))
  return strips


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(_FONT)


def visible(image_NHWC: np.ndarray) -> np.ndarray:
  """Makes images visible: of latents (float), the first three channels with -3 .. 3 as black .. white."""
  if image_NHWC.dtype == np.uint8:
    return image_NHWC
  shown_NHWC = image_NHWC[..., :3] if image_NHWC.shape[-1] >= 3 else image_NHWC[..., :1]
  return np.round(np.clip((shown_NHWC + 3.0) / 6.0, 0.0, 1.0) * 255.0).astype(np.uint8)


def points(point_N2: np.ndarray, reach: float, sheet_HWC: np.ndarray) -> np.ndarray:
  """Points as black dots on a square sheet, which shows -reach to reach along both axes; it is changed.

  Args:
    point_N2: points; those outside are not shown.
    reach: of the sheet.
    sheet_HWC: uint8.
  """
  pixels = len(sheet_HWC)
  step = 2 * reach / pixels
  column_N, row_N = ((point_N + reach) // step for point_N in (point_N2[:, 0], -point_N2[:, 1]))
  seen_N = (column_N >= 0) & (column_N < pixels) & (row_N >= 0) & (row_N < pixels)
  sheet_HWC[row_N[seen_N].astype(int), column_N[seen_N].astype(int)] = 0
  return sheet_HWC
