"""Keys: a purpose of a seed never shares one with another, and samples do not depend on how many are drawn at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training import keys, state
from genjax.types import UserError


def words(key):
  """Keys as numbers of 64 bits."""
  high, low = np.moveaxis(np.asarray(jax.random.key_data(key), np.uint64), -1, 0)
  return high << np.uint64(32) | low


def numbered(key, count):
  return jax.vmap(lambda number: jax.random.fold_in(key, number))(np.arange(count))


def test_no_purpose_shares_a_key_with_another_or_with_another_seed():
  seeds = 0, 1, 2**31, 2**32, 2**32 + 1, 2**33
  found = [words(key) for seed in seeds for purpose in keys.PURPOSES
           for key in (jnp.stack([keys.of(seed, purpose)]), numbered(keys.of(seed, purpose), 5000))]
  found += [words(jnp.stack([jax.random.key(seed % 2**32) for seed in seeds[:4]]))]
  together = np.concatenate(found)
  # Of the plain keys, two are one
  assert len(together) == 6 * 4 * 5001 + 4 and len(np.unique(together)) == len(together) - 1


@pytest.mark.parametrize('seed', [-1, 2**63])
def test_a_seed_that_jax_would_cut_is_refused(seed):
  with pytest.raises(UserError, match=str(seed)):
    keys.of(seed, 'init')


class Recorder:
  """Stands in for what a run calls with keys; keeps them."""

  def __init__(self, function):
    self.function, self.keys = function, []

  def __call__(self, *args):
    self.keys += [leaf for leaf in jax.tree.leaves(args) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return self.function(*args)


def test_steps_evaluations_and_samples_of_a_run_take_different_keys(small_run):
  """Row 0 of the samples once had the key of step 1443, the evaluation that of step 59297, and the initial variables
  that of step 4631."""
  run = small_run()
  init, program = state.init_key(0), run.program
  program.evaluate, program.sample = Recorder(program.evaluate), Recorder(program.sample)
  run.evaluate()
  run.sample(5, run.settings.seed)
  others = np.concatenate([words(key).reshape(-1) for key in (init, *program.evaluate.keys, *program.sample.keys)])
  assert len(np.unique(others)) == 7
  for steps in (numbered(jax.random.key(0), 70_000), numbered(keys.of(0, 'step'), 70_000)):
    assert not np.isin(others, words(steps)).any()
    first = jax.vmap(jax.random.fold_in, (0, None))(steps, 0)  # of the first phase
    assert not np.isin(others, words(first)).any()


@pytest.mark.parametrize('implementation', ['threefry2x32', 'rbg', 'unsafe_rbg'])
def test_samples_do_not_depend_on_the_chunk_whatever_draws_them(small_run, implementation):
  with jax.default_prng_impl(implementation):
    run = small_run()
    whole = run.sample(7, 1)['y']
    assert len(set(whole.tolist())) == 7
    for chunk in (1, 3, 7):
      np.testing.assert_allclose(run.sample(7, 1, chunk=chunk)['y'], whole, rtol=1e-6)  # the last bit is the compiler's
    np.testing.assert_allclose(run.sample(4, 1)['y'], whole[:4], rtol=1e-6)


def test_the_implementation_is_known_by_name():
  assert keys.implementation() == 'threefry2x32'
  with jax.default_prng_impl('rbg'):
    assert keys.implementation() == 'rbg'
  with jax.threefry_partitionable(False):
    assert keys.implementation() == 'threefry2x32, not partitionable'
