"""Low-rank adapters of kernels (LoRA, Hu et al. 2021): W + alpha / rank * A B, with W frozen.

Adapters are trees beside the parameters that they change, with {'A': ..., 'B': ...} in the place of each adapted
kernel. Of a kernel

    I O          a dense layer                  A is I R         B is R O
    L I O        L of them, stacked             A is L I R       B is L R O
    H W I O      a convolution                  A is H W I R     B is R O
    L H W I O    L of them, stacked             A is L H W I R   B is L R O
    E I O        a layer's experts              A is E I R       B is E R O
    L E I O      those of L layers, stacked     A is L E I R     B is L E R O

with R the rank: of a convolution, A is one to R channels and B one of size 1; every expert has a pair of its own.

In training an adapted kernel stands in a network's parameters as `Adapted`, and a layer computes x W + scale (x A) B:
no array of the size of W is made beside W, and none has a gradient. A and B, their products and their gradients are
float32, whatever the compute type is and in whatever type W is kept; experts alone compute these products in the
compute type. `merge` adds scale A B to W: for generation, where it is done once, and to write a model out. Layers that
use a kernel otherwise than by a product (a spectral norm divides it, a chunked output layer transposes it, a
convolution over frames of sounds joins its taps) take the merged kernel too, through `genjax.nn.kernels.dense`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import re
from typing import Any
import zlib

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from genjax.nn.functional import dropout
from genjax.nn.kernels import Kernel, Linear, Multiply
from genjax.types import Array, Key, Tree, UserError, listed, named_leaves, unflatten

KERNEL = 'kernel'  # the last name of a leaf that is one
LANES = 128  # columns of a tile of a TPU
EXPERTS = '_kernel'  # the end of the name of one that holds the matrices of experts


@dataclasses.dataclass(frozen=True)
class Options:
  """Which kernels are adapted, and how.

  Attributes:
    rank: rank R of the product of A and B.
    alpha: the product of A and B is multiplied by alpha / rank.
    paths: regular expressions; a kernel whose whole path one of them matches is adapted.
    dropout: rate at which what A reads is dropped in training, drawn for each example, position and channel, as PEFT
      does. Where a layer takes the merged kernel, there is none.

  Raises:
    UserError: a number out of range, or a path that is no regular expression.
  """

  rank: int
  alpha: float
  paths: tuple[str, ...]
  dropout: float = 0.0

  def __post_init__(self):
    if self.rank < 1 or not self.alpha > 0 or not 0.0 <= self.dropout < 1.0:
      raise UserError('a low-rank adapter takes rank >= 1, alpha > 0 and 0 <= dropout < 1, got '
                      f'rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}')
    if not self.paths or isinstance(self.paths, str) or not all(isinstance(pattern, str) for pattern in self.paths):
      raise UserError(
        f'a low-rank adapter needs paths, a tuple of regular expressions of the kernels that it adapts, got '
        f'{self.paths!r}'
      )
    for pattern in self.paths:
      try:
        re.compile(pattern)
      except re.error as error:
        raise UserError(f'the path {pattern!r} of a low-rank adapter is no regular expression: {error}') from error

  @property
  def scale(self) -> float:
    """Factor of the product of A and B."""
    return self.alpha / self.rank


def targets(options: Options, groups: Mapping[str, Tree]) -> dict[str, dict[str, Any]]:
  """The kernels that are adapted.

  Args:
    options: has the paths.
    groups: group -> its parameters, as arrays or shapes.

  Returns:
    group -> path within the group -> kernel.

  Raises:
    UserError: a path that matches nothing, or something that is no kernel; the message names the kernels.
  """
  leaves = {group: named_leaves(tree) for group, tree in groups.items()}
  kernels = [name for named in leaves.values() for name, leaf in named.items() if _is_kernel(name, leaf)]
  there = f'The kernels of {sorted(groups)}: {listed(kernels, 40)}'
  chosen: dict[str, dict[str, Any]] = {group: {} for group in groups}
  for pattern in options.paths:
    matched = [(group, name) for group, named in leaves.items() for name in named if re.fullmatch(pattern, name)]
    if not matched:
      raise UserError(f'the path {pattern!r} of a low-rank adapter matches no parameter. {there}')
    for group, name in matched:
      leaf = leaves[group][name]
      if not _is_kernel(name, leaf):
        raise UserError(
          f'the path {pattern!r} of a low-rank adapter matches {name} {tuple(leaf.shape)}, which is the kernel of no '
          f'dense layer, no convolution and no experts. {there}')
      chosen[group][name] = leaf
  return chosen


def is_kernel(name: str) -> bool:
  """Whether a leaf of this path is a kernel, by its name."""
  return name.endswith(EXPERTS) or name.rsplit('/', 1)[-1] == KERNEL


def _is_kernel(name: str, leaf: Any) -> bool:
  rank = len(leaf.shape)
  if name.endswith(EXPERTS):
    return 3 <= rank <= 4
  square = rank < 4 or leaf.shape[-4] == leaf.shape[-3]
  return is_kernel(name) and 2 <= rank <= 5 and square


def _stacked(name: str, rank: int) -> int:
  """How many leading axes of a kernel, or of its A, count layers and experts: each place on them has an A and a B of
  its own."""
  return rank - 2 if name.endswith(EXPERTS) else int(rank in (3, 5))


def init(key: Key, kernels: Mapping[str, Any], rank: int) -> Tree:
  """Fresh adapters of kernels by path: A uniform as PEFT has it, in +-1 / sqrt(fan in), and B zero, so that nothing
  changes at first.

  The A of a kernel depends on the key and its path only.
  """
  adapters: dict[str, Any] = {}
  for name, kernel in kernels.items():
    *lead, inputs, outputs = kernel.shape
    stack = lead[:_stacked(name, len(kernel.shape))]
    bound = 1.0 / math.sqrt(inputs * math.prod(lead[len(stack):]))
    own = jax.random.fold_in(key, zlib.crc32(name.encode()))
    adapters[f'{name}/A'] = jax.random.uniform(own, (*lead, inputs, rank), jnp.float32, -bound, bound)
    adapters[f'{name}/B'] = jnp.zeros((*stack, rank, outputs), jnp.float32)
  return unflatten(adapters)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted(Kernel):
  """A kernel with its adapter: W + scale A B, multiplied as x W + scale (x A) B.

  base: W. a, b: A and B, float32. key: for dropout, in one application in training. scale: see `Options`. rate: of
    dropout.
  """

  base: Array
  a: Array
  b: Array
  key: Key | None = None
  scale: float = dataclasses.field(default=1.0, metadata={'static': True})
  rate: float = dataclasses.field(default=0.0, metadata={'static': True})

  @property
  def shape(self) -> tuple[int, ...]:  # type: ignore[override]
    """Of W."""
    return self.base.shape

  @property
  def dtype(self) -> Any:  # type: ignore[override]
    """Of W."""
    return self.base.dtype

  def astype(self, dtype: Any) -> 'Adapted':
    """W in the compute type; A and B stay float32, which keeps their gradients so."""
    return dataclasses.replace(self, base=self.base.astype(dtype))

  def dense(self) -> Array:
    """The merged kernel, summed in float32."""
    return _add(self.base, self.a, self.b, self.scale)

  def keyed(self, key: Key) -> 'Adapted':
    """With the key that dropout is drawn from, if there is any."""
    return dataclasses.replace(self, key=key) if self.rate else self

  def on_part(self, index: Array) -> 'Adapted':
    """Dropout is drawn for each part."""
    return self if self.key is None else dataclasses.replace(self, key=jax.random.fold_in(self.key, index))

  def layout(self, spec: PartitionSpec) -> Any:
    """A lies as the inputs of W do, and B as its outputs."""
    *stack, inputs, outputs = spec
    tree: Any = Adapted  # of layouts in the place of arrays
    return tree(spec, PartitionSpec(*stack, inputs, None), PartitionSpec(*stack, None, outputs),
                None if self.key is None else PartitionSpec(), self.scale, self.rate)

  def product(self, x: Array, dimensions: Any, multiply: Multiply) -> Array:
    """See `Kernel`."""
    first, second = (self.a, self.b) if dimensions[0][1] == (0,) else (self.b, self.a)
    middle = self.scale * multiply(self.read(x), first, dimensions)
    # Libtpu 0.0.42 overflows its stack where it fuses two products of less than a tile, as of a router
    if min(self.shape) < LANES:
      middle = jax.lax.optimization_barrier(middle)
    narrow = multiply(middle, second, dimensions)
    wide = multiply(x, self.base, dimensions)
    return wide + narrow.astype(wide.dtype)

  def apply(self, x: Array, function: Linear, narrow: Linear | None = None) -> Array:
    """See `Kernel`."""
    y = self.scale * (narrow or function)(self.read(x), self.a) @ self.b
    wide = function(x, self.base)
    return wide + y.astype(wide.dtype)

  def read(self, x: Array) -> Array:
    """What A reads of the input of the layer: float32, with dropout."""
    return dropout(x.astype(jnp.float32), self.rate, self.key)


def _add(kernel: Array, a: Array, b: Array, scale: float) -> Array:
  """kernel + scale A B in the type of the kernel, summed in float32 or a longer type."""
  return (kernel + scale * product(a, b)).astype(kernel.dtype)


def product(a: Array, b: Array) -> Array:
  """A B, of the shape of the kernel."""
  if a.ndim > b.ndim:  # the height and width of a convolution
    b = b[..., None, None, :, :]
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def merge(params: Tree, adapters: Tree, scale: float) -> Tree:
  """The parameters with `scale` A B added to the adapted kernels; other leaves are those of `params`.

  Raises:
    UserError: adapters of kernels that `params` does not have, or of other shapes.
  """
  return _joined(params, adapters, lambda kernel, a, b: _add(kernel, a, b, scale))


def attach(params: Tree, adapters: Tree, options: Options) -> Tree:
  """The parameters with `Adapted` kernels; other leaves are those of `params`.

  Raises:
    UserError: see `merge`.
  """
  return _joined(params, adapters,
                 lambda kernel, a, b: Adapted(kernel, a, b, scale=options.scale, rate=options.dropout))


def _joined(params: Tree, adapters: Tree, join: Callable[[Any, Array, Array], Any]) -> Tree:
  if not isinstance(adapters, Mapping) or not isinstance(params, Mapping) or not set(adapters) <= set(params):
    raise UserError(
      f'these adapters are of another model: they adapt {_names(adapters)}, and there is {_names(params)}')
  return {name: _join(leaf, adapters[name], join, name) if name in adapters else leaf for name, leaf in params.items()}


def _join(leaf: Any, adapter: Tree, join: Callable[[Any, Array, Array], Any], name: str) -> Any:
  if isinstance(leaf, Mapping):
    return _joined(leaf, adapter, join)
  a, b = adapter['A'], adapter['B']
  shape = jax.eval_shape(product, a, b).shape if a.shape[-1] == b.shape[-2] else None
  if shape != leaf.shape:
    raise UserError(f'an adapter with A {a.shape} and B {b.shape} does not fit {name} {leaf.shape}')
  return join(leaf, a, b)


def _names(tree: Any) -> str:
  return listed(sorted(tree)) if isinstance(tree, Mapping) else f'an array {getattr(tree, "shape", "")}'


def axes(table: tuple, kernels: Mapping[str, Any]) -> tuple:
  """The table (path regex, logical axes) of adapters, from that of the parameters: A is split as the kernel's inputs, B
  as its outputs."""
  rows = []
  for name, kernel in kernels.items():
    logical = next((axes for pattern, axes in table if re.fullmatch(pattern, name)), None)
    if logical is not None:
      stack = logical[:_stacked(name, len(kernel.shape))]
      rows += [(re.escape(f'{name}/A'), (*logical[:-1], None)), (re.escape(f'{name}/B'), (*stack, None, logical[-1]))]
  return tuple(rows)
