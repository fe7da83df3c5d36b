"""StyleGAN2: published parameter counts, shapes, noise, the mean style, classes, groups, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.adversarial.stylegan2 import AXES, VARIANTS, StyleGan2
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = dict(size=8, channels=2, latent=6, style=8, mapping=2, width=64, width_max=8, group=2)


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


@pytest.mark.parametrize(('name', 'generator', 'discriminator'), [
  ('auto_32', 19_947_539, 21_507_073), ('auto_256', 23_191_522, 24_001_089),
  ('cifar_conditional', 20_215_315, 23_089_664)])  # docs/public.md has all, which a slow test holds
def test_published_parameter_counts(name, generator, discriminator):
  model = StyleGan2(**VARIANTS[f'stylegan2_{name}'])
  assert count(shapes(model.generator())[0]) == generator
  assert count(shapes(model.discriminator())[0]) == discriminator
  assert model.layers == 2 * int(np.log2(model.size)) - 2


@pytest.mark.parametrize('options', [dict(), dict(num_classes=3, critic='original', dtype='bfloat16')])
def test_shapes_and_sharding_rules(options):
  model = StyleGan2(**{**SMALL, **options})
  label_B = None if model.num_classes is None else jnp.arange(4) % 3

  def run(key):
    generator, discriminator = model.generator(), model.discriminator()
    image, _ = generator.apply(*generator.init(key), jnp.ones((4, 6)), label_B, key=key)
    told = None if label_B is None else label_B[:, None]
    return image, discriminator.apply(*discriminator.init(key), image, told, key=key)[0]

  image, logit = jax.eval_shape(run, jax.random.key(0))
  assert image.shape == (4, 8, 8, 2) and logit.shape == (4,) and image.dtype == logit.dtype == jnp.float32
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  for group in ('generator', 'discriminator'):
    sharding.param_shardings(shapes(getattr(model, group)())[0], mesh, AXES[group])


def test_parts_noise_and_the_mean_style():
  network = StyleGan2(**SMALL, average=0.9).generator()
  latent = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)

  @jax.jit
  def run(key):
    params, mutable = network.init(key)
    params['layers'] = {name: {**layer, 'strength': jnp.ones(())} for name, layer in params['layers'].items()}
    style, _ = network.apply(params, mutable, latent, part='map')
    many = jnp.broadcast_to(style[:, None], (4, 4, 8))
    other = many.at[0, 2:].set(0.0)  # of the first row, the styles of the last side
    quiet = [network.apply(params, mutable, latent)[0], network.apply(params, mutable, other, part='synthesize')[0]]
    return style, quiet, [network.apply(params, mutable, latent, key=key) for key in (key, jax.random.key(2))], mutable

  style, (quiet, other), noisy, mutable = run(jax.random.key(0))
  np.testing.assert_allclose(quiet[1:], other[1:], rtol=1e-4, atol=1e-4)  # rows do not change each other
  assert np.abs(noisy[0][0] - noisy[1][0]).max() > 1e-3 and np.abs(other[0] - quiet[0]).max() > 1e-3
  np.testing.assert_allclose(noisy[0][1]['average'], 0.1 * np.mean(style, axis=0), rtol=1e-4, atol=1e-6)
  assert not np.any(mutable['average'])
  same = jax.tree.map(np.array_equal, {**mutable, 'average': 0}, {**noisy[0][1], 'average': 0})
  assert all(jax.tree.leaves(same))  # noise pictures stay as they are


def test_classes_reach_both_networks_and_groups_share_a_deviation():
  model = StyleGan2(**SMALL, num_classes=3)
  generator, discriminator = model.generator(), model.discriminator()
  label, latent = np.arange(4) % 3, np.ones((4, 6), np.float32)
  image = np.random.default_rng(0).standard_normal((4, 8, 8, 2)).astype(np.float32)

  @jax.jit
  def run(key):
    critic = discriminator.init(key)
    judge = lambda image, label: discriminator.apply(*critic, image, label[:, None])[0]
    return (generator.apply(*generator.init(key), latent, label)[0], judge(image, label), judge(image, (label + 1) % 3),
            judge(jnp.asarray(image).at[2].set(0.0), label))

  made, logit, other_label, other_row = run(jax.random.key(0))
  assert np.abs(made[0] - made[1]).max() > 1e-3 and np.abs(made[0] - made[3]).max() < 1e-4
  assert np.abs(logit - other_label).min() > 1e-5
  moved = np.abs(logit - other_row) > 1e-6
  np.testing.assert_array_equal(moved, [True, False, True, False])  # row i is in group i modulo 2


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=48), 'a power of two and at least 8, got 48'), (dict(size=4), 'at least 8, got 4'),
  (dict(critic='patch'), 'critic must be one of'), (dict(width=4), 'leaves no channel at 8 pixels'),
  (dict(average=1.0), 'average'), (dict(group=0), 'group must be at least 1'), (dict(dtype='int8'), 'dtype'),
  (dict(mapping_rate=0.0), 'mapping_rate')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    StyleGan2(**{**SMALL, **options})
