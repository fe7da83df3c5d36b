"""Samplers of distilled models, which need few steps: LCM and TCD.

Signature and notation are those of `genjax.diffusion.samplers`.
"""


import jax.numpy as jnp

from genjax.diffusion.schedules import Process
from genjax.diffusion.stepping import Denoise, noise, over_times
from genjax.types import Array, Key

_DATA_STD = 0.5  # of the boundary condition of consistency models


def lcm(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *,
        timestep_scaling: float = 10.0) -> Array:
  """Multistep sampling of latent consistency models (Luo et al. 2023, algorithm 3): to the data, and back to the noise
  of the next time.

  Args:
    timestep_scaling: of the timestep in the boundary condition c_skip x + c_out x0_hat.
  """

  def step(x_BX, t, s, index):
    scaled = process.embed(t) * timestep_scaling
    square = scaled ** 2 + _DATA_STD ** 2
    data_BX = _DATA_STD ** 2 / square * x_BX + scaled / jnp.sqrt(square) * denoise(x_BX, t)
    return process.alpha(s) * data_BX + process.sigma(s) * noise(keys_B, index, x_BX)

  return over_times(step, x_BX, times)


def tcd(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *, eta: float = 0.3) -> Array:
  """Strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024, algorithm 4), on whole times.

  Args:
    eta: gamma of the paper: how far below the next time a step goes before noise brings it back, from 0 to 1.

  Raises:
    ValueError: eta is out of range.
  """
  if not 0 <= eta <= 1:
    raise ValueError(f'eta must lie between 0 and 1, got {eta}')

  def step(x_BX, t, s, index):
    below = jnp.floor((1 - eta) * (s - 1)) + 1  # of timesteps, which count from 0
    below = jnp.where(s > 0, below, 0.0)
    x0_BX = denoise(x_BX, t)
    x_BX = process.alpha(below) * x0_BX + process.sigma(below) * process.noise(x_BX, x0_BX, t)
    ratio = process.alpha(s) / process.alpha(below)
    return ratio * x_BX + jnp.sqrt(jnp.maximum(1 - ratio ** 2, 0.0)) * noise(keys_B, index, x_BX)

  return over_times(step, x_BX, times)
