"""What samplers share: a scan over times, and the noise of a step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genjax.types import Array, Key


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
