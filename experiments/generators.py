"""Generators of pictures as kinds, see `genjax.objectives.kinds.Generator`: codes, ways between them, projection."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from genjax.config import Config
from genjax.objectives import kinds, projection
from genjax.objectives.gan import Gan
from genjax.objectives.pixels import centred
from genjax.types import Array, Tree, UserError

STEPS = 500  # of a projection
DRAWS = 2_048  # styles whose mean and deviation a projection begins with
_SEED = 17


def of_images(config: Config, objective: Any) -> kinds.Generator:
  """The codes of a GAN of pictures: styles of a style-based generator, latents of another one.

  Raises:
    UserError: the samples are points, or classes enter beside the code.
  """
  assert isinstance(objective, Gan)
  if objective.kind != 'image':
    raise UserError('ways between codes are shown as pictures, and this run makes points')
  if objective.num_classes is not None and not objective.styled:
    raise UserError('this generator reads classes beside its latent, so that a latent alone is no code of a picture; '
                    'an unconditional one or a style-based one has such codes')

  def draw(group: Tree, keys: Array, rows_N: Array, objective: Gan = objective) -> Array:
    label_N = None if objective.num_classes is None else rows_N % objective.num_classes
    return objective.codes(*_generator(group), keys, label_N)

  def decode(group: Tree, code_NX: Array) -> Array:
    return objective.columns(objective.drawn(*_generator(group), code_NX, None))['image']

  def project(group: Tree, image_NHWC: Array) -> Array:
    # Truncation is of random styles; any picture may be far from the mean.
    changes: Any = dict(truncation=1.0, truncation_layers=0)  # styled ones have both
    whole: Any = dataclasses.replace(objective, **changes)
    style_NW = draw(group, jax.random.split(jax.random.key(_SEED), DRAWS), jnp.arange(DRAWS), whole)
    mean_W = jnp.mean(style_NW, axis=0)
    deviation = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(style_NW - mean_W), axis=-1)))
    image = lambda style_NW: whole.drawn(*_generator(group), style_NW, None)
    style_NW = projection.project(image, centred(image_NHWC), mean_W, deviation, jax.random.key(_SEED), STEPS)
    return style_NW if objective.code == style_NW.shape[1:] else whole.everywhere(style_NW)

  shape: Any = tuple(config.data.shape)
  straight = objective.styled or objective.distribution != 'normal'
  return kinds.Generator(shape, objective.code, draw, decode, project if objective.styled else None,
                         path='line' if straight else 'sphere')


def _generator(group: Tree) -> tuple[Tree, Tree]:
  """Parameters and mutable tree of the generator."""
  return group['params']['generator'], group['mutable']['generator']
