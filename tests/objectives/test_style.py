"""Path lengths, mixed styles, truncation and groups of style-based GANs, and projection, against definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.adversarial.stylegan2 import StyleGan2
from genjax.objectives import projection
from genjax.objectives.base import Context, due
from genjax.objectives.style import PATH, StyleGan, path_lengths, random_pictures
from genjax.training import accumulation
from genjax.types import UserError

MODEL = StyleGan2(size=8, channels=1, latent=4, style=3, mapping=1, width=64, width_max=4, group=2)


def style_gan(**options) -> StyleGan:
  return StyleGan(MODEL.generator(), MODEL.discriminator(), MODEL.latent, layers=MODEL.layers, style=MODEL.style,
                  group=MODEL.group, **options)


def start(gan: StyleGan):
  variables = jax.jit(gan.init)(jax.random.key(0), {})
  return variables.params, Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})


def phase(gan: StyleGan, name: str):
  return next(phase for phase in gan.phases() if phase.name == name)


def same(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


BATCH = {'image': np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)}


def test_path_lengths_are_those_of_the_jacobian():
  """Each row: |J^T y| with the whole Jacobian by forward mode; per layer, as the root of the mean of squares."""
  gan = style_gan()
  params, context = start(gan)
  style = np.random.default_rng(1).standard_normal((3, 4, 3)).astype(np.float32)
  image = lambda style: gan.images(params['generator'], context.mutable['generator'], style)

  @jax.jit
  def run(key):
    jacobian = jax.vmap(jax.jacfwd(lambda one: image(one[None])[0]))(style)
    return path_lengths(image, style, key), jacobian, random_pictures(key, (3, 8, 8, 1))

  found, jacobian, picture = run(jax.random.key(2))
  along = np.einsum('bhwclv,bhwc->blv', np.asarray(jacobian, np.float64), picture)
  np.testing.assert_allclose(found, np.sqrt((along**2).sum(2).mean(1)), rtol=1e-4)
  np.testing.assert_allclose(np.std(picture), 1 / 8, rtol=0.2)


def test_path_penalty_moves_its_mean_alone():
  gan = style_gan(path_weight=3.0, path_every=4, path_decay=0.25, path_shrink=2)
  params, context = start(gan)
  context = dataclasses.replace(context, mutable={**context.mutable, PATH: jnp.float32(0.5)})

  @jax.jit
  def run(key):
    latent_key, fake_key, noise_key = jax.random.split(key, 3)
    style, _ = gan._mixed(params, context, latent_key, None, fake_key, 4)
    image = lambda style: gan.generator.apply(params['generator'], context.mutable['generator'], style, key=fake_key,
                                              part='synthesize')[0]
    return phase(gan, 'path').loss(params, context, BATCH, key), path_lengths(image, style, noise_key)

  output, length = run(jax.random.key(3))
  mean = 0.75 * 0.5 + 0.25 * np.mean(length)
  np.testing.assert_allclose(output.mutable[PATH], mean, rtol=1e-5)
  np.testing.assert_allclose(output.loss, 3.0 * 4 * np.mean((length - mean)**2), rtol=1e-4)
  assert output.weight == 4 and same({**output.mutable, PATH: 0}, {**context.mutable, PATH: 0})


def test_each_microbatch_moves_the_means_in_turn():
  """As each round of accumulation does in NVlabs/stylegan2-ada-pytorch (training/loss.py)."""
  gan = style_gan(path_decay=0.25)
  params, context = start(gan)
  parts = [{'image': BATCH['image'][first::2]} for first in (0, 1)]

  @jax.jit
  def run(key):
    found, moved = {}, context
    for name in ('generator', 'path'):
      _, _, found[name] = accumulation.gradients(phase(gan, name), params, context, BATCH, key, 2,
                                                 lambda group, tree: tree, {})
      moved = context
      for index, part in enumerate(parts):
        output = phase(gan, name).loss(params, moved, part, jax.random.fold_in(key, index))
        moved = dataclasses.replace(moved, mutable=output.mutable)
      found[f'{name} in turn'] = moved.mutable
    return found

  found = run(jax.random.key(5))
  averages = [found[name]['generator']['average'] for name in ('generator', 'generator in turn')]
  np.testing.assert_allclose(*averages, rtol=1e-4)
  np.testing.assert_allclose(found['path'][PATH], found['path in turn'][PATH], rtol=1e-4)
  assert found['path'][PATH] > 0 and np.any(averages[0] != context.mutable['generator']['average'])


def test_styles_are_mixed_from_a_layer_on():
  gan = style_gan(mixing=0.5)
  params, context = start(gan)
  mixed, average = jax.jit(lambda key: gan._mixed(params, context, key, None, key, 64))(jax.random.key(4))
  changes = np.any(np.asarray(mixed)[:, 1:] != np.asarray(mixed)[:, :-1], axis=-1)  # from one layer to the next
  assert changes.sum(axis=1).max() == 1 and changes.any(axis=0).all()
  assert 16 < changes.any(axis=1).sum() < 48
  first = np.asarray(mixed)[:, 0]
  np.testing.assert_allclose(average['average'], 0.005 * first.mean(0), rtol=1e-3)
  never = style_gan(mixing=0.0)
  alone, _ = jax.jit(lambda key: never._mixed(params, context, key, None, key, 64))(jax.random.key(4))
  assert not np.any(np.asarray(alone) != np.asarray(alone)[:, :1])
  np.testing.assert_array_equal(alone[:, 0], first)


def test_truncation():
  params, context = start(style_gan())
  mutable = {**context.mutable['generator'], 'average': jnp.array([1.0, 2.0, 3.0])}
  context = dataclasses.replace(context, mutable={**context.mutable, 'generator': mutable})
  style = np.array([[3.0, 2.0, -1.0]], np.float32)
  gan = style_gan(truncation=0.5, truncation_layers=3)
  np.testing.assert_allclose(gan.truncated(mutable, style)[0], [[2.0, 2.0, 1.0]] * 3 + [[3.0, 2.0, -1.0]])
  assert gan.code == (4, 3)
  for layers in (0, 4):
    gan = style_gan(truncation=0.5, truncation_layers=layers)
    np.testing.assert_allclose(gan.truncated(mutable, style), [[2.0, 2.0, 1.0]])
    assert gan.code == style_gan().code == (3,)
  keys = jax.random.split(jax.random.key(0), 3)
  whole, none = jax.jit(lambda keys: [style_gan(truncation=share).sample(params, context, keys, {})['image']
                                      for share in (1.0, 0.0)])(keys)
  assert whole.shape == (3, 8, 8, 1) and whole.dtype == np.uint8
  assert np.any(whole[0] != whole[1]) and not np.any(none[0] != none[1])
  with pytest.raises(UserError, match='this generator keeps none'):
    style_gan(truncation=0.7, averaged=False)


def test_phases_and_what_they_change():
  gan = style_gan(r1_gamma=1.0, path_every=8)
  params, context = start(gan)
  assert [due(gan.phases(), step) for step in (0, 8, 1)] == [
    ('discriminator', 'r1', 'generator', 'path'), ('discriminator', 'generator', 'path'),
    ('discriminator', 'generator')]
  assert 'path' not in [phase.name for phase in style_gan(path_weight=0.0).phases()]
  assert PATH not in jax.eval_shape(style_gan(path_weight=0.0).init, jax.random.key(0), {}).mutable
  run = jax.jit(lambda key: [phase(gan, name).loss(params, context, BATCH, key).mutable
                             for name in ('discriminator', 'generator')])
  judged, made = run(jax.random.key(1))
  assert same(judged, context.mutable)
  assert not same(made['generator']['average'], context.mutable['generator']['average'])
  assert same({**made['generator'], 'average': 0}, {**context.mutable['generator'], 'average': 0})


def test_groups_with_padding_do_not_count():
  gan = style_gan()
  params, context = start(gan)
  mask = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
  values = jax.jit(gan.evaluate)(params, context, dict(BATCH, mask=mask), jax.random.key(0))
  np.testing.assert_array_equal(values['weight'], [1, 1, 0, 0, 1, 1, 0, 0])  # row i is in group i modulo 4


@pytest.mark.parametrize(('options', 'message'), [
  (dict(mixing=1.5), 'mixing'), (dict(path_every=0), 'path_every'), (dict(path_weight=-1.0), 'path_weight'),
  (dict(truncation=0.5, truncation_layers=5), 'at most 4, the number of styles'), (dict(kind='point'), 'make images'),
  (dict(truncation_layers=2), 'truncation_layers=2 has no effect with truncation=1; set another truncation'),
  (dict(path_weight=0.0, path_decay=0.1), 'path_decay=0.1 has no effect with path_weight=0; .* at 0.01'),
  (dict(truncation=float('nan')), 'truncation must be finite')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    style_gan(**options)


def test_projection_finds_the_style_of_a_picture():
  matrix = np.random.default_rng(2).standard_normal((3, 8 * 8)).astype(np.float32) / 8
  image = lambda style: (style @ matrix).reshape(-1, 8, 8, 1)
  wanted = np.array([[0.5, -1.0, 0.3], [0.0, 0.7, 1.1]], np.float32)
  find = jax.jit(lambda target: projection.project(image, target, jnp.zeros(3), jnp.float32(1.0), jax.random.key(0),
                                                   150))
  np.testing.assert_allclose(find(image(wanted)), wanted, atol=0.02)
  rates = jax.jit(lambda: projection.rate(jnp.array([0.0, 0.025, 0.05, 0.5, 0.75, 0.875, 1.0])))()
  np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.1, 0.1, 0.05, 0], atol=1e-6)
  a = np.zeros((1, 8, 8, 1), np.float32)
  np.testing.assert_allclose(jax.jit(projection.distance)(a + 1.0, a), [2.0])  # at 8 and at 4 pixels
