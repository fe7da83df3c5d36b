"""StarGAN v2: published parameter counts, styles by domain, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.adversarial.stargan2 import VARIANTS, StarGan2
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = StarGan2(size=16, channels=2, domains=3, style=4, latent=5, width=4, widest=8, smallest=4, mapping_width=6)


@pytest.mark.parametrize(('name', 'parameters'), [
  ('mapping', 3_259_072), ('discriminator', 20_852_803),
  pytest.param('generator', 33_892_995, marks=pytest.mark.slow),
  pytest.param('style_encoder', 20_949_760, marks=pytest.mark.slow)])
def test_parameter_counts_of_the_published_model_of_animals(name, parameters):
  network = getattr(StarGan2(**VARIANTS['stargan2_afhq']), name)()
  assert count(jax.eval_shape(network.init, jax.random.key(0))[0]) == parameters


def test_styles_are_those_of_the_domain():
  """Another domain changes the row's own styles, logit and picture, and no other row's."""
  networks = [getattr(SMALL, name)() for name in ('mapping', 'style_encoder', 'discriminator', 'generator')]

  @jax.jit
  def run(latent, image, domain):
    params = [network.init(jax.random.key(seed))[0] for seed, network in enumerate(networks)]
    results = [network.apply(tree, {}, inputs, domain)[0]
               for network, tree, inputs in zip(networks, params, (latent, image, image))]
    return *results, networks[3].apply(params[3], {}, image, results[0])[0]

  random = np.random.default_rng(0)
  latent, image = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (3, 16, 16, 2)))
  first, other = (run(latent, image, np.array(domain)) for domain in ([0, 1, 2], [0, 2, 2]))
  assert [result.shape for result in first] == [(3, 4), (3, 4), (3,), (3, 16, 16, 2)]
  assert all(result.dtype == jnp.float32 for result in first)
  for before, after in zip(first, other):
    moved = np.abs(np.asarray(before) - after).reshape(3, -1).max(1)
    assert moved[1] > 1e-4 and moved[0] == moved[2] == 0


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=48), 'size must be a power of two, got 48'), (dict(size=16), 'at least twice'),
  (dict(domains=0), 'domains')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    StarGan2(**options)
