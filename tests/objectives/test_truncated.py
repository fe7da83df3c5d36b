"""Truncated samples: batch statistics against their definition, latents within the bound, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.adversarial.biggan import BigGan
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.truncated import TruncatedGan
from genjax.types import UserError, named_leaves

MODEL = BigGan(size=8, channels=1, latent=4, generator_width=4, discriminator_width=4, generator_multiples=(1, 1),
               discriminator_multiples=(1, 1), halvings=1, num_classes=3, momentum=0.7)
NETWORK = MODEL.generator()


def gan(network=NETWORK, **options) -> TruncatedGan:
  return TruncatedGan(**{**dict(generator=network, discriminator=MODEL.discriminator(), latent=4, num_classes=3,
                                momentum=0.7, standing=3, standing_batch=5), **options})


def test_standing_statistics_are_means_over_passes_in_training_mode():
  """With a momentum of 0.7 an average that was a moves to 0.7 a + 0.3 b, which gives b, the statistic of a batch."""
  seen = []

  def record(params, mutable, latent, label=None, key=None):
    image, after = NETWORK.apply(params, mutable, latent, label, key=key)
    if key is not None:
      jax.debug.callback(lambda *call: seen.append(call), latent, label)
    return image, after

  @jax.jit
  def run(key):
    params, mutable = NETWORK.init(key)
    mutable = jax.tree.map(lambda leaf: leaf + 0.5, mutable)
    return params, mutable, gan(Network(NETWORK.init, record), truncation=0.8).standing_statistics(params, mutable)

  params, mutable, found = jax.device_get(run(jax.random.key(0)))
  jax.effects_barrier()
  assert len(seen) == 3 and all(abs(latent).max() <= 0.8 and latent.shape == (5, 4) for latent, _ in seen)
  assert len({np.asarray(latent).tobytes() for latent, _ in seen}) == 3
  train = jax.jit(lambda *inputs: NETWORK.apply(*inputs, key=jax.random.key(9))[1])
  batches = [named_leaves(jax.device_get(train(params, mutable, *call))) for call in seen]
  before, found = named_leaves(mutable), named_leaves(found)
  for name, leaf in found.items():
    if name.endswith(('mean', 'var')):
      expected = np.mean([(batch[name] - 0.7 * before[name]) / 0.3 for batch in batches], axis=0)
      np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    else:
      np.testing.assert_array_equal(leaf, before[name], err_msg=name)
  assert any(name.endswith('spectral/u') for name in found)


def test_samples_have_truncated_latents_and_do_not_depend_on_each_other():
  latents = Network(lambda key: ({}, {}), lambda params, mutable, latent, label=None, key=None:
                    (latent[:, None, None, :1] / 4 + 0 * label[:, None, None, None], mutable))
  context = Context(step=jnp.int32(0), mutable={'generator': {}}, ema={}, frozen={})

  def sample(truncation, rows):
    objective = gan(latents, truncation=truncation)
    draw = jax.jit(lambda keys, label: objective.sample({'generator': {}}, context, keys, {'label': label})['image'])
    return np.asarray(draw(jax.random.split(jax.random.key(1), 400)[:rows], np.zeros(rows, np.int32))).ravel()

  cut, whole = (sample(truncation, 400) / 127.5 * 4 - 4 for truncation in (0.5, 0.0))
  assert abs(cut).max() <= 0.52 and abs(cut).max() > 0.45 and abs(whole).max() > 2
  # The deviation of a normal distribution that is cut off at 1/2
  assert cut.std() == pytest.approx(0.2839, rel=0.1) and whole.std() == pytest.approx(1.0, rel=0.1)
  np.testing.assert_array_equal(sample(0.5, 3), sample(0.5, 400)[:3])


@pytest.mark.parametrize(('options', 'message'), [
  (dict(truncation=0.5, standing=0), 'needs batch statistics of truncated latents'),
  (dict(truncation=0.5, distribution='uniform'), 'cuts off a normal latent'), (dict(truncation=-1.0), 'truncation'),
  (dict(standing=-1), 'standing'), (dict(standing_batch=1), 'standing_batch')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(gan(), **options)
