"""Real pictures of scikit-learn, small ones."""

import numpy as np
from scipy import ndimage
from sklearn import datasets

SIDE = 40


def photographs(blur=0.0):
  """Two pictures of 40 x 40 pixels in [-1, 1], float32."""
  found = []
  for name, (top, left) in (('china.jpg', (60, 200)), ('flower.jpg', (100, 180))):
    image_HWC = datasets.load_sample_image(name)[top:top + 240, left:left + 240].astype(np.float64)
    small_HWC = image_HWC.reshape(SIDE, 6, SIDE, 6, 3).mean(axis=(1, 3)) / 127.5 - 1.0
    found.append(ndimage.gaussian_filter(small_HWC, (blur, blur, 0), mode='mirror') if blur else small_HWC)
  return np.stack(found).astype(np.float32)
