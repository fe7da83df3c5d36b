"""What samplers share: a scan over times, the noise of a step, and the last step of methods of order 2."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genjax.diffusion.schedules import Process
from genjax.types import Array, Key

Denoise = Callable[[Array, Array], Any]  # (x_BX, scalar t) -> x0_hat, see `genjax.diffusion.samplers`


def noise(keys_B: Key, index: Array, like_BX: Array) -> Array:
  """Standard normal noise for one step of a sampler.

  Args:
    keys_B: the keys that the sampler got. A row's noise depends on its own key and on `index` only.
    index: number of the step. A sampler that draws twice a step needs a second index, such as `index + len(times)`.
    like_BX: an array of the shape of the noise.
  """
  draw = lambda key: jax.random.normal(jax.random.fold_in(key, index), like_BX.shape[1:])
  return jax.vmap(draw)(keys_B)


def over_times(step: Callable[[Any, Array, Array, Array], Any], carry: Any, times: Array) -> Any:
  """Runs a sampler's step over neighbouring times, as one `jax.lax.scan`.

  Args:
    step: (carry, t, s, index) -> carry, from time t to the smaller time s; `index` counts from 0.
    carry: x_BX, or a tuple with what else a step hands to the next; shapes and types stay the same.
    times: N + 1 decreasing times.

  Returns:
    The carry after the last step.
  """
  times = jnp.asarray(times, jnp.float32)
  steps = (times[:-1], times[1:], jnp.arange(len(times) - 1))
  return jax.lax.scan(lambda carry, step_times: (step(carry, *step_times), None), carry, steps)[0]


def finish(denoise: Denoise, x_BX: Array, process: Process, times: Array) -> Array:
  """The last step of a method of order 2: one evaluation, to the estimate of the data if the noise ends there.

  Args:
    denoise: see `Denoise`.
    x_BX: x at the last time but one.
    process: the process.
    times: all times of the sampler.
  """
  t, s = times[-2], times[-1]
  x0_BX = denoise(x_BX, t)
  euler_BX = process.alpha(s) * x0_BX + process.sigma(s) * process.noise(x_BX, x0_BX, t)
  return jnp.where(process.sigma(s) > 0, euler_BX, x0_BX)
