"""What eight fake devices compute of gradients in terms, beside one device, and what a train step sends; prints a JSON
line."""

from collections.abc import Callable
import dataclasses
import json
import sys
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import reduction, sharding
from genjax.cli import configs
from genjax.nn.conv import Conv, ConvTranspose, Dense
from genjax.nn.embeddings import Embed
from genjax.nn.experts import Experts
from genjax.nn.functional import network
from genjax.nn.norms import GroupNorm, LayerNorm, RMSNorm
from genjax.objectives.base import Context, Output, Phase
from genjax.objectives.cross_entropy import token_losses
from genjax.planning import hlo
from genjax.runs import builders
from genjax.training import accumulation
from genjax.training.run import Run

DATA = 4
MESH = {'data': DATA, 'fsdp': 2}


class Images(nnx.Module):
  """One of each layer of images."""

  def __init__(self, dtype: Any, rngs: nnx.Rngs):
    self.down, self.norm = Conv(3, 8, 3, 2, rngs=rngs, dtype=dtype), GroupNorm(8, 2, rngs=rngs, dtype=dtype)
    self.up, self.mix = ConvTranspose(8, 4, 4, 2, rngs=rngs, dtype=dtype), Conv(4, 5, 1, rngs=rngs, dtype=dtype)
    self.out = Dense(5, 2, rngs=rngs, dtype=dtype)

  def __call__(self, x_BHWC, key=None):
    return self.out(self.mix(jax.nn.silu(self.up(self.norm(jax.nn.silu(self.down(x_BHWC)))))))


class Tokens(nnx.Module):
  """One of each layer of tokens."""

  def __init__(self, dtype: Any, rngs: nnx.Rngs):
    init = nnx.initializers.normal(0.5)
    self.embed = Embed(12, 8, rngs=rngs)
    self.first, self.second = LayerNorm(8, rngs=rngs, dtype=dtype), RMSNorm(8, rngs=rngs, dtype=dtype)
    self.experts = Experts(8, 6, 4, 2, activation=jax.nn.silu, dtype=dtype, kernel_init=init, out_init=init, rngs=rngs)
    self.scale = nnx.Param(jnp.ones(8))  # which no layer knows

  def __call__(self, tokens_BT, key=None):
    return self.experts(self.first(self.embed(tokens_BT)))[0] + self.second(self.embed(tokens_BT)) * self.scale[...]


def terms(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: reduction.Unreduced(leaf, jnp.zeros((DATA, *leaf.shape))), tree)


def compare(function: Callable[..., Any], params: Any, *inputs: Any) -> dict[str, float]:
  """Largest difference of gradients on the mesh from those of one device, relative to the largest entry; and the least
  part of terms."""
  mesh = sharding.make_mesh(MESH)
  alone = jax.grad(function)(params, *inputs)
  plain = jax.jit(sharding.under(mesh, {}, jax.grad(function)))(params, *inputs)
  split = jax.jit(sharding.under(mesh, {}, jax.grad(function)))(terms(params), *inputs)
  values = jax.tree.map(lambda leaf: leaf.terms, split, is_leaf=reduction.is_unreduced)
  apart = lambda found: max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
                            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone)))
  shares = [float(jnp.min(jnp.sum(jnp.abs(leaf), axis=tuple(range(1, leaf.ndim))))) for leaf in jax.tree.leaves(values)]
  return {'plain': apart(plain), 'terms': apart(jax.tree.map(lambda leaf: leaf.sum(0), values)), 'least': min(shares)}


def layers() -> dict[str, Any]:
  report = {}
  random = np.random.default_rng(0)
  x_BHWC = jnp.asarray(random.normal(size=(16, 8, 8, 3)), jnp.float32)
  tokens_BT = jnp.asarray(random.integers(0, 12, (16, 6)))
  for dtype in (jnp.float32, jnp.bfloat16):
    for kind, inputs in ((Images, x_BHWC), (Tokens, tokens_BT)):
      net = network(lambda rngs, kind=kind, dtype=dtype: kind(dtype, rngs))
      params, _ = net.init(jax.random.key(0))
      loss = lambda params, x, net=net: jnp.mean(jnp.sin(net.apply(params, {}, x)[0].astype(jnp.float32)))
      report[f'{kind.__name__} {dtype.__name__}'] = compare(loss, params, inputs)
      if kind is Images:
        penalty = lambda params, x, loss=loss: jnp.sum(jax.grad(lambda x: loss(params, x))(x).astype(jnp.float32) ** 2)
        report[f'penalty {dtype.__name__}'] = compare(penalty, {**params, 'out': {**params['out']}}, inputs)
  hidden_BTD, weight_VD = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((16, 6, 8), (12, 8)))
  for chunks in (1, 3):
    loss = lambda weight, hidden, chunks=chunks: jnp.sum(
      token_losses(hidden, weight['w'], tokens_BT, chunks)[0] * jnp.arange(6.0))
    report[f'cross-entropy in {chunks}'] = compare(loss, {'w': weight_VD}, hidden_BTD)
  return report


def accumulated() -> dict[str, float]:
  """Largest difference of gradients of two microbatches, summed once a step, from those that each of them sums."""
  mesh, x = sharding.make_mesh(MESH), jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 3)), jnp.float32)
  net = network(lambda rngs: Images(jnp.float32, rngs))
  params = {'net': net.init(jax.random.key(0))[0]}
  layout = jax.tree.map(lambda _: sharding.replicated(mesh), params)
  on_data = jax.tree.map(
    lambda leaf: sharding.NamedSharding(mesh, sharding.PartitionSpec(*[None] * (leaf.ndim - 1), 'data')), params)
  read = lambda params, x: jnp.sin(net.apply(params, {}, x)[0])
  losses = {
    'alone': lambda params, x: jnp.mean(read(params, x)),
    'with a penalty': lambda params,
    x: jnp.mean(read(params, x)) + sum(jnp.sum(leaf ** 2) for leaf in jax.tree.leaves(params)),
    'of examples': lambda params, x: jnp.mean(jax.vmap(lambda x: jnp.mean(read(params, x[None])) ** 2)(x)),
  }
  report = {}
  for name, loss in losses.items():
    phase = Phase('only', ('net',),
                  lambda params, context, batch, key, loss=loss: Output(loss(params['net'], batch['x'])))
    context = Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})
    gradients = lambda layout, phase=phase, context=context: jax.jit(
      sharding.under(
        mesh, {}, lambda: accumulation.gradients(phase, params, context, {'x': x}, jax.random.key(0), 2, lambda group,
                                                 tree: tree, layout)[0]))()
    wanted = gradients({})
    for kind, places in (('', layout), (' on data', on_data)):
      apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))), gradients(places), wanted)
      report[name + kind] = max(jax.tree.leaves(apart))
  return report


def sent(flags: list[str], mesh: dict[str, int], microbatches: int, reduce: str = 'float32') -> dict[str, Any]:
  """Bytes that a device sends in a step, by kind of collective."""
  values, paths = configs.parse('train', flags, '')
  experiment, settings = builders.build(values.config, paths), builders.settings(values.config)
  run = Run(experiment, dataclasses.replace(settings, mesh=mesh, microbatches=microbatches, reduce=reduce))
  program = hlo.Program(run.lower_step().compile().as_text())
  return {kind: traffic.bytes for kind, traffic in program.collectives().items()}


if __name__ == '__main__':
  flags = sys.argv[1:]
  print(
    json.dumps(
      {'layers': layers(), 'accumulated': accumulated(),
       'sent': [sent(flags, {'data': 8}, count) for count in (1, 4)]}))
