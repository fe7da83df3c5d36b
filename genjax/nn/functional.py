"""Networks as pure functions.

`network` turns an NNX module into a pair of pure functions over plain nested dicts; the module itself is only used to
construct parameters. `stack` repeats a block by `jax.lax.scan`, so that compile time does not grow with depth.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from genjax import reduction, sharding
from genjax.nn import kernels
from genjax.types import Array, Key, Tree, UserError

REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': lambda primitive, *avals, **options: (
    primitive.name == reduction.PRODUCT
    or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *avals, **options)),
  'offload': jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[], names_which_can_be_offloaded=['block_input'], offload_src='device',
    offload_dst='pinned_host'),
}
OFFLOAD_PLATFORMS = ('gpu', 'tpu')  # CPUs have no separate host memory


class Network(NamedTuple):
  """A network as two pure functions over plain nested dicts of arrays.

  Kernels among the parameters may be `genjax.nn.kernels.Kernel`s.

  Attributes:
    init: key -> (params, mutable). `mutable` holds variables that change without gradients (batch statistics,
      codebooks, ...).
    apply: (params, mutable, *inputs, key=None, **options) -> (output, mutable). With a key the network is in training
      mode: it draws dropout from the key and normalises by batch statistics. `key=None` means inference.
  """

  init: Callable[[Key], tuple[Tree, Tree]]
  apply: Callable[..., tuple[Any, Tree]]


def network(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
  """Turns a module constructor into a `Network`.

  The module is called as `module(*inputs, key=key, **options)`. Variables other than `nnx.Param` become `mutable`.
  """
  template = nnx.eval_shape(lambda: build(_rngs(jax.random.key(0))))
  graph, param_spec, mutable_spec = nnx.split(template, nnx.Param, ...)
  aware = {
    tuple(map(str, path)) for path, module in nnx.iter_modules(template) if getattr(module, 'reads_unreduced', False)
  }

  def init(key: Key) -> tuple[Tree, Tree]:
    _, params, mutable = nnx.split(build(_rngs(key)), nnx.Param, ...)
    return _plain(params), _plain(mutable)

  def apply(params: Tree, mutable: Tree, *inputs, key: Key | None = None, **options) -> tuple[Any, Tree]:
    params = kernels.keyed(_readable(reduction.in_terms(params), aware), key)
    module = nnx.merge(graph, _fill(param_spec, params), _fill(mutable_spec, mutable))
    output = module(*inputs, key=key, **options)  # type: ignore[operator]  # every module of the project is callable
    return output, _plain(nnx.state(module, nnx.Not(nnx.Param)))

  return Network(init, apply)


class _Stream(nnx.RngStream):
  """A stream of keys whose count is a number of Python.

  The keys are those of `nnx.RngStream`. Its count is an array, whose every change searches all operations traced so far
  where initialization is traced: time grows with the square of the number of parameters.
  """

  drawn: int = 0

  def __call__(self) -> Key:
    key = jax.random.fold_in(self.key.get_value(), self.drawn)
    self.drawn += 1
    return key


def _rngs(key: Key) -> nnx.Rngs:
  rngs = nnx.Rngs(key)
  setattr(rngs, 'default', _Stream(key, tag='default'))  # noqa: B010, of parameters and of everything else
  return rngs


def stack(block: Network, depth: int, remat: str = 'none', unroll: bool = False) -> Network:
  """Repeats a block `depth` times. Its parameters get a leading axis L of that size.

  The block maps `x` to `x` of the same shape. Given `layers` (a tree with leading axis L, e.g. a cache), each block
  receives its slice as the keyword `layer` and returns `(x, slice)`; the output is then `(x, slices)`. The parameters
  may be a tuple from `genjax.nn.cpu.unstack`; `layers` and the returned slices are then tuples too.

  Args:
    block: the network of one block.
    depth: number of blocks L.
    remat: what the backward pass keeps of a block, see `rematerialise`.
    unroll: unroll the scan, with equal parameters and results. Steps are faster on CPUs, but compile time grows with
      depth.

  Raises:
    UserError: `remat` is unknown.
  """
  rematerialise(block.apply, remat)  # raises on an unknown name here, not at the first call

  def init(key: Key) -> tuple[Tree, Tree]:
    return jax.vmap(block.init)(jax.random.split(key, depth))

  def apply(params: Tree, mutable: Tree, x, *shared, key: Key | None = None, layers: Tree = None, **options):
    keys = None if key is None else jax.random.split(key, depth)

    def body(x, scanned):
      layer_params, layer_mutable, layer_key, layer = scanned
      extra = {} if layers is None else {'layer': layer}
      y, layer_mutable = block.apply(layer_params, layer_mutable, x, *shared, key=layer_key, **extra, **options)
      y, layer = (y, None) if layers is None else y
      return y, (layer_mutable, layer)

    if isinstance(params, tuple):
      done = []
      for index, layer_params in enumerate(params):
        layer_mutable, layer_key = jax.tree.map(lambda leaf: leaf[index], (mutable, keys))
        x, rest = body(x, (layer_params, layer_mutable, layer_key, None if layers is None else layers[index]))
        done.append(rest)
      mutables, slices = zip(*done)
      mutable = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mutables)
      return (x if layers is None else (x, slices)), mutable

    params = reduction.stacked(params)
    # Inside a scan XLA cannot merge the recomputation with the first computation, so no barrier is needed.
    body = rematerialise(body, remat, prevent_cse=unroll)
    x, (mutable, slices) = jax.lax.scan(body, x, (params, mutable, keys, layers), unroll=depth if unroll else 1)
    return (x if layers is None else (x, slices)), mutable

  return Network(init, apply)


def rematerialise(function: Callable[..., Any], remat: str, prevent_cse: bool = True) -> Callable[..., Any]:
  """Wraps a function (x, *others, **options) so that it stores less for the backward pass and recomputes the rest.

  Args:
    function: x is an array or a tree.
    remat: 'none' keeps everything that the gradient needs, 'dots' only matrix products, 'full' only the arguments.
      'offload' is 'full' with x in host memory until the backward pass needs it.
    prevent_cse: see `jax.checkpoint`.

  Raises:
    UserError: `remat` is unknown; or 'offload' is used on a platform without host memory (raised by the call).
  """
  if remat not in REMAT_POLICIES:
    raise UserError(f'remat must be one of {tuple(REMAT_POLICIES)}, got {remat!r}')
  if remat == 'none':
    return function

  def named(x, *others, **options):
    if remat == 'offload':
      if sharding.platform() not in OFFLOAD_PLATFORMS:
        raise UserError(
          f"remat='offload' moves activations to the host on {' and '.join(OFFLOAD_PLATFORMS)}, and this runs on "
          f"{sharding.platform()}; use remat='full', which keeps little more in memory")
      x = checkpoint_name(x, 'block_input')
    return function(x, *others, **options)

  return jax.checkpoint(named, policy=REMAT_POLICIES[remat], prevent_cse=prevent_cse)


def count(tree: Tree) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def dropout(x: Array, rate: float, key: Key | None) -> Array:
  """Inverted dropout (Srivastava et al. 2014); the identity without a key or at rate 0."""
  if key is None or rate == 0.0:
    return x
  return drop(x, jax.random.bernoulli(key, 1.0 - rate, x.shape), rate)


def drop(x: Array, kept: Array | None, rate: float) -> Array:
  """`dropout` by a given mask: True entries are kept and rescaled. With None all are kept as they are."""
  return x if kept is None else jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def absorb_bias(x_BTD: Array, weight_VD: Array, bias_V: Array) -> tuple[Array, Array]:
  """Adds a channel to x and weight, so that x weight^T includes the bias."""
  x_BTD, weight_VD = jnp.concatenate([x_BTD, jnp.ones_like(x_BTD[..., :1])], axis=-1), reduction.plain(weight_VD)
  return x_BTD, jnp.concatenate([weight_VD, bias_V[:, None].astype(weight_VD.dtype)], axis=-1)


def _plain(state: nnx.State) -> Tree:
  """An NNX state as nested dicts with string keys (list indices become '0', '1', ...), the form in checkpoints."""
  return _rename(nnx.to_pure_dict(state), str)


def _fill(spec: nnx.State, tree: Tree) -> nnx.State:
  """Fills the abstract state `spec` with the leaves of a plain tree: arrays or `Kernel`s."""
  state = jax.tree.map(lambda leaf: leaf, spec)
  nnx.replace_by_pure_dict(state, _rename(tree, lambda name: int(name) if name.isdigit() else name))
  return state


def _readable(params: Tree, aware: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> Tree:
  """Converts `genjax.reduction.Unreduced` parameters to arrays, except in modules that support them (`aware`)."""
  if isinstance(params, dict):
    return {name: _readable(value, aware, (*path, name)) for name, value in params.items()}
  # A `Kernel` is not `Unreduced`, whatever it contains.
  return params if path[:-1] in aware else reduction.plain(params)


def _rename(tree: Tree, rename: Callable[[Any], Any]) -> Tree:
  if not isinstance(tree, dict):
    return tree
  return {rename(name): _rename(value, rename) for name, value in tree.items()}
