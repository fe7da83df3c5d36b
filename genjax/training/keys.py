"""Where random keys come from: the seed, split by purpose, then by number.

A run uses one seed for everything. The key of a purpose is `fold_in(key(seed), purpose)`, and what is numbered within a
purpose (steps, held-out batches, rows of samples) folds its number into that key. Two purposes therefore never share a
key, whatever the numbers.
"""

import jax

from genjax.types import Key, UserError

# The numbers are part of what a seed means: a new purpose takes the next one, and none is used again. All are from 2^31
# on, so that none is the upper half of a large seed, see `of`.
PURPOSES = {name: 2**31 + number for number, name in enumerate(('init', 'step', 'evaluation', 'sample'))}
# Of this implementation alone a key under `vmap` gives what it gives alone; with 'rbg' a row would depend on the rows
# beside it.
ROWS = 'threefry2x32'
_LIMIT = 2**63


def of(seed: int, purpose: str, implementation: str | None = None) -> Key:
  """The key of a purpose.

  Args:
    seed: from 0 to 2^63 - 1; all of its bits count, although jax makes a key of the lower 32 only.
    purpose: one of `PURPOSES`.
    implementation: a name that `jax.random.key` takes; by default the one that jax is configured for.

  Raises:
    UserError: a seed out of range.
  """
  if not 0 <= seed < _LIMIT:
    raise UserError(f'a seed is a whole number from 0 to 2^63 - 1, got {seed}')
  high, low = divmod(seed, 2**32)
  key = jax.random.key(low, impl=implementation)
  key = jax.random.fold_in(key, high) if high else key
  return jax.random.fold_in(key, PURPOSES[purpose])


def implementation() -> str:
  """The implementation that this process draws random numbers by, which decides what a seed means."""
  name = str(jax.config.jax_default_prng_impl)  # type: ignore[attr-defined]  # jax declares its flags when it runs
  partitionable = bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined]
  return name if partitionable or name != 'threefry2x32' else f'{name}, not partitionable'
