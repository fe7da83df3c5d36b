"""Projection of pictures into the styles of a generator (Karras et al. 2020b, appendix D)."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.types import Array, Key

RATE, SPREAD = 0.1, 0.05  # of Adam, and the noise on styles at first, relative to their deviation
RISES, FALLS, NOISY = 0.05, 0.25, 0.75  # shares of the steps


def project(image: Callable[[Array], Array], target_BHWC: Array, mean_W: Array, deviation: Array, key: Key,
            steps: int) -> Array:
  """Finds styles whose images are like given ones: Adam, from the mean style, with noise that falls to 0.

  Rates and noise are those of NVlabs/stylegan2-ada-pytorch (projector.py). There the distance is that of VGG16's
  features, and noise maps are optimised, too; here it is `distance`, which needs no other network, and noise is fixed.

  Args:
    image: styles B W -> images B H W C around [-1, 1].
    target_BHWC: in the same range.
    mean_W: mean style, with which all begin.
    deviation: root of the mean squared distance of styles from it.
    key: of the noise.
    steps: of Adam.

  Returns:
    Styles B W. Each row depends on its own picture and on the noise of all rows alone.
  """
  style_BW = jnp.broadcast_to(mean_W, (len(target_BHWC), mean_W.shape[0]))
  adam = optax.scale_by_adam()

  def step(index: Array, carried: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
    style_BW, state = carried
    time = index / steps
    noise = deviation * SPREAD * jnp.maximum(0.0, 1.0 - time / NOISY)**2
    moved_BW = style_BW + noise * jax.random.normal(jax.random.fold_in(key, index), style_BW.shape)
    slope_BW = jax.grad(lambda style_BW: jnp.sum(distance(image(style_BW), target_BHWC)))(moved_BW)
    update: Any = adam.update(slope_BW, state)
    return style_BW - rate(time) * jnp.asarray(update[0]), update[1]

  return jax.lax.fori_loop(0, steps, step, (style_BW, adam.init(style_BW)))[0]


def rate(time: Array) -> Array:
  """The rate after a share `time` of the steps: it rises linearly, and falls like a cosine."""
  fall = jnp.minimum(1.0, (1.0 - time) / FALLS)
  return RATE * (0.5 - 0.5 * jnp.cos(math.pi * fall)) * jnp.minimum(1.0, time / RISES)


def distance(a_BHWC: Array, b_BHWC: Array) -> Array:
  """Mean squared differences of images and of their means over 2 x 2, 4 x 4, ... pixels, added up: B."""
  difference_BHWC = a_BHWC - b_BHWC
  total_B = jnp.mean(jnp.square(difference_BHWC), axis=(1, 2, 3))
  while min(difference_BHWC.shape[1:3]) > 4 and difference_BHWC.shape[1] % 2 == difference_BHWC.shape[2] % 2 == 0:
    rows, height, width, channels = difference_BHWC.shape
    difference_BHWC = difference_BHWC.reshape(rows, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    total_B = total_B + jnp.mean(jnp.square(difference_BHWC), axis=(1, 2, 3))
  return total_B
