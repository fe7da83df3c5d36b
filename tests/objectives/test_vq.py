"""The objective of quantized autoencoders: errors, what is counted, codes and their numbers, and finite scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.nn.quantizers import FiniteScalarQuantizer, VectorQuantizer
from genjax.objectives.base import Context
from genjax.objectives.pixels import as_image, centred
from genjax.objectives.vq import NO_NOISE, VqAutoencoder
from genjax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 1)).astype(np.uint8)
# Codes of one number, which is a grey level
QUANTIZER = VectorQuantizer(5, 1, commitment=0.5)
LEVELS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)[:, None]


def network(function):
  """A network without parameters."""
  return Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (function(x), mutable))


def objective(quantizer=QUANTIZER, **options):
  same = network(lambda x: x)
  return VqAutoencoder(same, same, quantizer, (2, 2, 1), **options)


def started(made):
  variables = made.init(jax.random.key(0), {})
  mutable = dict(variables.mutable)
  if 'embedding' in mutable['codebook']:
    mutable['codebook'] = dict(mutable['codebook'], embedding=jnp.asarray(LEVELS))
  return variables.params, Context(step=jnp.int32(0), mutable=mutable, ema={}, frozen={})


def quantized(image):
  x = centred(image)
  return np.asarray(LEVELS[np.abs(np.asarray(x) - LEVELS[:, 0]).argmin(-1)])


def test_loss_is_the_error_over_the_variance_and_the_commitment():
  made = objective(variance=0.06)
  params, context = started(made)
  output = jax.jit(made.loss)(params, context, {'image': IMAGE}, jax.random.key(0))
  square = float(np.square(quantized(IMAGE) - centred(IMAGE)).mean())
  assert float(output.metrics['error']) == pytest.approx(square / (4 * 0.06), rel=1e-5)
  assert float(output.loss) == pytest.approx(square / 0.24 + 0.5 * square, rel=1e-5)
  assert {'perplexity', 'used', 'quantization'} <= set(output.metrics)
  assert float(output.mutable['codebook']['weight']) == pytest.approx(0.01)
  np.testing.assert_allclose(output.mutable['moments']['mean'], np.asarray(centred(IMAGE)).mean(), rtol=1e-5)


def test_errors():
  x, out = np.array([0.3, -0.8]).reshape(1, 1, 2, 1), np.array([0.1, 0.4]).reshape(1, 1, 2, 1)
  assert float(objective(reconstruction='l1').error(out, x)[0]) == pytest.approx(0.7)
  assert float(objective().error(out, x)[0]) == pytest.approx(0.74)
  assert float(objective(variance=0.5).error(out, x, jnp.ones(1))[0]) == pytest.approx(0.37 + 1)


def test_evaluation_leaves_out_padding():
  made = objective(variance=0.06)
  params, context = started(made)
  values = jax.jit(made.evaluate)(params, context, {'image': IMAGE, 'mask': np.array([1, 1, 1, 1, 0, 0])},
                                  jax.random.key(0))
  assert all(value.shape == (6,) for value in values.values())
  counts = np.bincount(np.abs(np.asarray(centred(IMAGE[:4])) - LEVELS[:, 0]).argmin(-1).ravel(), minlength=5) / 16
  entropy = -sum(share * np.log(share) for share in counts if share)
  np.testing.assert_allclose(values['batch_perplexity'], np.exp(entropy), rtol=1e-5)
  np.testing.assert_allclose(values['relative_error'], values['mse'] / 0.24, rtol=1e-5)
  np.testing.assert_array_equal(values['batch_used'], (counts > 0).sum())
  assert 'relative_error' not in objective().evaluate(params, context, {'image': IMAGE}, jax.random.key(0))


@pytest.mark.parametrize('quantizer', [
  QUANTIZER, FiniteScalarQuantizer((7,)), VectorQuantizer(4, 1, learned='gradient')])
def test_images_and_numbers_of_codes(quantizer):
  made = objective(quantizer)
  params, context = started(made)
  index = made.encode_indices(params, context.mutable, IMAGE)
  assert index.shape == (6, 2, 2) and index.dtype == jnp.int32 and 0 <= index.min() <= index.max() < quantizer.size
  image = made.decode_indices(params, context.mutable, index)
  np.testing.assert_array_equal(image, made.reconstruct(params, context, IMAGE))
  z, log_variance = made.encode(params, context.mutable, IMAGE)
  np.testing.assert_array_equal(z, centred(IMAGE))  # not quantized yet
  np.testing.assert_array_equal(log_variance, NO_NOISE)
  np.testing.assert_array_equal(made.decode(params, context.mutable, z), image)
  if quantizer is QUANTIZER:
    np.testing.assert_array_equal(image, as_image(quantized(IMAGE)))


def test_codes_are_counted_over_batches_without_padding():
  made = objective()
  params, context = started(made)
  index = made.encode_indices(params, context.mutable, IMAGE)
  total = sum(made.counts(params, context, {'image': IMAGE[rows], 'mask': np.asarray(mask)})
              for rows, mask in (([0, 1, 2, 3], [1, 1, 1, 1]), ([4, 5, 5, 5], [1, 1, 0, 0])))
  np.testing.assert_array_equal(total, np.bincount(np.asarray(index).ravel(), minlength=5))


def test_samples_are_codes_as_often_as_they_were_used():
  made = objective()
  params, context = started(made)
  codebook = dict(context.mutable['codebook'], size=jnp.array([0.0, 30.0, 0.0, 10.0, 0.0]))
  context = context.replace(mutable={**context.mutable, 'codebook': codebook})
  image = made.sample(params, context, jax.random.split(jax.random.key(0), 500), {})['image']
  assert image.shape == (500, 2, 2, 1) and set(np.unique(image)) == {64, 191}
  assert float((image == 64).mean()) == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(('options', 'match'), [
  (dict(reconstruction='laplace'), r"reconstruction must be one of .*got 'laplace'"), (dict(variance=-1.0), 'variance'),
  (dict(normalisation='none'), 'normalisation'), (dict(quantizer=FiniteScalarQuantizer((5, 5))), 'codes have 2')])
def test_bad_options(options, match):
  with pytest.raises(UserError, match=match):
    objective(**options)
