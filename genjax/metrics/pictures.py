"""How much pictures differ from others, one by one: PSNR and SSIM of uint8 pictures."""

import numpy as np
from skimage.metrics import structural_similarity

from genjax.types import UserError

MOST_PSNR = 100.0  # in dB, of pictures that are equal
LEAST_SIDE = 11  # of pictures for SSIM: the width of its Gaussian window


def psnr(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio of each pair in dB, 10 log10(255^2 / mean squared error), at most `MOST_PSNR`.

  Args:
    a_NHWC, b_NHWC: pictures, uint8.

  Returns:
    float64 (N,).

  Raises:
    UserError: they are no pictures of equal shapes.
  """
  _check(a_NHWC, b_NHWC)
  error_N = ((a_NHWC.astype(np.float64) - b_NHWC) ** 2).reshape(len(a_NHWC), -1).mean(axis=1) / 255 ** 2
  return -10.0 * np.log10(np.maximum(error_N, 10 ** (-MOST_PSNR / 10)))


def ssim(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
  """Structural similarity of each pair, at most 1 (Wang et al. 2004): a Gaussian window of deviation 1.5 and width 11,
  mean over its places inside the picture and over channels.

  Args:
    a_NHWC, b_NHWC: pictures, uint8, with sides of at least `LEAST_SIDE`.

  Returns:
    float64 (N,).

  Raises:
    UserError: they are no pictures of equal shapes, or too small.
  """
  _check(a_NHWC, b_NHWC)
  check_side(a_NHWC.shape[1:])
  return np.array([structural_similarity(a_HWC, b_HWC, channel_axis=-1, data_range=255, gaussian_weights=True,
                                         sigma=1.5, use_sample_covariance=False)
                   for a_HWC, b_HWC in zip(a_NHWC, b_NHWC, strict=True)])


def check_side(shape: tuple[int, ...]) -> None:
  """Checks that pictures of a shape (H, W, C) are large enough for SSIM.

  Raises:
    UserError: they are not.
  """
  if min(shape[:2]) < LEAST_SIDE:
    raise UserError(f'SSIM needs pictures of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, got {shape[0]} x {shape[1]}; '
                    'leave it out, PSNR takes any size')


def _check(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> None:
  if a_NHWC.ndim != 4 or a_NHWC.shape != b_NHWC.shape or not a_NHWC.dtype == b_NHWC.dtype == np.uint8:
    raise UserError(f'pictures to compare must be uint8 of one shape N H W C, got {a_NHWC.dtype} {a_NHWC.shape} and '
                    f'{b_NHWC.dtype} {b_NHWC.shape}')
