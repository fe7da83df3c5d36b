"""Losses of discriminators and generators as functions of logits, and terms that are added to them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genjax.tables import Table
from genjax.types import Array, Tree

SPECTRAL = 'spectral'  # entry of the mutable tree of a layer with spectral normalisation


def _non_saturating(real: Array, fake: Array) -> Array:
  return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def _hinge(real: Array, fake: Array) -> Array:
  return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)


def _wasserstein(real: Array, fake: Array) -> Array:
  return fake - real


def _least_squares(real: Array, fake: Array) -> Array:
  return (real - 1.0)**2 + fake**2


# Name -> (discriminator's loss of real and fake logits, generator's loss of fake logits), elementwise.
# 'non_saturating': Goodfellow et al. 2014. 'hinge': Lim and Ye 2017, Miyato et al. 2018. 'wgan_gp': Gulrajani et al.
# 2017. 'lsgan': twice equation 9 of Mao et al. 2017, as in the code of CycleGAN and HiFi-GAN.
LOSSES: Table[tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]] = Table('GAN loss', {
  'non_saturating': (_non_saturating, lambda fake: jax.nn.softplus(-fake)),
  'hinge': (_hinge, lambda fake: -fake),
  'wgan_gp': (_wasserstein, lambda fake: -fake),
  'lsgan': (_least_squares, lambda fake: (fake - 1.0)**2),
})
# Name -> (discriminator's, generator's) loss of pairs of a real and a fake logit.
# 'relativistic': Jolicoeur-Martineau 2019, R3GAN (Huang et al. 2024, equation 2).
RELATIVE: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
  'relativistic': (lambda real, fake: jax.nn.softplus(fake - real), lambda real, fake: jax.nn.softplus(real - fake)),
}
BOUNDARY = {'lsgan': 0.5}  # the logit between real and fake, where it is not 0
# Losses that no constant changes which is added to all logits: there is no boundary, and pairs are compared.
WITHOUT_BOUNDARY = (*RELATIVE, 'wgan_gp')


def margins(loss: str, real: Array, fake: Array) -> tuple[Array, Array]:
  """How far real and fake logits lie on the right side of the boundary between both; of losses without one, how far the
  logits of pairs lie apart."""
  if loss in WITHOUT_BOUNDARY:
    return real - fake, real - fake
  boundary = BOUNDARY.get(loss, 0.0)
  return real - boundary, boundary - fake


def signs(margin: Array) -> Array:
  """-1, 0 or 1 of each margin; 0 of one that is no number, which would never leave a running sum."""
  return (margin > 0).astype(jnp.float32) - (margin < 0).astype(jnp.float32)


def feature_distance(real: Any, fake: Any) -> Array:
  """Squared differences of the batch means of features, their mean over each map, summed over maps (Salimans et al.
  2016, section 3.1).

  Args:
    real, fake: maps B ... of a discriminator, in the same structure.
  """
  means = [jax.tree.map(lambda map_BX: jnp.mean(map_BX.astype(jnp.float32), axis=0), maps) for maps in (real, fake)]
  squares = jax.tree.map(lambda a, b: jnp.mean((jax.lax.stop_gradient(a) - b)**2), *means)
  return sum(jax.tree.leaves(squares), start=jnp.zeros(()))


def same_estimates(before: Tree, after: Tree) -> Tree:
  """`after` with the vectors of power iterations of `before`.

  A second call on it then divides by the same estimates of spectral norms as the first, and leaves them one iteration
  ahead, not two.
  """
  if not isinstance(after, Mapping):
    return after
  return {name: before[name] if name == SPECTRAL else same_estimates(before[name], value)
          for name, value in after.items()}


def crowding(real: Array, fake: Array, most: int = 64) -> dict[str, Array]:
  """How close fake samples lie together, relative to as many real ones: 1 as spread out, near 0 where all are the same.

  Args:
    real, fake: samples B ...; no gradient flows through them.
    most: samples that are compared, the first ones, so that the time does not grow with the square of the batch.

  Returns:
    'pairwise': ratio of the mean distances of all pairs, which falls where the generator makes little else than one
    sample. 'nearest': ratio of the mean distances to the nearest other sample, which falls before that, where samples
    come from few modes.
  """
  (mean_real, near_real), (mean_fake, near_fake) = (_distances(x[:most]) for x in (real, fake))
  return {'pairwise': mean_fake / jnp.maximum(mean_real, 1e-12), 'nearest': near_fake / jnp.maximum(near_real, 1e-12)}


def _distances(x: Array) -> tuple[Array, Array]:
  """Means of the distances of all pairs, and of those to the nearest other sample."""
  flat_BX = jax.lax.stop_gradient(x).reshape(len(x), -1).astype(jnp.float32)
  centred_BX = flat_BX - jnp.mean(flat_BX, axis=0)  # products of small numbers have small errors
  product_BB = jnp.matmul(centred_BX, centred_BX.T, precision='highest')
  square_B = jnp.diagonal(product_BB)
  distance_BB = jnp.sqrt(jnp.maximum(square_B[:, None] + square_B[None] - 2.0 * product_BB, 0.0))
  same_BB = jnp.eye(len(x), dtype=bool)
  mean = jnp.sum(jnp.where(same_BB, 0.0, distance_BB)) / (len(x) * max(len(x) - 1, 1))
  return mean, jnp.mean(jnp.min(jnp.where(same_BB, jnp.inf, distance_BB), axis=1))
