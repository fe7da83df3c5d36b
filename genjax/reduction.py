"""How gradients of parameters are summed over rows and over devices.

A layer computes in its compute type, say bfloat16, from parameters in float32. Left to autodiff, the gradient of a
parameter has the compute type until the very end: on a mesh, devices then add their shares in bfloat16. Layers that
multiply through `multiply` hand the gradient on in float32, so that the sum over rows and devices is one of float32
numbers. Weights are still gathered in the compute type.

With several microbatches autodiff has a second cost: devices would sum every microbatch's gradient. A parameter that
comes as `Unreduced` gets one term of its gradient for each part of the batch, part d lying on the devices of place d of
the mesh axis 'data'. No device sends anything for it; the train step adds the terms up once, after the last microbatch.
Layers that know nothing of this class read the parameter through `plain`: their gradients are summed as autodiff does
it, and are correct too.

Losses see arrays. `in_terms` gives networks the terms of those that the train step has named by `naming`; whatever else
a loss does with a parameter, say a penalty on its size, is differentiated as that of any array.

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
  """A parameter whose gradient stays one term for each part of the batch.

  value: the parameter; no gradient flows to it.
  terms: zeros of shape D and that of the parameter, float32; their gradient is what the parameter's would be, in D
    terms.
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
  """Inside, `in_terms` knows these parameters, the very objects, by their terms."""
  pairs = zip(jax.tree.leaves(params), jax.tree.leaves(terms), strict=True)
  # The leaf too, so that no other object takes its id
  token = _TERMS.set({id(leaf): (leaf, own) for leaf, own in pairs})
  try:
    yield
  finally:
    _TERMS.reset(token)


def in_terms(params: Tree) -> Tree:
  """The parameters, as `Unreduced` those that `naming` has named; others, and what is computed from any, as they
  are."""
  known = _TERMS.get()
  if not known:
    return params

  def one(leaf: Any) -> Any:
    found = known.get(id(leaf))
    return leaf if found is None else Unreduced(jax.lax.stop_gradient(leaf), found[1])

  return jax.tree.map(one, params, is_leaf=is_unreduced)


def is_unreduced(leaf: Any) -> bool:
  """Whether a leaf of a tree of parameters is `Unreduced`."""
  return isinstance(leaf, Unreduced)


def stacked(params: Tree) -> Tree:
  """Parameters with a leading axis L of layers, to be sliced by a scan: terms get that axis as their first, too."""
  params = in_terms(params)
  return jax.tree.map(
    lambda leaf: Unreduced(leaf.value, jnp.moveaxis(leaf.terms, 0, 1))
    if is_unreduced(leaf) else leaf, params, is_leaf=is_unreduced)


def plain(leaf: Any) -> Any:
  """A parameter as an array. The gradient of one that is `Unreduced` is summed at once and divided evenly among its
  terms."""
  return _plain(leaf.value, leaf.terms) if is_unreduced(leaf) else leaf


@jax.custom_vjp
def _plain(value: Array, terms: Array) -> Array:
  del terms
  return value


# What is saved tells the type and the number of parts, and has no entries: a scan would stack them.
_plain.defvjp(lambda value, terms: (value, (jnp.zeros(0, value.dtype), jnp.zeros((len(terms), 0)))),
              lambda saved, slope: (jnp.zeros(slope.shape, saved[0].dtype), spread(slope, len(saved[1]))))


def spread(gradient: Array, parts: int) -> Array:
  """A gradient that is summed already, as terms whose sum it is."""
  return jnp.broadcast_to(gradient.astype(jnp.float32) / parts, (parts, *gradient.shape))


_SUM_TYPE: contextvars.ContextVar[Any] = contextvars.ContextVar('sum_type', default=jnp.float32)


@contextlib.contextmanager
def sums_in(dtype: Any) -> Iterator[None]:
  """Gradients of what is traced inside are summed over rows and devices in this type, in the place of float32;
  decorates functions, too."""
  token = _SUM_TYPE.set(jnp.dtype(dtype))
  try:
    yield
  finally:
    _SUM_TYPE.reset(token)


def sum_type(dtype: Any) -> Any:
  """The type in which the gradient of a parameter that meets activations of type `dtype` is summed."""
  return jnp.promote_types(dtype, _SUM_TYPE.get())


def multiply(x: Array, weight: Any, product: Product) -> Array:
  """product(x, weight), with gradients of the weight summed in float32.

  Args:
    x: activations in the compute type.
    weight: a parameter of any type, an array or `Unreduced`.
    product: what is computed.
  """
  weight = in_terms(weight)
  if is_unreduced(weight):
    return product(x, jax.lax.stop_gradient(weight.value)) + _term_p.bind(x, weight.terms, product=product)
  if weight.dtype == x.dtype:
    return product(x, weight)
  return _product_p.bind(x, weight, product=product)


def _zeros(x: Array, terms: Array, product: Product) -> Array:
  """The value of what carries gradients to the terms of `Unreduced`. XLA leaves out what adds it."""
  out = jax.eval_shape(product, x, jax.ShapeDtypeStruct(terms.shape[1:], x.dtype))
  return jnp.zeros(out.shape, out.dtype)


def _define(name: str, function: Callable[..., Array], lead: int) -> Primitive:
  """A primitive that is bilinear in (x, weight), whose gradient in the weight is its product's; the weight has `lead`
  axes of parts."""
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
  """B ... -> D B/D ..., each part of the batch on its devices; None if the batch has no such parts."""
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
  """The size of the mesh axis 'data', where it divides so many rows; else 1."""
  placement = sharding.active()
  data = 1 if placement is None else placement.mesh.shape['data']
  return data if rows % data == 0 else 1


def place_terms(terms: Array, *logical: str | None) -> Array:
  """Terms of a gradient on their devices; `logical` as of `genjax.sharding.layout`, of the axes after the first."""
  place = sharding.layout(terms.shape[1:], *logical, name='gradient of a parameter')
  if place is None:
    return terms
  first = 'data' if len(terms) == place.mesh.shape['data'] else None
  return jax.lax.with_sharding_constraint(terms, NamedSharding(place.mesh, PartitionSpec(first, *place.spec)))


def on_each_device(gradient: Callable[..., Array], columns: Sequence[Array], parts: int) -> Array:
  """A sum over rows in float32, to which each device adds for its own rows; see `Product.gradient` for `parts`.

  Args:
    gradient: columns, B ... each -> the sum over their rows.
    columns: arrays of B rows.
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
  """A parameter for code that runs on each device by itself, under `jax.shard_map`.

  Args:
    weight: an array or `Unreduced`.
    dtype: compute type.
    count: into how many parts the code's rows are split; the outermost axis of the split is 'data'.

  Returns:
    value: the parameter in the compute type, without a gradient.
    terms: float32 zeros of shape `count` and that of the parameter, to be split like the rows. `carried(value,
      terms[0])` on a device is the parameter, with its gradient from this device's rows.
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
  """The value, whose gradient goes to `terms`, of the same shape; see `carriers`."""
  del terms
  return value


carried.defvjp(lambda value, terms: (value, None), lambda _, slope: (jnp.zeros_like(slope), slope.astype(jnp.float32)))


def broadcast(bias: Any, shape: tuple[int, ...], dtype: Any) -> Array:
  """A parameter as so many rows of the compute type: what is added to each row, or multiplied with it.

  Args:
    bias: of the last axes of `shape`; an array or `Unreduced`.
    shape: of the result.
    dtype: of the result.
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
  """Rows of a table V C by index, of any shape B ..., in the compute type; the gradient of the table is float32."""
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
