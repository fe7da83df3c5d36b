"""How gradients of parameters are summed over the batch and over devices.

A layer computes in its compute dtype, say bfloat16, from float32 parameters. Plain autodiff keeps the gradient of a
parameter in the compute dtype until the end, so the devices of a mesh add their shares in bfloat16. Layers that call
`multiply` get float32 gradients, summed in float32 over rows and devices. Weights are still gathered in the compute
dtype.

With several microbatches autodiff has a second cost: the devices sum the gradient of every microbatch. The gradient of
an `Unreduced` parameter keeps one term per part of the batch instead; part d lies on the devices at index d of the mesh
axis 'data'. This needs no communication. The train step adds the terms once, after the last microbatch. Layers that
don't support this class read the parameter through `plain`; their gradients are summed by autodiff and are correct too.

Losses get plain arrays. The train step registers parameters by `naming`, and `in_terms` gives networks the `Unreduced`
version of these. Other uses of a parameter in a loss, such as a norm penalty, are differentiated as for any array.

Suffixes: N rows, I inputs, O outputs, D parts of the batch.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import contextvars
import dataclasses
import functools
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from genjax import products, sharding
from genjax.products import Product
from genjax.types import Array, Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unreduced:
  """A parameter whose gradient keeps one term per part of the batch.

  value: the parameter; no gradient flows to it.
  terms: float32 zeros of shape (D, *value.shape); their gradient is the gradient of the parameter in D terms.
  """

  value: Array
  terms: Array

  @property
  def shape(self) -> tuple[int, ...]:
    return self.value.shape

  @property
  def ndim(self) -> int:
    return self.value.ndim

  @property
  def size(self) -> int:
    return self.value.size

  @property
  def dtype(self) -> Any:
    return self.value.dtype

  def astype(self, dtype: Any) -> Any:
    return plain(self).astype(dtype)

  def __getitem__(self, index: Any) -> Any:
    return self if index is Ellipsis else plain(self)[index]

  def __jax_array__(self) -> Array:
    return plain(self)

  def __rmatmul__(self, x: Array) -> Array:
    return x @ plain(self)

  @property
  def T(self) -> 'Unreduced':
    return Unreduced(self.value.T, self.terms.swapaxes(1, 2))


_TERMS: contextvars.ContextVar[dict[int, tuple[Array, Array]] | None] = contextvars.ContextVar('terms', default=None)


@contextlib.contextmanager
def naming(params: Tree, terms: Tree) -> Iterator[None]:
  """Context manager that registers `params` (by object identity) with their `terms` for `in_terms`."""
  pairs = zip(jax.tree.leaves(params), jax.tree.leaves(terms), strict=True)
  # Keep the leaf alive, so that no other object gets its id
  token = _TERMS.set({id(leaf): (leaf, own) for leaf, own in pairs})
  try:
    yield
  finally:
    _TERMS.reset(token)


def in_terms(params: Tree) -> Tree:
  """Replaces the parameters that `naming` has registered by `Unreduced` ones; keeps all other leaves."""
  known = _TERMS.get()
  if not known:
    return params

  def one(leaf: Any) -> Any:
    found = known.get(id(leaf))
    return leaf if found is None else Unreduced(jax.lax.stop_gradient(leaf), found[1])

  return jax.tree.map(one, params, is_leaf=is_unreduced)


def is_unreduced(leaf: Any) -> bool:
  """Returns whether a leaf of a parameter tree is `Unreduced`."""
  return isinstance(leaf, Unreduced)


def stacked(params: Tree) -> Tree:
  """Prepares parameters with a leading layer axis L for a scan: moves that axis of the terms to the front too."""
  params = in_terms(params)
  return jax.tree.map(
    lambda leaf: Unreduced(leaf.value, jnp.moveaxis(leaf.terms, 0, 1))
    if is_unreduced(leaf) else leaf, params, is_leaf=is_unreduced)


def plain(leaf: Any) -> Any:
  """Returns a parameter as an array. The gradient of an `Unreduced` one is summed and spread over its terms."""
  return _plain(leaf.value, leaf.terms) if is_unreduced(leaf) else leaf


@jax.custom_vjp
def _plain(value: Array, terms: Array) -> Array:
  del terms
  return value


# The saved arrays only carry a dtype and the number of parts. They are empty, because a scan would stack them.
_plain.defvjp(lambda value, terms: (value, (jnp.zeros(0, value.dtype), jnp.zeros((len(terms), 0)))),
              lambda saved, slope: (jnp.zeros(slope.shape, saved[0].dtype), spread(slope, len(saved[1]))))


def spread(gradient: Array, parts: int) -> Array:
  """Splits a summed gradient into `parts` equal terms."""
  return jnp.broadcast_to(gradient.astype(jnp.float32) / parts, (parts, *gradient.shape))


_SUM_TYPE: contextvars.ContextVar[Any] = contextvars.ContextVar('sum_type', default=jnp.float32)


@contextlib.contextmanager
def sums_in(dtype: Any) -> Iterator[None]:
  """Sets the dtype in which code traced inside sums gradients (default float32). Also works as a decorator."""
  token = _SUM_TYPE.set(jnp.dtype(dtype))
  try:
    yield
  finally:
    _SUM_TYPE.reset(token)


def sum_type(dtype: Any) -> Any:
  """The dtype in which the gradient of a parameter is summed if activations have dtype `dtype`."""
  return jnp.promote_types(dtype, _SUM_TYPE.get())


def multiply(x: Array, weight: Any, product: Product) -> Array:
  """Computes product(x, weight); the gradient of the weight is summed in float32.

  Args:
    x: activations in the compute dtype.
    weight: a parameter of any dtype, an array or `Unreduced`.
    product: the bilinear function.
  """
  weight = in_terms(weight)
  if is_unreduced(weight):
    return product(x, jax.lax.stop_gradient(weight.value)) + _term_p.bind(x, weight.terms, product=product)
  if weight.dtype == x.dtype:
    return product(x, weight)
  return _product_p.bind(x, weight, product=product)


def _zeros(x: Array, terms: Array, product: Product) -> Array:
  """Zeros of the shape of the product. They carry gradients to `Unreduced.terms`; XLA removes their addition."""
  out = jax.eval_shape(product, x, jax.ShapeDtypeStruct(terms.shape[1:], x.dtype))
  return jnp.zeros(out.shape, out.dtype)


def _define(name: str, function: Callable[..., Array], lead: int) -> Primitive:
  """Defines a primitive bilinear in (x, weight), with `Product.gradient` as gradient of the weight.

  The weight has `lead` leading axes of parts.
  """
  primitive = Primitive(name)

  def abstract(x, weight, *, product):
    out = jax.eval_shape(functools.partial(function, product=product), jax.ShapeDtypeStruct(x.shape, x.dtype),
                         jax.ShapeDtypeStruct(weight.shape, weight.dtype))
    return ShapedArray(out.shape, out.dtype)

  def x_slope(slope, x, weight, *, product):
    return primitive.bind(slope.astype(x.aval.dtype), weight, product=products.adjoint(product, x.aval))

  def weight_slope(slope, x, weight, *, product):
    shape = weight.aval.shape
    return product.gradient(x, slope.astype(x.dtype), shape[lead:], shape[0] if lead else 0).astype(weight.aval.dtype)

  def batch(operands, dims, *, product):
    (x, weight), (x_axis, axis) = operands, dims
    if x_axis is None:
      x, x_axis = jnp.broadcast_to(x, (weight.shape[axis], *x.shape)), 0
    if axis is not None:
      weight = jnp.moveaxis(weight, axis, lead)
    return primitive.bind(jnp.moveaxis(x, x_axis, 0), weight, product=products.Mapped(product, axis is not None)), 0

  primitive.def_abstract_eval(abstract)
  primitive.def_impl(jax.jit(function, static_argnames='product'))
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  ad.defbilinear(primitive, x_slope, weight_slope)
  batching.primitive_batchers[primitive] = batch
  return primitive


def _compute(x: Array, weight: Array, product: Product) -> Array:
  return product(x, weight)


PRODUCT = 'parameter_product'  # the name of the primitive of `multiply`
_product_p = _define(PRODUCT, _compute, 0)
_term_p = _define('parameter_terms', _zeros, 1)


def by_parts(x: Array, parts: int) -> Array | None:
  """Reshapes B ... to D B/D ..., each part on its devices. Returns None if D does not divide B."""
  if x.ndim < 2 or x.shape[0] % parts:
    return None
  x = x.reshape(parts, -1, *x.shape[1:])
  placement = sharding.active()
  if placement is None or placement.mesh.shape['data'] != parts:
    return x
  rest = 'fsdp' if x.shape[1] % placement.mesh.shape['fsdp'] == 0 else PartitionSpec.UNCONSTRAINED
  spec = PartitionSpec('data', rest, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 2))
  return jax.lax.with_sharding_constraint(x, NamedSharding(placement.mesh, spec))


def data_parts(rows: int) -> int:
  """The size of the mesh axis 'data' if it divides `rows`, else 1."""
  placement = sharding.active()
  data = 1 if placement is None else placement.mesh.shape['data']
  return data if rows % data == 0 else 1


def place_terms(terms: Array, *logical: str | None) -> Array:
  """Places gradient terms on their devices; `logical` names the axes after the first, see `sharding.layout`."""
  place = sharding.layout(terms.shape[1:], *logical, name='gradient of a parameter')
  if place is None:
    return terms
  first = 'data' if len(terms) == place.mesh.shape['data'] else None
  return jax.lax.with_sharding_constraint(terms, NamedSharding(place.mesh, PartitionSpec(first, *place.spec)))


def on_each_device(gradient: Callable[..., Array], columns: Sequence[Array], parts: int) -> Array:
  """A float32 sum over rows that each device computes for its own rows; `parts` as in `Product.gradient`.

  Args:
    gradient: (*columns), each B ... -> the sum over their rows.
    columns: arrays with B rows.
    parts: 0, or the size of the mesh axis 'data'.
  """
  placement = sharding.active()
  shards = 1 if placement is None else sharding.batch_shards(placement.mesh)
  if placement is None or shards == 1 or any(column.shape[0] % shards for column in columns):
    total = gradient(*columns)
    return spread(total, parts) if parts else total.astype(jnp.float32)

  def local(*rows):
    with sharding.on_one_device():
      total = gradient(*rows)
      return total.astype(sum_type(total.dtype))[None]

  place = PartitionSpec(sharding.BATCH_AXES)
  terms = jax.shard_map(local, mesh=placement.mesh, in_specs=(place,) * len(columns), out_specs=place,
                        check_vma=False)(*columns)
  if not parts:
    return jnp.sum(terms, axis=0).astype(jnp.float32)
  return jnp.sum(terms.reshape(parts, -1, *terms.shape[1:]), axis=1).astype(jnp.float32)


def carriers(weight: Any, dtype: Any, count: int) -> tuple[Array, Array]:
  """Splits a parameter into a value and gradient terms, for code under `jax.shard_map`.

  Args:
    weight: an array or `Unreduced`.
    dtype: compute dtype.
    count: number of parts of the rows; the outermost mesh axis of the split is 'data'.

  Returns:
    value: the parameter in the compute dtype, without a gradient.
    terms: float32 zeros of shape (count, *weight.shape), to be split like the rows. On a device, `carried(value,
      terms[0])` is the parameter with the gradient from this device's rows.
  """
  if not is_unreduced(weight):
    return jax.lax.stop_gradient(weight).astype(dtype), _no_terms(count, weight)
  lead = (len(weight.terms), count // len(weight.terms))
  terms = jnp.broadcast_to(weight.terms[:, None], (*lead, *weight.shape)).reshape(count, *weight.shape)
  return jax.lax.stop_gradient(weight.value).astype(dtype), terms


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _no_terms(count: int, weight: Array) -> Array:
  return jnp.zeros((count, *weight.shape), jnp.float32)


_no_terms.defvjp(lambda count, weight: (_no_terms(count, weight), weight[:0]),
                 lambda count, saved, slopes: (jnp.sum(slopes, axis=0).astype(saved.dtype),))


@jax.custom_vjp
def carried(value: Array, terms: Array) -> Array:
  """Returns the value and sends its gradient to `terms`, which has the same shape; see `carriers`."""
  del terms
  return value


carried.defvjp(lambda value, terms: (value, None), lambda _, slope: (jnp.zeros_like(slope), slope.astype(jnp.float32)))


def broadcast(bias: Any, shape: tuple[int, ...], dtype: Any) -> Array:
  """Broadcasts a bias or scale to `shape` in the compute dtype.

  Args:
    bias: array or `Unreduced` with the last axes of `shape`.
    shape: shape of the result.
    dtype: dtype of the result.
  """
  bias = in_terms(bias)
  if is_unreduced(bias):
    return _broadcast(shape, dtype, jax.lax.stop_gradient(bias.value), bias.terms)
  # Cast last, so that the gradient is summed before it is cast
  return jnp.broadcast_to(bias.astype(sum_type(dtype)), shape).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _broadcast(shape: tuple[int, ...], dtype: Any, bias: Array, terms: Array) -> Array:
  del terms
  return jnp.broadcast_to(bias.astype(dtype), shape)


def _broadcast_backward(shape: tuple[int, ...], dtype: Any, saved: tuple[Array, Array], slope: Array):
  bias, terms = saved
  slope = slope.astype(sum_type(slope.dtype))
  axes = tuple(range(slope.ndim - bias.ndim))
  split = by_parts(slope, len(terms)) if axes else None
  if split is None:
    return jnp.zeros_like(bias), spread(jnp.sum(slope, axis=axes), len(terms))
  return jnp.zeros_like(bias), jnp.sum(split, axis=tuple(axis + 1 for axis in axes)).astype(jnp.float32)


_broadcast.defvjp(lambda shape, dtype, bias, terms: (_broadcast(shape, dtype, bias, terms), (bias, terms)),
                  _broadcast_backward)


def take(table: Any, index: Array, dtype: Any) -> Array:
  """Looks up rows of a table V C by an index of any shape, in dtype `dtype`; the table's gradient is float32."""
  table = in_terms(table)
  if not is_unreduced(table):
    return jnp.take(table, index, axis=0).astype(dtype)
  return _take(jax.lax.stop_gradient(table.value), table.terms, index).astype(dtype)


@jax.custom_vjp
def _take(table_VC: Array, terms_DVC: Array, index: Array) -> Array:
  del terms_DVC
  return jnp.take(table_VC, index, axis=0)


def _take_backward(saved: tuple[Array, Array, Array], slope: Array):
  table_VC, terms_DVC, index = saved

  def gradient(index: Array, slope: Array) -> Array:
    return jax.vjp(lambda table: jnp.take(table, index, axis=0), jnp.zeros(table_VC.shape, slope.dtype))[1](slope)[0]

  return (jnp.zeros_like(table_VC), on_each_device(gradient, (index, slope), len(terms_DVC)),
          np.zeros(index.shape, jax.dtypes.float0))


_take.defvjp(lambda table_VC, terms_DVC, index: (_take(table_VC, terms_DVC, index), (table_VC, terms_DVC, index)),
             _take_backward)
