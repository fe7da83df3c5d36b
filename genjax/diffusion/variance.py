"""Learned variances of the reverse process at whole times, and the bound that trains them (Nichol & Dhariwal 2021).

The network has a second output `raw` with the shape of the data. v = (raw + 1) / 2, as in the published code,
interpolates the variance of p(x_s | x_t) between beta, the variance of q(x_t | x_s), and beta_tilde, the variance of
the posterior q(x_s | x_t, x0):

    log variance = v log beta + (1 - v) log beta_tilde        (eq. 15)
"""

import math

import jax
import jax.numpy as jnp

from genjax.diffusion.schedules import Process, expand, transition
from genjax.types import Array, UserError

_HALF_BIN = 1.0 / 255.0  # half the distance between two of the 256 pixel values in [-1, 1]


def check(process: Process) -> None:
  """Checks that variances can be learned for a process.

  Raises:
    UserError: the process does not have 2 or more whole times.
  """
  if process.steps < 2:
    given = f'{process.steps} whole step' if process.steps else 'no whole steps (flow and edm have none)'
    raise UserError('config.model.learn_sigma=True learns the variances of a process of 2 or more whole steps: set '
                    "config.objective.process to 'vp_linear' or 'vp_cosine', or config.model.learn_sigma to False; the "
                    f'process here has {given}')


def log_variance(process: Process, raw_BX: Array, t: Array, s: Array) -> Array:
  """The log of the variance of p(x_s | x_t) from a network's second output (eq. 15).

  beta_tilde is 0 at s = 0. It is replaced there by the value for t = 2, as in the published code.

  Args:
    process: a process of whole times.
    raw_BX: the network's second output.
    t, s: times s < t, B or scalars.
  """
  _, forward = transition(process, t, s)
  ends = s <= 0
  later, earlier = jnp.where(ends, 2.0, t), jnp.where(ends, 1.0, s)
  _, later_forward = transition(process, later, earlier)
  posterior = later_forward * (process.sigma(earlier) / process.sigma(later)) ** 2
  share_BX = 0.5 * (raw_BX.astype(jnp.float32) + 1.0)
  high, low = expand(jnp.log(forward), raw_BX), expand(jnp.log(posterior), raw_BX)
  return share_BX * high + (1.0 - share_BX) * low


def bound(process: Process, raw_BX: Array, x0_hat_BX: Array, x0_BX: Array, x_BX: Array, t_B: Array,
          bounded: bool) -> Array:
  """The term of the variational bound at whole times t, in bits per dimension.

  Source: Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, eq. 4-7.

  For t > 1 it is the KL divergence of the posterior q(x_{t-1} | x_t, x0) from the network's Gaussian. For t = 1 it is
  the negative log-likelihood of data discretised to 256 values from -1 to 1.

  Args:
    process: a process of whole times.
    raw_BX: the network's second output, which this term trains.
    x0_hat_BX: the estimate of the data; the caller stops its gradient.
    x0_BX, x_BX: the data, and the noisy data at t_B.
    t_B: whole times.
    bounded: whether the data lie in [-1, 1]; the outermost bins then extend to infinity.

  Returns:
    One number per example, of shape B.
  """
  s_B = t_B - 1.0
  ratio_B, forward_B = transition(process, t_B, s_B)
  square_B, kept_B = process.sigma(t_B) ** 2, process.sigma(s_B) ** 2
  from_x0_B = expand(process.alpha(s_B) * forward_B / square_B, x0_BX)
  log_BX = log_variance(process, raw_BX, t_B, s_B)
  # Both means share x_t, so they differ only by their estimates of the data.
  apart_BX = from_x0_B * (x0_BX - x0_hat_BX)
  true_log_B = expand(jnp.log(jnp.where(s_B > 0, forward_B * kept_B / square_B, 1.0)), x0_BX)
  divergence_BX = 0.5 * (log_BX - true_log_B - 1.0 + jnp.exp(true_log_B - log_BX) + apart_BX ** 2 * jnp.exp(-log_BX))
  mean_BX = expand(ratio_B * kept_B / square_B, x_BX) * x_BX + from_x0_B * x0_hat_BX
  likelihood_BX = log_likelihood(x0_BX, mean_BX, 0.5 * log_BX, bounded)
  nats_BX = jnp.where(expand(s_B > 0, x0_BX) > 0, divergence_BX, -likelihood_BX)
  return jnp.mean(nats_BX.reshape(len(t_B), -1), axis=1) / math.log(2.0)


def log_likelihood(x0_BX: Array, mean_BX: Array, log_std_BX: Array, bounded: bool) -> Array:
  """The log probability under N(mean, std^2) of the bin of width 2 / 255 around x0 (Ho et al. 2020, eq. 13).

  Args:
    x0_BX: data.
    mean_BX, log_std_BX: parameters of the Gaussian.
    bounded: whether the bins around -1 and 1 extend to infinity.
  """
  inverse_BX = jnp.exp(-log_std_BX)
  above_BX, below_BX = ((x0_BX - mean_BX + side) * inverse_BX for side in (_HALF_BIN, -_HALF_BIN))
  # Mirror to the left tail, where differences of the distribution function are accurate.
  mirrored_BX = below_BX + above_BX > 0
  upper_BX, lower_BX = jnp.where(mirrored_BX, -below_BX, above_BX), jnp.where(mirrored_BX, -above_BX, below_BX)
  log_upper_BX, log_lower_BX = jax.scipy.stats.norm.logcdf(upper_BX), jax.scipy.stats.norm.logcdf(lower_BX)
  inner_BX = log_upper_BX + jnp.log(-jnp.expm1(jnp.minimum(log_lower_BX - log_upper_BX, -1e-6)))
  if not bounded:
    return inner_BX
  first_BX = jax.scipy.stats.norm.logcdf(above_BX)
  last_BX = jax.scipy.stats.norm.logcdf(-below_BX)
  return jnp.where(x0_BX < -0.999, first_BX, jnp.where(x0_BX > 0.999, last_BX, inner_BX))
