"""Guidance: functions that turn a denoiser into a guided denoiser."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.types import Array

Estimate = Array | tuple[Array, Array]  # x0_hat, or (x0_hat, further outputs of the network)


def classifier_free(denoise: Callable[[Array, Array, Array], Estimate], label_B: Array, null: int, scale: float,
                    interval: tuple[float, float] | None = None,
                    level: Callable[[Array], Array] = lambda t: t) -> Callable[[Array, Array], Estimate]:
  """Classifier-free guidance (Ho & Salimans 2022), x0_null + scale (x0_label - x0_null).

  x0_hat is linear in the network's prediction at a given x_t, so this equals guiding the noise or the velocity.
  Conditional and null predictions are computed as one batch of 2B.

  Args:
    denoise: (x_BX, scalar t, label_B) -> x0_hat, or (x0_hat, further outputs). Only x0_hat is guided; further outputs
      are the conditional ones, as in the published sampler of Peebles & Xie (2023).
    label_B: the labels.
    null: the label that means "no label".
    scale: 1 is the conditional model, 0 the unconditional one, above 1 guides.
    interval: (low, high): guides only where low < level(t) <= high; elsewhere the model is conditional
      (Kynkäänniemi et al. 2024).
    level: time -> the quantity that the interval refers to, by default the time itself. `Process.noise_to_signal` is
      the paper's sigma on any process.

  Returns:
    (x_BX, scalar t) -> estimate, of the type that `denoise` returns.
  """
  null_B = jnp.full_like(label_B, null)
  if scale == 1.0:
    return lambda x_BX, t: denoise(x_BX, t, label_B)
  if scale == 0.0 and interval is None:
    return lambda x_BX, t: denoise(x_BX, t, null_B)

  def guided(x_BX: Array, t: Array) -> Estimate:
    both = denoise(jnp.concatenate([x_BX, x_BX]), t, jnp.concatenate([label_B, null_B]))
    both, rest = both if isinstance(both, tuple) else (both, None)
    conditional_BX, null_BX = jnp.split(both, 2)
    guided_BX = null_BX + scale * (conditional_BX - null_BX)
    return guided_BX if rest is None else (guided_BX, jnp.split(rest, 2)[0])

  if interval is None:
    return guided
  low, high = interval
  inside = lambda t: (level(t) > low) & (level(t) <= high)
  return lambda x_BX, t: jax.lax.cond(inside(t), guided, lambda x, t: denoise(x, t, label_B), x_BX, t)
