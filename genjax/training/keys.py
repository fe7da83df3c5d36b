"""Random keys: derived from the seed by purpose, then by number.

A run has one seed. The key of a purpose is `fold_in(key(seed), purpose)`. Steps, held-out batches and rows of samples
fold their number into the key of their purpose. Different purposes therefore never share a key.
"""

import jax

from genjax.types import Key, UserError

# Changing these numbers changes the results of a seed: give a new purpose the next number, and never reuse one. They
# start at 2^31, so that none equals the upper half of a large seed, see `of`.
PURPOSES = {name: 2**31 + number for number, name in enumerate(('init', 'step', 'evaluation', 'sample'))}
# The only implementation whose draws under `vmap` equal those without it; with 'rbg' a row would depend on other rows.
ROWS = 'threefry2x32'
_LIMIT = 2**63


def of(seed: int, purpose: str, implementation: str | None = None) -> Key:
  """The key of a purpose.

  Args:
    seed: from 0 to 2^63 - 1. All bits count, although `jax.random.key` uses only the lower 32.
    purpose: one of `PURPOSES`.
    implementation: a PRNG name for `jax.random.key`; by default the configured one.

  Raises:
    UserError: a seed out of range.
  """
  if not 0 <= seed < _LIMIT:
    raise UserError(f'a seed must be a whole number from 0 to 2^63 - 1, got {seed}')
  high, low = divmod(seed, 2**32)
  key = jax.random.key(low, impl=implementation)
  key = jax.random.fold_in(key, high) if high else key
  return jax.random.fold_in(key, PURPOSES[purpose])


def implementation() -> str:
  """The PRNG implementation of this process; the results of a seed depend on it."""
  name = str(jax.config.jax_default_prng_impl)  # type: ignore[attr-defined]  # jax declares its flags when it runs
  partitionable = bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined]
  return name if partitionable or name != 'threefry2x32' else f'{name}, not partitionable'
