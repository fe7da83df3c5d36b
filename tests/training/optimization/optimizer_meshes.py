"""Every optimizer on eight fake devices, beside one device; prints what was measured as a JSON line.

    python optimizer_meshes.py [NAME ...]
"""

import json
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from genjax.objectives.base import Output, Phase, Variables
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.training.run import Run, Settings
from genjax.types import leaf_name

STEPS = 3
AXES = {'net': (('blocks/kernel', ('layers', None, 'mlp')), ('embedding/embedding', ('vocab', None)))}
WIDE = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
MAKE = {name: {'name': name, 'lr': 0.01, **({'weight_decay': 0.1} if 'decay' in optimizers.takes(name) else {})}
        for name in optimizers.OPTIMIZERS}
MAKE['adafactor']['factor_from'] = 8
MAKE['parts'] = {'name': 'adamw', 'lr': 0.01, 'clip': 1.0, 'weight_decay': 0.1, 'parts': (
  ('embedding/.*', {'frozen': True}), ('head/.*', {'scale': 0.1}), ('.*bias', {'name': 'sgd', 'lr': 0.1}))}
OTHERS = {
  'optax.masked': lambda: optax.chain(optax.masked(optax.adam(0.01), WIDE), optax.scale(0.5)),
  'optax.partition': lambda: optax.partition({True: optax.contrib.muon(0.01), False: optax.set_to_zero()}, WIDE),
  'optax.flatten': lambda: optax.flatten(optax.adam(0.01)),
  'optax.add_noise': lambda: optax.chain(optax.add_noise(0.01, 0.55, key=jax.random.key(0)), optax.sgd(0.01)),
  'optax.inject_hyperparams': lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
  'optax.MultiSteps': lambda: optax.MultiSteps(optax.adam(0.01), 2).gradient_transformation(),
  'optax.contrib.prodigy': lambda: optax.contrib.prodigy(0.01),
}


class Data:
  """Random tokens."""

  batch_size = 8

  def iterate(self, start, rows):
    for step in range(start, 10**6):
      yield {'token': np.random.default_rng(step).integers(0, 32, (8, 4))[rows].astype(np.int32)}

  def epoch(self, rows):
    yield {**next(self.iterate(0, rows)), 'mask': np.ones(8, np.float32)[rows]}

  def fingerprint(self):
    return {}


class Network:
  """A table, two stacked layers and a head."""

  def init(self, key, frozen):
    draw = lambda number, *shape: 0.2 * jax.random.normal(jax.random.fold_in(key, number), shape)
    blocks = {'kernel': draw(1, 2, 16, 16), 'bias': draw(2, 2, 16)}
    net = {'embedding': {'embedding': draw(0, 32, 16)}, 'blocks': blocks,
           'head': {'kernel': draw(3, 16, 32), 'scale': jnp.ones(())}}
    return Variables({'net': net}, {})

  def phases(self):
    return (Phase('phase', ('net',), self.loss),)

  def loss(self, params, context, batch, key):
    net = params['net']
    x_BTD = net['embedding']['embedding'][batch['token']]
    layer = lambda x_BTD, block: (x_BTD + jnp.tanh(x_BTD @ block['kernel'] + block['bias']), None)
    x_BTD, _ = jax.lax.scan(layer, x_BTD, net['blocks'])
    logits = net['head']['scale'] * x_BTD @ net['head']['kernel']
    return Output(optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], batch['token'][:, 1:]).mean())

  def evaluate(self, params, context, batch, key):
    return {'loss': jnp.ones(8) * self.loss(params, context, batch, key).loss}

  def sample(self, params, context, keys, conditions):
    return {}


def host(tree):
  """Path -> array, keys as numbers."""
  is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return {leaf_name(path): np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def same(first, second):
  return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def train(experiment, mesh, devices):
  """A run after a few steps, and its parameters before them."""
  run = Run(experiment, Settings(steps=STEPS, batch_size=8, mesh=mesh), devices)
  run.initialise()
  initial = host(run.state.params)
  batches = experiment.train.iterate(0, run.rows(8))
  for _ in range(STEPS):
    run.train_step(next(batches))
  return run, initial


def measure(optimizer) -> dict:
  """What holds of one optimizer."""
  data = Data()
  example = {'token': jax.ShapeDtypeStruct((4,), np.int32)}
  experiment = Experiment(Network(), data, data, {'net': optimizer}, example, axes=AXES, ema={'net': 0.9})
  alone, initial = train(experiment, {'data': 1}, jax.devices()[:1])
  run, _ = train(experiment, {'data': 2, 'fsdp': 2, 'tensor': 2}, jax.devices())
  places = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(run.state.params)}
  large = [leaf for leaf in jax.tree.leaves(run.state.opt) if leaf.size > 100 and leaf.shape in places]
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(pathlib.Path(folder) / 'checkpoints')
    checkpoints.save(STEPS, run.state, {}, None)
    checkpoints.wait()
    restored = [checkpoints.restore(target.target, print) for target in (run, alone)]
    checkpoints.close()
  saved = host(run.state)
  first, second = host(alone.state.params), host(run.state.params)
  return {
    'difference': max(float(np.max(np.abs(first[name] - second[name]))) for name in first),
    'moved': {name: float(np.max(np.abs(first[name] - value))) for name, value in initial.items()},
    'placed': all(leaf.sharding.is_equivalent_to(places[leaf.shape], leaf.ndim) for leaf in large),
    'large': len(large),
    'restored': all(same(host(state), saved) for state in restored),
  }


if __name__ == '__main__':
  configured = lambda options: lambda: optimizers.from_config({'net': options}, STEPS)['net']
  made = {name: configured(options) for name, options in MAKE.items()}
  chosen = sys.argv[1].split(',') if len(sys.argv) > 1 else [*made, *OTHERS]
  print(json.dumps({name: measure({**made, **OTHERS}[name]()) for name in chosen}))
