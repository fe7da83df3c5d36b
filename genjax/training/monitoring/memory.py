"""Bytes of a training state, from shapes and layouts alone."""

from collections.abc import Mapping
import math

import jax

from genjax.training.state import TrainState
from genjax.types import Tree


def tree_bytes(tree: Tree) -> int:
  """Bytes of a tree of arrays or shapes, every array once."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_bytes(tree: Tree) -> int:
  """Bytes that one device holds of a tree of `jax.ShapeDtypeStruct`s with layouts."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def parts(state: TrainState, frozen: Tree) -> dict[str, Tree]:
  """Name -> what fills memory while training, as reports list it."""
  return {
    'parameters': state.params, 'optimizer': state.opt, 'averages': state.ema, 'mutable': state.mutable,
    'frozen': frozen
  }


def by_part(frozen: Mapping[str, Tree]) -> dict[str, dict[str, int]]:
  """Frozen group -> 'bytes' in all, every array once, and 'per_device'; of shapes with layouts."""
  return {name: {'bytes': tree_bytes(tree), 'per_device': device_bytes(tree)} for name, tree in frozen.items()}


def totals(state: TrainState, frozen: Tree) -> dict[str, int]:
  """Name -> bytes of the whole run, every array once."""
  return {name: tree_bytes(tree) for name, tree in parts(state, frozen).items()}


def per_device(state: TrainState, frozen: Tree) -> dict[str, int]:
  """Name -> bytes on one device; both trees are shapes with layouts."""
  return {name: device_bytes(tree) for name, tree in parts(state, frozen).items()}
