"""Pictures of samples as uint8 arrays, for `Experiment.render`."""

import math

import numpy as np


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


def visible(image_NHWC: np.ndarray) -> np.ndarray:
  """Makes images visible: of latents (float), the first three channels with -3 .. 3 as black .. white."""
  if image_NHWC.dtype == np.uint8:
    return image_NHWC
  shown_NHWC = image_NHWC[..., :3] if image_NHWC.shape[-1] >= 3 else image_NHWC[..., :1]
  return np.round(np.clip((shown_NHWC + 3.0) / 6.0, 0.0, 1.0) * 255.0).astype(np.uint8)
