"""The device mesh, and the layout of parameters, batches and activations on it.

Models give the axes of their arrays logical names ('mlp', 'vocab', ...). `config.rules` maps logical axes to mesh axes.
Parameters without a rule are sharded over the 'fsdp' axis automatically, except the smallest ones: gathering a few
numbers costs more than storing them on every device. These unsharded arrays add up to at most `MAX_REPLICATED_SHARE` of
a device's share of the group. In a large model that covers all norms and biases; in a small model, where they are a
large fraction, almost none, so that memory per device always falls with the number of devices.

Networks are pure functions and don't know the mesh. A function traced `under` a mesh can call `constrain` to choose the
layout of an activation. Without a mesh the same function computes the same numbers on one device.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import contextvars
import dataclasses
import functools
import math
import re
from typing import Any, TypeVar

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from genjax.types import Array, Tree, UserError, leaf_name

F = TypeVar('F', bound=Callable[..., Any])

MESH_AXES = ('data', 'fsdp', 'tensor', 'context', 'expert')
BATCH_AXES = ('data', 'fsdp')  # the batch is split over both: with FSDP too each device has its own examples
DEFAULT_RULES = {'vocab': 'tensor', 'mlp': 'tensor', 'heads': 'tensor', 'experts': 'expert',
                 'batch': BATCH_AXES, 'sequence': 'context'}
MAX_REPLICATED_SHARE = 0.1  # largest share of a device's memory for a group that FSDP leaves unsharded

AnyMesh = Mesh | AbstractMesh  # without devices: enough for layouts
AxesTable = Sequence[tuple[str, tuple[str | None, ...]]]


@dataclasses.dataclass(frozen=True)
class Placement:
  """A mesh and the rules that place arrays on it.

  Attributes:
    mesh: the devices.
    rules: logical axis -> mesh axis or tuple of mesh axes.
    whole: whether the traced code is the program of a single device.
  """

  mesh: AnyMesh
  rules: Mapping[str, Any]
  whole: bool = False

  def mesh_axes(self, logical: str | None) -> tuple[str, ...]:
    """The mesh axes of size above 1 that a logical axis is split over.

    Raises:
      UserError: the rule names an unknown mesh axis.
    """
    return _mesh_axes(logical, self.mesh, self.rules, 'config.rules')

  def shards(self, logical: str) -> int:
    """Into how many parts a logical axis is split."""
    return math.prod(self.mesh.shape[axis] for axis in self.mesh_axes(logical))


_ACTIVE: contextvars.ContextVar[Placement | None] = contextvars.ContextVar('placement', default=None)


@contextlib.contextmanager
def use(mesh: AnyMesh, rules: Mapping[str, Any] | None = None) -> Iterator[None]:
  """Sets the mesh for code traced inside. Functions that `jax.jit` has already traced keep their mesh, see `under`."""
  token = _ACTIVE.set(Placement(mesh, {**DEFAULT_RULES, **(rules or {})}))
  try:
    yield
  finally:
    _ACTIVE.reset(token)


@contextlib.contextmanager
def on_one_device() -> Iterator[None]:
  """Marks code traced inside as the program of one device, as in a `jax.shard_map` over all mesh axes."""
  placement = _ACTIVE.get()
  token = _ACTIVE.set(None if placement is None else dataclasses.replace(placement, whole=True))
  try:
    yield
  finally:
    _ACTIVE.reset(token)


def under(mesh: AnyMesh, rules: Mapping[str, Any] | None, function: F) -> F:
  """Wraps a function so that it is always traced with this mesh. `jax.jit(under(...))` has its own cache."""

  @functools.wraps(function)
  def placed(*args, **keywords):
    with use(mesh, rules):
      return function(*args, **keywords)

  return placed  # type: ignore[return-value]


def active() -> Placement | None:
  """The placement of the code being traced; None without a mesh or on a mesh of one device."""
  placement = _ACTIVE.get()
  return placement if placement is not None and placement.mesh.size > 1 and not placement.whole else None


def shards(logical: str) -> int:
  """The number of parts of a logical axis in the code being traced; 1 without a mesh."""
  placement = active()
  return 1 if placement is None else placement.shards(logical)


def platform() -> str:
  """The platform that the traced code will run on: 'cpu', 'gpu' or 'tpu'.

  A program for other devices than the local ones is traced under their mesh.
  """
  return _device().platform


def compute_capability() -> str:
  """The compute capability of the GPUs that the traced code will run on, e.g. '9.0' for Hopper; else ''."""
  return str(getattr(_device(), 'compute_capability', ''))


def _device() -> Any:
  placement = _ACTIVE.get()
  return (placement.mesh.devices.flat
          if placement is not None and isinstance(placement.mesh, Mesh) else jax.devices())[0]


def constrain(x: Array, *logical: str | None, name: str = 'activation') -> Array:
  """Constrains the layout of an activation x by logical axes, see `layout`. Does nothing without a mesh."""
  place = layout(x.shape, *logical, name=name)
  return x if place is None else jax.lax.with_sharding_constraint(x, place)


def layout(shape: Sequence[int], *logical: str | None, name: str = 'activation') -> NamedSharding | None:
  """The layout of an activation on the active mesh; None without a mesh.

  Args:
    shape: shape of the array.
    logical: a logical axis, or None, for each axis. An axis without a rule is not split. A 'batch' axis that its mesh
      axes don't divide is not split either: a preview may have fewer rows than there are devices.
    name: what the array is, for error messages.

  Raises:
    UserError: mesh axes don't divide an axis evenly, or two logical axes use the same mesh axis.
  """
  placement = active()
  if placement is None:
    return None
  if len(logical) != len(shape):
    raise ValueError(f'{name} has shape {tuple(shape)}, but {len(logical)} logical axes were named: {logical}')
  axes = tuple(
    None if axis == 'batch' and size % placement.shards(axis) else axis for size, axis in zip(shape, logical))
  spec = _rule_spec(name, shape, axes, placement.mesh, placement.rules)
  return NamedSharding(placement.mesh, _partition_spec(spec))


def make_mesh(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh with the axes of `MESH_AXES`.

  Args:
    shape: axis -> size. Missing axes have size 1. One size may be -1: it takes the remaining devices.
    devices: the devices, by default all.

  Raises:
    UserError: an axis is unknown, two sizes are -1, or the sizes don't multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  unknown = set(shape) - set(MESH_AXES)
  if unknown:
    raise UserError(f'config.mesh has unknown axes {sorted(unknown)}; it takes {MESH_AXES}')
  sizes = [shape.get(axis, 1) for axis in MESH_AXES]
  given = {axis: size for axis, size in zip(MESH_AXES, sizes) if size != 1}
  if any(size < 1 and size != -1 for size in sizes):
    raise UserError(f'config.mesh sizes are positive, or -1 for the rest, got {given}')
  known = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) > 1 or len(devices) % known or (-1 not in sizes and known != len(devices)):
    raise UserError(f'config.mesh {given} does not fit {len(devices)} devices: sizes must multiply to that number, and '
                    'one of them may be -1 for the rest')
  sizes = [len(devices) // known if size == -1 else size for size in sizes]
  return Mesh(_arrange(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _arrange(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
  """Arranges the devices in an array of shape `sizes`.

  On TPUs the order decides which links carry which collectives. jax maps mesh axes to the axes of the torus. Slices
  split the outermost axis that is a multiple of their number (data, else fsdp), which has the least traffic. On other
  platforms devices stay in the order of their ids, which keeps the devices of a process together.
  """
  if getattr(devices[0], 'platform', '') != 'tpu':
    return np.asarray(devices).reshape(sizes)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  outer = next((axis for axis, size in enumerate(sizes[:2]) if size % slices == 0), None)
  if outer is None:
    raise UserError(
      f'config.mesh has the sizes {dict(zip(MESH_AXES, sizes))}, and there are {slices} TPU slices: data or fsdp must '
      'be a multiple of that number, because only these axes may span slices')
  between = [slices if axis == outer else 1 for axis in range(len(sizes))]
  within = [size // parts for size, parts in zip(sizes, between)]
  return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)


def replicated(mesh: AnyMesh) -> NamedSharding:
  """The layout with a full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
  """The layout of a batch: its first axis is split over `BATCH_AXES`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: AnyMesh) -> int:
  """The number of parts of the batch axis."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: AnyMesh, batch_size: int, microbatches: int) -> None:
  """Checks that every microbatch divides evenly among the devices.

  Raises:
    UserError: it doesn't; the message suggests the nearest batch size that works.
  """
  if microbatches < 1 or batch_size < 1:
    raise UserError(f'config.batch_size and config.microbatches are at least 1, got {batch_size} and {microbatches}')
  unit = batch_shards(mesh) * microbatches
  if batch_size % unit:
    raise UserError(
      f'config.batch_size={batch_size} must be a multiple of {unit} = {batch_shards(mesh)} devices on the mesh '
      f'axes {BATCH_AXES} x {microbatches} microbatches; the nearest is {max(1, round(batch_size / unit)) * unit}')


def local_rows(mesh: AnyMesh, batch_size: int, process: int | None = None) -> slice | np.ndarray:
  """The rows of the global batch that a process, by default this one, must load for its devices.

  Returns:
    A slice if the rows are contiguous, else their indices in ascending order. On TPUs the devices of a host may be far
    apart in the mesh, whose order follows the torus.
  """
  process = jax.process_index() if process is None else process
  index_map = batch_sharding(mesh).devices_indices_map((batch_size,))
  parts = sorted(
    {index[0].indices(batch_size)[:2] for device, index in index_map.items() if device.process_index == process})
  start, stop = parts[0][0], parts[-1][1]
  if sum(end - first for first, end in parts) == stop - start:
    return slice(start, stop)
  return np.concatenate([np.arange(first, end) for first, end in parts])


def put_batch(columns: Mapping[str, np.ndarray], mesh: AnyMesh, axis: int = 0) -> dict[str, jax.Array]:
  """Makes global arrays, laid out by `batch_sharding`, from the rows of this process; `axis` is the batch axis."""
  sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH_AXES))
  return {name: jax.make_array_from_process_local_data(sharding, column) for name, column in columns.items()}


def put_tree(tree: Tree, layout: Tree) -> Tree:
  """Makes global arrays laid out by `layout` from a tree of host arrays that is equal in all processes."""

  def put(leaf: Any, place: NamedSharding) -> jax.Array:
    if place.is_fully_addressable:
      return jax.device_put(leaf, place)
    # `device_put` would send every array over the network to check that all processes pass the same values.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, place, lambda index: host[index])

  return jax.tree.map(put, tree, layout)


def param_shardings(shapes: Tree, mesh: AnyMesh, table: AxesTable = (), rules: Mapping[str, Any] | None = None) -> Tree:
  """The layout of one group of parameters.

  Args:
    shapes: tree of arrays or `jax.ShapeDtypeStruct`.
    mesh: see `make_mesh`.
    table: pairs (path regex, logical axes); the first match counts. A path is the '/'-joined names of a leaf.
    rules: logical axis -> mesh axis or tuple of mesh axes; overrides `DEFAULT_RULES`. None means not split.

  Returns:
    A tree of `NamedSharding` with the structure of `shapes`.

  Raises:
    UserError: a pattern matches no parameter or one of another rank, two logical axes use the same mesh axis, a mesh
      axis is unknown or doesn't divide a dimension evenly. The message has the path, shape and rule.
  """
  rules = {**DEFAULT_RULES, **(rules or {})}
  used: set[str] = set()
  named = jax.tree_util.tree_map_with_path(
    lambda path, leaf: _place_by_rules(leaf_name(path), leaf.shape, mesh, table, rules, used), shapes)
  idle = [pattern for pattern, _ in table if pattern not in used]
  if idle:
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    raise UserError(f'sharding rules {idle} match no parameter; the parameters are {names}')
  places, structure = jax.tree.flatten(named, is_leaf=lambda place: isinstance(place, _Place))
  whole = _largest_whole(places, mesh)
  specs = [place.fsdp_spec(mesh) if place.local(mesh) > whole else place.spec for place in places]
  return jax.tree.unflatten(structure, [NamedSharding(mesh, _partition_spec(spec)) for spec in specs])


def shape_shardings(shapes: Sequence[Any], mesh: AnyMesh, beside: Tree = ()) -> list[NamedSharding]:
  """The layout of arrays without logical axes: large ones are split over 'fsdp', small ones are not split.

  Args:
    shapes: arrays or `jax.ShapeDtypeStruct`s.
    mesh: see `make_mesh`.
    beside: tree of other arrays that count towards the total size, see `MAX_REPLICATED_SHARE`.
  """
  places = [_Place(tuple(leaf.shape), (None,) * len(leaf.shape), [()] * len(leaf.shape)) for leaf in shapes]
  whole = _largest_whole(places, mesh, sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(beside)))
  return [
    NamedSharding(mesh, _partition_spec(place.fsdp_spec(mesh) if math.prod(place.shape) > whole else place.spec))
    for place in places
  ]


@dataclasses.dataclass(frozen=True)
class _Place:
  """One parameter: its shape, its logical axes, and the mesh axes that the rules give to each axis."""

  shape: tuple[int, ...]
  logical: tuple[str | None, ...]
  spec: list[tuple[str, ...]]

  def local(self, mesh: AnyMesh) -> int:
    """Number of elements on one device if only the rules split it."""
    return math.prod(self.shape) // math.prod(mesh.shape[axis] for axes in self.spec for axis in axes)

  def fsdp_axis(self, mesh: AnyMesh) -> int | None:
    """The largest unsplit dimension that the mesh axis 'fsdp' divides, or None."""
    size = mesh.shape['fsdp']
    if size == 1 or any('fsdp' in axes for axes in self.spec):
      return None
    # The scan over layers slices the first axis of stacked parameters, so that axis is never split.
    free = [(length, -axis) for axis, length in enumerate(self.shape)
            if not self.spec[axis] and length % size == 0 and self.logical[axis] != 'layers']
    return -max(free)[1] if free else None

  def fsdp_spec(self, mesh: AnyMesh) -> list[tuple[str, ...]]:
    axis = self.fsdp_axis(mesh)
    return [('fsdp',) if number == axis else axes for number, axes in enumerate(self.spec)]


def _place_by_rules(name: str, shape: Sequence[int], mesh: AnyMesh, table: AxesTable, rules: Mapping[str, Any],
                    used: set[str]) -> _Place:
  """The place of one parameter by the first pattern that matches it. Adds that pattern to `used`."""
  logical: tuple[str | None, ...] = (None,) * len(shape)
  for pattern, axes in table:
    if re.fullmatch(pattern, name):
      used.add(pattern)
      logical = axes
      if len(axes) != len(shape):
        raise UserError(
          f'parameter {name} has shape {tuple(shape)}, but rule {pattern!r} names {len(axes)} axes {axes}')
      break
  return _Place(tuple(shape), logical, _rule_spec(f'parameter {name}', shape, logical, mesh, rules))


def _largest_whole(places: Sequence[_Place], mesh: AnyMesh, beside: int = 0) -> int:
  """The largest size, in elements, of arrays that FSDP leaves unsplit.

  Arrays that cannot be split use up the budget first. `beside` is the number of elements of other arrays; they enlarge
  the budget.
  """
  budget = MAX_REPLICATED_SHARE * (beside + sum(place.local(mesh) for place in places)) / mesh.shape['fsdp']
  spent = sum(place.local(mesh) for place in places
              if place.fsdp_axis(mesh) is None and not any('fsdp' in axes for axes in place.spec))
  sizes = collections.Counter(place.local(mesh) for place in places if place.fsdp_axis(mesh) is not None)
  whole = 0
  for size in sorted(sizes):
    spent += size * sizes[size]
    if spent > budget:
      break
    whole = size
  return whole


def _mesh_axes(logical: str | None, mesh: AnyMesh, rules: Mapping[str, Any], what: str) -> tuple[str, ...]:
  """The mesh axes of size above 1 that a logical axis is split over."""
  target = rules.get(logical) if logical else None
  names = (target,) if isinstance(target, str) else tuple(target or ())
  for mesh_axis in names:
    if mesh_axis not in mesh.shape:
      raise UserError(f'rule {logical!r} -> {mesh_axis!r} of {what} names no mesh axis; they are {MESH_AXES}')
  return tuple(mesh_axis for mesh_axis in names if mesh.shape[mesh_axis] > 1)


def _rule_spec(what: str, shape: Sequence[int], logical: Sequence[str | None], mesh: AnyMesh,
               rules: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """The mesh axes that the rules give to each axis of an array."""
  spec: list[tuple[str, ...]] = []
  for size, axis in zip(shape, logical):
    names = _mesh_axes(axis, mesh, rules, f'{what} {tuple(shape)}')
    parts = math.prod(mesh.shape[mesh_axis] for mesh_axis in names)
    if size % parts:
      raise UserError(
        f'{what} {tuple(shape)}: rule {axis!r} -> {names} splits {size} into {parts} unequal parts; change '
        f'config.mesh, or set config.rules.{axis} to None')
    spec.append(names)
  taken = [mesh_axis for names in spec for mesh_axis in names]
  if len(set(taken)) < len(taken):
    raise UserError(f'{what} {tuple(shape)}: logical axes {tuple(logical)} put two axes on one mesh axis, {taken}')
  return spec


def _partition_spec(spec: Sequence[tuple[str, ...]]) -> PartitionSpec:
  return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in spec))
