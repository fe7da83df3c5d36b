"""Units of likelihood, and the importance-weighted bound. Inputs are in nats."""

import math

import numpy as np

from genjax.types import UserError


def bits_per_byte(nats_per_token: float, bytes_per_token: float = 1.0) -> float:
  """Nats per token as bits per byte of text: nats / (ln 2 * bytes per token).

  Args:
    nats_per_token: mean negative log likelihood of a token.
    bytes_per_token: bytes of the text over its number of tokens; 1 for byte vocabularies.
  """
  if not bytes_per_token > 0:
    raise UserError(f'bytes_per_token must be positive, got {bytes_per_token}')
  return nats_per_token / (math.log(2.0) * bytes_per_token)


def bits_per_dim(nats: float, dims: int, scale: float = 1.0) -> float:
  """Negative log likelihood of an example as bits per dimension: nats / (ln 2 * dims) + log2(scale).

  Args:
    nats: negative log likelihood of one example, as a density if the data is continuous.
    dims: numbers in one example, H * W * C for images.
    scale: discrete levels in one unit of the modelled data; 1 for a probability of the levels themselves, 256 where
      bytes (with uniform noise) were scaled to [0, 1), 128 for [-1, 1) (Theis et al. 2016, section 3.1).
  """
  if dims < 1 or not scale > 0:
    raise UserError(f'bits per dimension need dims >= 1 and scale > 0, got {dims} and {scale}')
  return nats / (math.log(2.0) * dims) + math.log2(scale)


def perplexity(nats_per_token: float) -> float:
  """exp(nats per token), the size of a uniform vocabulary that is as hard to predict; infinite beyond float64."""
  return math.exp(nats_per_token) if nats_per_token < 709.0 else math.inf


def importance_bound(log_weight_KN: np.ndarray) -> np.ndarray:
  """Lower bound on log p(x) from K importance samples (Burda et al. 2016, Eq. 8): log((1 / K) sum_k w_k).

  Args:
    log_weight_KN: log p(x, z_k) - log q(z_k | x) for K samples of N examples.

  Returns:
    float64 (N,) in nats. K = 1 is the evidence lower bound; the expectation grows with K and tends to log p(x).

  Raises:
    UserError: no samples.
  """
  log_weight_KN = np.asarray(log_weight_KN, np.float64)
  if not len(log_weight_KN):
    raise UserError('the importance-weighted bound needs at least one sample, got none')
  largest_N = np.max(log_weight_KN, axis=0)
  # All weights 0 has the bound -inf, not NaN.
  shift_N = np.where(np.isfinite(largest_N), largest_N, 0.0)
  with np.errstate(divide='ignore'):
    return shift_N + np.log(np.mean(np.exp(log_weight_KN - shift_N), axis=0))
