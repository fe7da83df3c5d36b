"""Moving averages: their weights against closed forms, and several of them in one run."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
import numpy as np
import pytest

from genjax import sharding
from genjax.training import averages
from genjax.training import state as state_lib
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.run import Run
from genjax.types import UserError

SEVERAL = {'a': {'evaluated': 'short', 'short': 0.9, 'wide': {'sigma_rel': 0.2}, 'slow': {'half_life': 40}}, 'b': 0.5}


def weights(rule, steps, rows=8):
  """How much each step counts in the average after all of them, and, first, the initial values."""
  counts = np.ones(1)
  for step in range(steps):
    weight = float(rule.weight(step, rows))
    counts = np.append(counts * (1 - weight), weight)
  return counts


@pytest.mark.parametrize(('sigma_rel', 'gamma'), [(0.05, 16.97), (0.10, 6.94), (12**-0.5, 0.0)])
def test_exponents_are_those_of_the_paper(sigma_rel, gamma):
  """Karras et al. 2024, section 3.1."""
  assert averages.exponent(sigma_rel) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize('sigma_rel', [0.05, 0.15])
def test_a_power_function_has_the_spread_that_names_it_and_nothing_of_the_start(sigma_rel):
  counts = weights(averages.Power(sigma_rel), 600)
  assert counts[0] == 0.0 and counts.sum() == pytest.approx(1.0, abs=1e-5)
  time = np.arange(601)
  mean = counts @ time
  assert np.sqrt(counts @ (time - mean) ** 2) / 600 == pytest.approx(sigma_rel, rel=0.02)
  gamma = averages.exponent(sigma_rel)
  assert mean / 600 == pytest.approx((gamma + 1) / (gamma + 2), rel=0.01)


def test_weights_late_in_a_long_run_keep_their_digits():
  rule, step = averages.Power(0.1), 10**8
  assert float(rule.weight(np.int32(step), 8)) == pytest.approx((averages.exponent(0.1) + 1) / step, rel=1e-5)
  late = averages.HalfLife(10_000).weight(np.int32(2**31 - 1), 4096)  # the examples are more than int32 counts
  assert float(averages.HalfLife(10_000, 0.05).weight(np.int32(2**31 - 1), 4096)) == float(late)


def test_an_average_is_a_copy_until_it_starts():
  rule = averages.Decay(0.9, start=3)
  np.testing.assert_allclose(weights(rule, 6), [0, 0, 0, 0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1], rtol=1e-5)
  with pytest.raises(UserError, match='config.ema.a.start, a number of steps'):
    averages.parse({'a': {'decay': 0.9, 'start': -1}})


def test_a_half_life_grows_by_a_cosine():
  rule = averages.HalfLife(40, grow=80)
  assert float(rule.weight(0, 8)) == 1.0
  assert float(rule.weight(5, 8)) == pytest.approx(1 - 0.5 ** (8 / 20))  # half of the way
  assert float(rule.weight(10, 8)) == float(rule.weight(99, 8)) == pytest.approx(1 - 0.5 ** (8 / 40))
  with pytest.raises(UserError, match='config.ema.a.grow, a number of examples'):
    averages.parse({'a': {'half_life': 9, 'grow': -1}})


def test_a_half_life_halves_and_ramps_up():
  counts = weights(averages.HalfLife(40), 20)  # eight examples a step
  np.testing.assert_allclose(counts[2:] / counts[1:-1], 2 ** (1 / 5), rtol=1e-5)
  assert counts[0] == pytest.approx(2**-4)
  ramped = averages.HalfLife(40, 0.05)
  assert float(ramped.weight(0, 8)) == 1.0  # of the initial values nothing is left
  # At step 50 of 8 rows, 400 examples were seen, and a twentieth is 20.
  assert float(ramped.weight(50, 8)) == pytest.approx(1 - 0.5 ** (8 / 20), rel=1e-5)
  assert float(ramped.weight(1000, 8)) == pytest.approx(1 - 0.5 ** (8 / 40), rel=1e-5)


def several(small_run, ema, together=False, **settings):
  """A run with these averages; `together`: with both phases in every step, so that a call may have several steps."""
  run = small_run(**settings)
  objective = run.experiment.objective
  if together:
    phases = tuple(dataclasses.replace(phase, every=1) for phase in objective.phases())
    objective.phases = lambda: phases
  made = Run(dataclasses.replace(run.experiment, objective=objective, ema=ema), run.settings)
  made.initialise()
  return made


def go(run, steps):
  batches = run.experiment.train.iterate(run.step, run.rows(4))
  while run.step < steps:
    run.train_steps([next(batches) for _ in range(run.steps_of_next_call(lambda step: step == steps))])
  return run


def test_several_averages_follow_their_rules_and_leave_the_others_as_they_were(small_run, state_bytes):
  alone, run = several(small_run, {'a': 0.9, 'b': 0.5}), several(small_run, SEVERAL)
  assert set(run.state.ema) == {'a', 'a@wide', 'a@slow', 'b'}
  wide = slow = np.asarray(run.state.params['a']['w'], np.float64)
  batches = run.experiment.train.iterate(0, run.rows(4))
  for step in range(7):
    run.train_step(next(batches))
    params = np.asarray(run.state.params['a']['w'], np.float64)
    share = (1 - 1 / (step + 1)) ** (averages.exponent(0.2) + 1)
    wide, slow = share * wide + (1 - share) * params, 0.5**0.1 * slow + (1 - 0.5**0.1) * params
  np.testing.assert_allclose(run.state.ema['a@wide']['w'], wide, rtol=1e-5)
  np.testing.assert_allclose(run.state.ema['a@slow']['w'], slow, rtol=1e-5)
  ours, theirs = state_bytes(run), state_bytes(go(alone, 7))
  assert {name: ours[name] for name in theirs} == theirs
  assert sorted(run.params(True)) == ['a', 'b']
  assert run.params(True)['a'] is run.state.ema['a'] and run.params('short')['a'] is run.state.ema['a']
  assert run.params('wide')['a'] is run.state.ema['a@wide'] and run.params('wide')['b'] is run.state.ema['b']
  drawn = [float(run.sample(1, 0, averaged=name)['y'][0]) for name in (True, 'short', 'wide', 'slow', False)]
  assert drawn[0] == drawn[1] and len(set(drawn)) == 4
  with pytest.raises(UserError, match=r"no average is called 'long'; they are \['short', 'slow', 'wide'\]"):
    run.params('long')
  with pytest.raises(UserError, match='this run has none with names'):
    alone.params('short')


def test_calls_of_several_steps_and_a_resumed_run_have_the_same_bits(small_run, state_bytes, tmp_path):
  whole = go(several(small_run, SEVERAL, together=True, steps_per_call=3), 9)
  saved = Checkpoints(tmp_path / 'checkpoints')
  first = go(several(small_run, SEVERAL, together=True, steps_per_call=3), 4)
  saved.save(4, first.state, {}, None)
  saved.wait()
  second = several(small_run, SEVERAL, together=True, steps_per_call=3)
  second.restore(saved.restore(second.target, print))
  saved.close()
  assert state_bytes(go(second, 9)) == state_bytes(whole)
  one = state_bytes(go(several(small_run, SEVERAL, together=True), 9))
  assert one == state_bytes(whole)


def test_averages_are_laid_out_like_their_parameters(small_run):
  run = several(small_run, SEVERAL)
  grown = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*leaf.shape[:-1], 2**16), leaf.dtype) if leaf.shape else leaf,
                       run.target)
  mesh = AbstractMesh((1, 4, 1, 1, 1), sharding.MESH_AXES)
  layout = state_lib.shardings(grown, run.experiment.optimizers, mesh, {}, {})
  assert 'fsdp' in str(layout.params['a']['w'].spec)
  assert set(layout.ema) == set(run.state.ema)
  assert all(layout.ema[key]['w'] == layout.params[key[0]]['w'] for key in layout.ema)


@pytest.mark.parametrize(('given', 'message'), [
  ({'x': 0.9, 'y': 0.99}, r"config.ema.a.evaluated must name the average.*one of \['x', 'y'\], got None"),
  ({'x': 0.9, 'y': 0.99, 'evaluated': 'z'}, "got 'z'"),
  ({'x': {'sigma_rel': 0.5}}, r'config.ema.a.x.sigma_rel must be more than 0 and at most 0.2887, got 0.5'),
  ({'x': {'sigma_rel': 0.1, 'decay': 0.9}}, 'must have one of'),
  ({'x': {'sigma_rel': 0.1, 'ramp_up': 0.9}}, r"takes \['sigma_rel'\], got \['ramp_up'\] too"),
  ({'x': {'half_life': 0}}, 'half_life, a number of examples, must be more than 0'),
  ({'x': {'half_life': 9, 'ramp_up': -1}}, 'ramp_up, a share'),
  ({'x': 1.0}, r'config.ema.a.x, the decay of an average, must be a number in \[0, 1\), got 1.0'),
  ({'decay': 1.5}, r'config.ema.a.decay, the decay'),
  ({'x/y': 0.5}, 'a word of letters'),
  ({'x': 0.5, 'evaluated': 'x', 'decay': 0.9}, 'none of'),
])
def test_bad_averages(small_run, given, message):
  with pytest.raises(UserError, match=message):
    several(small_run, {'a': given})


def test_one_average_may_be_given_by_its_options():
  found = averages.parse({'a': {'sigma_rel': 0.1}, 'b': {'only': {'decay': 0.5}}})
  assert found == {'a': averages.Average('a', '', averages.Power(0.1)),
                   'b': averages.Average('b', 'only', averages.Decay(0.5))}
  assert float(averages.Decay(0.5).weight(jnp.int32(100), 4)) == 0.5
