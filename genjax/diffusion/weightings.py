"""Weights of the loss, by name, as functions of the signal-to-noise ratio.

Papers define them for the error of x0_hat, of the noise or of v. Here a weighting is a function w(alpha^2, sigma^2),
the weight of |x0 - x0_hat|^2. Since x0_hat = c_skip x_t + c_out F, the error of a prediction F has the weight w
c_out^2, for every parameterization and process. Ratios are written so that nothing is divided by 0 at pure noise (alpha
= 0).
"""

from collections.abc import Callable

import jax.numpy as jnp

from genjax.diffusion.parameterizations import Parameterization
from genjax.diffusion.schedules import Process
from genjax.tables import Table
from genjax.types import Array, UserError

# times -> weights of the squared error of the prediction
Weighting = Callable[[Process, Parameterization, Array], Array]


def uniform() -> Weighting:
  """Weight 1 for the error of the prediction: DDPM's simple loss, flow matching, and EDM's weighting."""
  return lambda process, parameterization, t: jnp.ones_like(t)


def min_snr(gamma: float = 5.0) -> Weighting:
  """Min-SNR: min(snr, gamma) for x0 (Hang et al. 2023, eq. 9 and section 3.4).

  At pure noise the weights of x0 and v are 0; 'truncated_snr' has none that vanish.

  Args:
    gamma: largest signal-to-noise ratio that counts.
  """
  _positive('min_snr', gamma=gamma)
  return of_x0(lambda signal, noise: jnp.minimum(signal / noise, gamma))


def truncated_snr(least: float = 1.0) -> Weighting:
  """max(snr, least) for x0 (Salimans & Ho 2022, section 4, with least = 1).

  Args:
    least: smallest weight.
  """
  _positive('truncated_snr', least=least)
  return of_x0(lambda signal, noise: jnp.maximum(signal / noise, least))


def p2(gamma: float = 1.0, k: float = 1.0) -> Weighting:
  """1 / (k + snr)^gamma for epsilon (Choi et al. 2022, eq. 8).

  Args:
    gamma: exponent; 0 is 'uniform' for epsilon.
    k: added to the signal-to-noise ratio.
  """
  _positive('p2', gamma=gamma, k=k)
  return of_x0(lambda signal, noise: signal / noise / (k + signal / noise) ** gamma)


def sigmoid(bias: float = 2.0) -> Weighting:
  """sigmoid(bias - log snr) for epsilon (Kingma & Gao 2023, appendix; Hoogeboom et al. 2024).

  Args:
    bias: log snr at which the weight is 1/2.
  """
  if not abs(bias) < 80:  # its exponential is a float32
    raise UserError(f'weighting sigmoid needs a bias between -80 and 80, got {bias}')
  return of_x0(lambda signal, noise: signal / (noise + signal * jnp.exp(-bias)))


# Functions of options of config.objective.weighting -> Weighting
WEIGHTINGS: Table[Callable[..., Weighting]] = Table(
  'weighting',
  {'uniform': uniform, 'min_snr': min_snr, 'truncated_snr': truncated_snr, 'p2': p2, 'sigmoid': sigmoid}, takes=())


def of_x0(weight: Callable[[Array, Array], Array]) -> Weighting:
  """A weighting from its formula for the error of x0_hat.

  Args:
    weight: (alpha^2, sigma^2) -> w, the weight of |x0 - x0_hat|^2; the signal-to-noise ratio is their quotient.
  """

  def weights(process: Process, parameterization: Parameterization, t: Array) -> Array:
    _, out = parameterization.coefficients(process, t)
    return weight(process.alpha(t) ** 2, process.sigma(t) ** 2) * out ** 2

  return weights


def _positive(name: str, **options: float) -> None:
  for option, value in options.items():
    if not 0 < value < float('inf'):
      raise UserError(f'weighting {name} needs {option} above 0, got {value}')
