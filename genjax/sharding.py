"""Where arrays live: the mesh, the layout of parameters, the layout of batches.

Models name the axes of their parameters logically ('mlp', 'vocab', ...); `rules` of the config maps logical axes to mesh
axes; what no rule places is sharded over the 'fsdp' axis automatically.
"""

from collections.abc import Mapping, Sequence
import math
import re
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from genjax.types import Tree, UserError, leaf_name

MESH_AXES = ('data', 'fsdp', 'tensor', 'context', 'expert')
BATCH_AXES = ('data', 'fsdp')  # the batch is split over both: under FSDP each device has its own examples
DEFAULT_RULES = {'vocab': 'tensor', 'mlp': 'tensor', 'heads': 'tensor', 'experts': 'expert'}
FSDP_MIN_SIZE = 1024  # arrays with fewer elements are not worth a gather

AxesTable = Sequence[tuple[str, tuple[str | None, ...]]]


def make_mesh(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh with the axes of `MESH_AXES`.

  Args:
    shape: axis -> size; missing axes have size 1, one size may be -1 and takes the devices that are left.
    devices: default all.

  Raises:
    UserError: an unknown axis, two sizes of -1, or sizes that do not multiply to the number of devices.
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
  """Devices as an array of `sizes`.

  On TPUs the order decides which links carry which collectives: jax lays mesh axes on the axes of the torus, and, between
  slices, splits the outermost axis that the number of slices divides (data, else fsdp), the one with the least traffic.
  Elsewhere devices stay in the order of their ids, in which those of a process follow each other.
  """
  if getattr(devices[0], 'platform', '') != 'tpu':
    return np.asarray(devices).reshape(sizes)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  outer = next((axis for axis, size in enumerate(sizes[:2]) if size % slices == 0), None)
  if outer is None:
    raise UserError(f'config.mesh has the sizes {dict(zip(MESH_AXES, sizes))}, and there are {slices} TPU slices: data or fsdp must be a '
                    'multiple of that number, because only these axes may span slices')
  between = [slices if axis == outer else 1 for axis in range(len(sizes))]
  within = [size // parts for size, parts in zip(sizes, between)]
  return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)


def replicated(mesh: Mesh) -> NamedSharding:
  """The layout of small things: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The layout of a batch: its first axis over `BATCH_AXES`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
  """Into how many parts the batch axis is split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, batch_size: int, microbatches: int) -> None:
  """Checks that each device gets a whole and equal number of examples of each microbatch.

  Raises:
    UserError: it does not; the message names the nearest batch size that does.
  """
  if microbatches < 1 or batch_size < 1:
    raise UserError(f'config.batch_size and config.microbatches are at least 1, got {batch_size} and {microbatches}')
  unit = batch_shards(mesh) * microbatches
  if batch_size % unit:
    raise UserError(f'config.batch_size={batch_size} must be a multiple of {unit} = {batch_shards(mesh)} devices on the mesh '
                    f'axes {BATCH_AXES} x {microbatches} microbatches; the nearest is {max(1, round(batch_size / unit)) * unit}')


def local_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> slice | np.ndarray:
  """The rows of the global batch that the devices of a process, by default this one, hold: what it has to load.

  Returns:
    A slice if they are one block, else their numbers in ascending order: on a TPU, the order of the mesh is that of the
    torus, and the devices of a host may be far apart in it.
  """
  process = jax.process_index() if process is None else process
  index_map = batch_sharding(mesh).devices_indices_map((batch_size,))
  parts = sorted({index[0].indices(batch_size)[:2] for device, index in index_map.items() if device.process_index == process})
  start, stop = parts[0][0], parts[-1][1]
  if sum(end - first for first, end in parts) == stop - start:
    return slice(start, stop)
  return np.concatenate([np.arange(first, end) for first, end in parts])


def put_batch(columns: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Rows of this process -> global arrays laid out by `batch_sharding`."""
  sharding = batch_sharding(mesh)
  return {name: jax.make_array_from_process_local_data(sharding, column) for name, column in columns.items()}


def put_tree(tree: Tree, layout: Tree) -> Tree:
  """A tree of host arrays, the same in every process -> global arrays laid out by `layout`; each process places its parts."""

  def put(leaf: Any, place: NamedSharding) -> jax.Array:
    if place.is_fully_addressable:
      return jax.device_put(leaf, place)
    # `device_put` would send every array through the network to check that all processes gave the same.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, place, lambda index: host[index])

  return jax.tree.map(put, tree, layout)


def param_shardings(shapes: Tree, mesh: Mesh, table: AxesTable = (), rules: Mapping[str, Any] | None = None) -> Tree:
  """The layout of one group of parameters.

  Args:
    shapes: tree of arrays or `jax.ShapeDtypeStruct`.
    mesh: see `make_mesh`.
    table: (path regex, logical axes) pairs, the first match counts; a path is the '/'-joined names of the leaf.
    rules: logical axis -> mesh axis or tuple of them, on top of `DEFAULT_RULES`; None places the axis nowhere.

  Returns:
    A tree of `NamedSharding` with the structure of `shapes`.

  Raises:
    UserError: a pattern that matches no parameter, a rank mismatch, two logical axes on one mesh axis, an unknown mesh
      axis, or a dimension that its mesh axis does not divide; the message prints path, shape and rule.
  """
  rules = {**DEFAULT_RULES, **(rules or {})}
  used: set[str] = set()

  def place(path, leaf) -> NamedSharding:
    name = leaf_name(path)
    logical: tuple[str | None, ...] = (None,) * len(leaf.shape)
    for pattern, axes in table:
      if re.fullmatch(pattern, name):
        used.add(pattern)
        logical = axes
        if len(axes) != len(leaf.shape):
          raise UserError(f'parameter {name} has shape {tuple(leaf.shape)}, but rule {pattern!r} names {len(axes)} axes {axes}')
        break
    return NamedSharding(mesh, _spec(name, leaf.shape, logical, mesh, rules))

  placed = jax.tree_util.tree_map_with_path(place, shapes)
  idle = [pattern for pattern, _ in table if pattern not in used]
  if idle:
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    raise UserError(f'sharding rules {idle} match no parameter; the parameters are {names}')
  return placed


def _spec(name: str, shape: Sequence[int], logical: Sequence[str | None], mesh: Mesh, rules: Mapping[str, Any]) -> PartitionSpec:
  """Mesh axes of one array: by the rules, then automatic FSDP on the largest free dimension that divides."""
  spec: list[tuple[str, ...]] = []
  for size, axis in zip(shape, logical):
    target = rules.get(axis) if axis else None
    names = (target,) if isinstance(target, str) else tuple(target or ())
    for mesh_axis in names:
      if mesh_axis not in mesh.shape:
        raise UserError(f'rule {axis!r} -> {mesh_axis!r} of parameter {name} {tuple(shape)} names no mesh axis; they are {MESH_AXES}')
    names = tuple(mesh_axis for mesh_axis in names if mesh.shape[mesh_axis] > 1)
    parts = math.prod(mesh.shape[mesh_axis] for mesh_axis in names)
    if size % parts:
      raise UserError(f'parameter {name} {tuple(shape)}: rule {axis!r} -> {names} splits {size} into {parts} unequal parts')
    spec.append(names)
  taken = [mesh_axis for names in spec for mesh_axis in names]
  if len(set(taken)) < len(taken):
    raise UserError(f'parameter {name} {tuple(shape)}: logical axes {tuple(logical)} put two axes on one mesh axis, {taken}')
  parts = mesh.shape['fsdp']
  if parts > 1 and 'fsdp' not in taken and math.prod(shape) >= FSDP_MIN_SIZE:
    # A stack of layers is sliced by the scan over depth, so its first axis stays whole.
    free = [(size, -axis) for axis, size in enumerate(shape)
            if not spec[axis] and size % parts == 0 and logical[axis] != 'layers']
    if free:
      spec[-max(free)[1]] = ('fsdp',)
  return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in spec))
