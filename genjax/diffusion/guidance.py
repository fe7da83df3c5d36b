"""Guidance: denoisers made from denoisers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.types import Array


def classifier_free(denoise: Callable[[Array, Array, Array], Array], label_B: Array, null: int, scale: float,
                    interval: tuple[float, float] | None = None) -> Callable[[Array, Array], Array]:
  """Classifier-free guidance (Ho & Salimans 2022), x0_null + scale (x0_label - x0_null).

  Since x0_hat is linear in every network prediction at a given x_t, this equals guiding the noise or the velocity.
  Conditional and null predictions are computed as one batch of 2B.

  Args:
    denoise: (x_BX, scalar t, label_B) -> x0_hat.
    label_B: the labels.
    null: the label that stands for "none".
    scale: 1 is the conditional model, 0 the unconditional one, above 1 guides.
    interval: (low, high): guide only at times in between, conditional elsewhere (Kynkäänniemi et al. 2024).

  Returns:
    (x_BX, scalar t) -> x0_hat.
  """
  null_B = jnp.full_like(label_B, null)
  if scale == 1.0:
    return lambda x_BX, t: denoise(x_BX, t, label_B)
  if scale == 0.0 and interval is None:
    return lambda x_BX, t: denoise(x_BX, t, null_B)

  def guided(x_BX: Array, t: Array) -> Array:
    both = denoise(jnp.concatenate([x_BX, x_BX]), t, jnp.concatenate([label_B, null_B]))
    conditional_BX, null_BX = jnp.split(both, 2)
    return null_BX + scale * (conditional_BX - null_BX)

  if interval is None:
    return guided
  low, high = interval
  return lambda x_BX, t: jax.lax.cond((t >= low) & (t <= high), guided, lambda x, t: denoise(x, t, label_B), x_BX, t)
