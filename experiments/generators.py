"""Generators of pictures as kinds, see `genjax.objectives.kinds.Generator`: codes, ways between them, projection."""

from typing import Any

import jax
import jax.numpy as jnp

from genjax.config import Config
from genjax.objectives import kinds, projection
from genjax.objectives.gan import Gan
from genjax.objectives.pixels import centred
from genjax.objectives.style import StyleGan
from genjax.types import Array, Tree, UserError

STEPS = 500  # of a projection
DRAWS = 2_048  # styles whose mean and deviation a projection begins with
_SEED = 17


def of_images(config: Config, objective: Any) -> kinds.Generator:
  """The codes of a GAN of pictures: styles of a style-based generator, latents of another one.

  Raises:
    UserError: the samples are points, or classes enter beside the latent.
  """
  assert isinstance(objective, Gan)
  if objective.kind != 'image':
    raise UserError('ways between codes are shown as pictures, and this run makes points')
  shape: Any = tuple(config.data.shape)
  if isinstance(objective, StyleGan):
    return _of_styles(shape, objective)
  if objective.num_classes is not None:
    raise UserError('this generator reads classes beside its latent, so that a latent alone is no code of a picture; '
                    'an unconditional one or a style-based one has such codes')

  def decode(group: Tree, latent_BZ: Array) -> Array:
    generator, mutable = group['params']['generator'], group['mutable']['generator']
    return objective._columns(objective.generator.apply(generator, mutable, latent_BZ, None)[0])['image']

  return kinds.Generator(shape, (objective.latent,), lambda group, keys, rows: _latents(objective, keys), decode,
                         path='sphere' if objective.distribution == 'normal' else 'line')


def _of_styles(shape: Any, objective: StyleGan) -> kinds.Generator:
  def styles(group: Tree, keys: Array, rows_N: Array) -> Array:
    generator, mutable = group['params']['generator'], group['mutable']['generator']
    label_N = None if objective.num_classes is None else rows_N % objective.num_classes
    return objective.styles(generator, mutable, _latents(objective, keys), label_N)

  def image(group: Tree, style_BLW: Array) -> Array:
    return objective.images(group['params']['generator'], group['mutable']['generator'], style_BLW)

  def decode(group: Tree, style_BW: Array) -> Array:
    style_BLW = objective.truncated(group['mutable']['generator'], style_BW)
    return objective._columns(image(group, style_BLW))['image']

  def project(group: Tree, image_BHWC: Array) -> Array:
    keys = jax.random.split(jax.random.key(_SEED), DRAWS)
    style_NW = styles(group, keys, jnp.arange(DRAWS))
    mean_W = jnp.mean(style_NW, axis=0)
    deviation = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(style_NW - mean_W), axis=-1)))
    whole = lambda style_BW: image(group, objective.everywhere(style_BW))
    return projection.project(whole, centred(image_BHWC), mean_W, deviation, jax.random.key(_SEED), STEPS)

  return kinds.Generator(shape, (objective.style,), styles, decode, project)


def _latents(objective: Gan, keys: Array) -> Array:
  return jax.vmap(lambda key: objective._latent(key, ()))(keys)
