"""Quantizers: the nearest code, averages against Sonnet's formulas, revival, estimators, and finite scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import quantizers
from genjax.nn.quantizers import FiniteScalarQuantizer, VectorQuantizer
from genjax.types import UserError

RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(4, 3, 5, 2)).astype(np.float32)


def started(quantizer, seed=0):
  return jax.jit(quantizer.init)(jax.random.key(seed))


def trained(quantizer, batches, params=None, mutable=None):
  """The mutable variables after some batches."""
  first = started(quantizer)
  params, mutable = (params or first[0]), (mutable or first[1])
  step = jax.jit(lambda mutable, z, key: quantizer.apply(params, mutable, z, key=key)[1])
  for index, z in enumerate(batches):
    mutable = step(mutable, z, jax.random.key(index))
  return params, mutable


@pytest.mark.parametrize('learned', ['averages', 'gradient'])
@pytest.mark.parametrize('block', [3, 4096])
def test_the_nearest_code_is_taken(learned, block, monkeypatch):
  monkeypatch.setattr(quantizers, '_BLOCK', block)
  quantizer = VectorQuantizer(7, 2, learned=learned)
  params, mutable = started(quantizer)
  codes = np.asarray(quantizer.codebook(params, mutable))
  found, same = jax.jit(quantizer.apply)(params, mutable, Z)
  expected = np.square(Z[..., None, :] - codes).sum(-1).argmin(-1)
  np.testing.assert_array_equal(found.index_X, expected)
  np.testing.assert_array_equal(found.z_XD, codes[expected])  # the codes themselves, bit for bit
  np.testing.assert_array_equal(quantizer.lookup(params, mutable, found.index_X), codes[expected])
  assert found.index_X.dtype == jnp.int32
  assert all(a is b or np.array_equal(a, b) for a, b in zip(jax.tree.leaves(mutable), jax.tree.leaves(same)))
  counts = np.bincount(expected.ravel(), minlength=7) / expected.size
  entropy = -sum(share * np.log(share) for share in counts if share)
  assert float(found.metrics['perplexity']) == pytest.approx(np.exp(entropy), rel=1e-5)
  assert float(found.metrics['used']) == (counts > 0).sum()


def test_of_equal_codes_the_first_is_taken(monkeypatch):
  monkeypatch.setattr(quantizers, '_BLOCK', 2)
  codes = np.array([[1.0, 0], [0, 1], [0, 1], [1, 0]], np.float32)
  assert quantizers.nearest(codes, codes).tolist() == [0, 1, 1, 0]


def test_loss_has_both_terms_where_the_codebook_is_learned_by_gradient():
  losses = {}
  for learned, weight in (('averages', 9.0), ('gradient', 2.0)):
    quantizer = VectorQuantizer(7, 2, learned=learned, commitment=0.25, codebook_weight=weight)
    found, _ = quantizer.apply(*started(quantizer), Z)
    losses[learned] = float(found.loss) / float(np.square(Z - found.z_XD).mean())
  assert losses == {'averages': pytest.approx(0.25, rel=1e-5), 'gradient': pytest.approx(2.25, rel=1e-5)}


def test_codebook_and_encoder_have_their_own_gradients():
  quantizer = VectorQuantizer(7, 2, learned='gradient', commitment=0.25)
  params, mutable = started(quantizer)
  loss = lambda params, z: quantizer.apply(params, mutable, z)[0].loss
  code_slope, z_slope = jax.jit(jax.grad(loss, (0, 1)))(params, Z)
  found, _ = quantizer.apply(params, mutable, Z)
  difference = np.asarray(Z - found.z_XD)
  np.testing.assert_allclose(z_slope, 0.25 * 2 * difference / Z.size, rtol=1e-4, atol=1e-7)
  expected = np.zeros((7, 2))
  np.add.at(expected, np.asarray(found.index_X).ravel(), -2 * difference.reshape(-1, 2) / Z.size)
  np.testing.assert_allclose(code_slope['embedding'], expected, rtol=1e-4, atol=1e-7)


def test_averages_are_those_of_sonnet():
  """Averages of counts and sums without the bias of their start at 0, and Laplace smoothing of the counts."""
  quantizer = VectorQuantizer(5, 2, decay=0.9)
  _, mutable = started(quantizer)
  codes, size, total = np.asarray(mutable['embedding'], np.float64), np.zeros(5), np.zeros((5, 2))
  batches = [RANDOM.normal(size=(12, 2)).astype(np.float32) for _ in range(4)]
  for step, z in enumerate(batches, 1):
    hot = np.eye(5)[np.square(z[:, None] - codes).sum(-1).argmin(-1)]
    size, total = 0.9 * size + 0.1 * hot.sum(0), 0.9 * total + 0.1 * hot.T @ z
    bias = 1 - 0.9 ** step
    smooth = (size / bias + 1e-5) / (12 + 5e-5) * 12
    codes = total / bias / smooth[:, None]
  _, mutable = trained(quantizer, batches)
  np.testing.assert_allclose(mutable['embedding'], codes, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(quantizer.frequencies(mutable), size / size.sum(), rtol=1e-5)


@pytest.mark.parametrize('learned', ['averages', 'gradient'])
def test_dead_codes_are_revived_from_the_batch(learned):
  """Two clusters and eight codes that all begin far away."""
  batches = [np.concatenate([RANDOM.normal(5, 0.1, (32, 2)), RANDOM.normal(-5, 0.1, (32, 2))]).astype(np.float32)
             for _ in range(30)]
  used = {}
  for revive in (0.0, 1.0):
    quantizer = VectorQuantizer(8, 2, learned=learned, decay=0.8, revive=revive, spread=0.01)
    params, mutable = trained(quantizer, batches)
    used[revive] = int(quantizer.apply(params, mutable, batches[0])[0].metrics['used'])
    if revive:
      codes = np.asarray(quantizer.codebook(params, mutable))
      assert (np.abs(np.abs(codes) - 5) < 1).all()  # every code lies in a cluster
  assert used[0.0] <= 2 and used[1.0] >= 6


def test_revival_depends_on_its_key_alone():
  quantizer = VectorQuantizer(8, 2, revive=7.0)  # most have less than the mean, 7.5
  params, mutable = started(quantizer)
  apply = jax.jit(quantizer.apply)
  runs = [jax.device_get(apply(params, mutable, Z, key=jax.random.key(key))[1]) for key in (3, 3, 4)]
  assert all(a.tobytes() == b.tobytes() for a, b in zip(*map(jax.tree.leaves, runs[:2])))
  assert not np.array_equal(runs[0]['embedding'], runs[2]['embedding'])


def test_a_threshold_that_no_code_reaches_is_an_error():
  quantizer = VectorQuantizer(16, 2, revive=4.0)
  variables = started(quantizer)
  with pytest.raises(UserError, match=r'revive must be below .* 60 vectors of a batch over 16 codes = 3.75, got 4.0'):
    quantizer.apply(*variables, Z, key=jax.random.key(0))
  assert quantizer.apply(*variables, Z[:1])[0].index_X.shape == (1, 3, 5)  # nothing is revived in inference


def test_straight_through_is_the_gradient_of_the_codes():
  quantizer = VectorQuantizer(7, 2)
  variables = started(quantizer)
  slope = RANDOM.normal(size=Z.shape).astype(np.float32)
  found = jax.jit(jax.grad(lambda z: jnp.sum(quantizer.apply(*variables, z)[0].z_XD * slope)))(Z)
  np.testing.assert_array_equal(found, slope)


def test_rotation_turns_and_scales_the_gradient():
  """Against the matrix of the rotation from a vector to its code, in the plane: the angle between both."""
  quantizer = VectorQuantizer(7, 2, estimator='rotation')
  variables = started(quantizer)
  code = np.asarray(quantizer.apply(*variables, Z)[0].z_XD)
  jacobian = jax.jit(jax.vmap(jax.jacobian(lambda z: quantizers.rotated(z, code_of(z)))))
  flat, codes = Z.reshape(-1, 2), code.reshape(-1, 2)
  code_of = lambda z: jnp.asarray(codes)[jnp.argmin(jnp.sum(jnp.square(jnp.asarray(flat) - z), -1))]
  angle = np.arctan2(codes[:, 1], codes[:, 0]) - np.arctan2(flat[:, 1], flat[:, 0])
  scale = np.linalg.norm(codes, axis=-1) / np.linalg.norm(flat, axis=-1)
  expected = scale[:, None, None] * np.stack(
    [np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)
  np.testing.assert_allclose(jacobian(flat), expected, rtol=2e-3, atol=1e-4)
  np.testing.assert_array_equal(quantizers.rotated(jnp.asarray(Z), jnp.asarray(code)), code)


@pytest.mark.parametrize('z', [[0.0, 0.0], [1.0, 2.0], [-1.0, -2.0]])
def test_rotation_is_finite_at_the_origin_and_at_opposites(z):
  slope = jax.grad(lambda z: jnp.sum(quantizers.rotated(z, jnp.array([1.0, 2.0]))))(jnp.array(z))
  assert np.isfinite(slope).all()


@pytest.mark.parametrize('levels', [(8, 5, 5, 5), (2, 3), (4,), (7, 2, 6)])
def test_finite_scalars_number_their_codes_one_to_one(levels):
  quantizer = FiniteScalarQuantizer(levels)
  index = np.arange(quantizer.size)
  codes = jax.jit(lambda index: quantizer.lookup({}, {}, index))(index)
  np.testing.assert_array_equal(jax.jit(quantizer.index)(codes), index)
  assert len(np.unique(np.asarray(codes), axis=0)) == quantizer.size == np.prod(levels)
  z = 4 * RANDOM.normal(size=(20_000, len(levels))).astype(np.float32)
  found, _ = jax.jit(lambda z: quantizer.apply({}, {}, z))(z)
  np.testing.assert_array_equal(codes[found.index_X], found.z_XD)
  if quantizer.size < 100:
    assert len(np.unique(found.index_X)) == quantizer.size  # every code is reached
  for axis, level in enumerate(levels):
    assert set(np.unique(found.z_XD[:, axis])) == {
      np.float32((digit - level // 2) / np.float32(level // 2)) for digit in range(level)}


def test_finite_scalars_pass_the_gradient_of_the_bound():
  quantizer = FiniteScalarQuantizer((5,))
  slope = jax.vmap(jax.grad(lambda z: quantizer.apply({}, {}, z)[0].z_XD[0]))(jnp.array([[0.0], [0.3], [4.0]]))
  np.testing.assert_allclose(slope[:, 0], 1.001 * (1 - np.tanh([0.0, 0.3, 4.0]) ** 2), rtol=1e-3)


def test_quantizers_stack():
  """A second quantizer of what the first leaves over: the error falls, and both have losses and numbers."""
  first, second = VectorQuantizer(16, 2, learned='gradient'), VectorQuantizer(16, 2, learned='gradient', spread=0.3)
  one, _ = first.apply(*started(first), Z)
  two, _ = second.apply(*started(second, 1), Z - one.z_XD)
  assert float(np.square(Z - one.z_XD - two.z_XD).mean()) < float(np.square(Z - one.z_XD).mean())


@pytest.mark.parametrize(('kind', 'options', 'match'), [
  (VectorQuantizer, dict(size=0, width=2), 'size'), (VectorQuantizer, dict(size=4, width=2, learned='x'), 'learned'),
  (VectorQuantizer, dict(size=4, width=2, estimator='x'), 'estimator must be one of'),
  (VectorQuantizer, dict(size=4, width=2, decay=1.0), 'decay'), (VectorQuantizer, dict(size=4, width=2, revive=-1),
                                                                 'revive'),
  (VectorQuantizer, dict(size=2**25, width=2), 'size'),
  (FiniteScalarQuantizer, dict(levels=(1, 5)), 'levels must be'), (FiniteScalarQuantizer, dict(levels=()), 'levels'),
  (FiniteScalarQuantizer, dict(levels=(64,) * 5), 'product is at most')])
def test_bad_options_are_user_errors(kind, options, match):
  with pytest.raises(UserError, match=match):
    kind(**options)


