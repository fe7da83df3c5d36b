"""Adapters of the families' experiments, from their configs: GPT, DiT, VAE, GAN, U-Net."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from genjax import sharding
from genjax.cli import configs, inspect
from genjax.cli.main import main
from genjax.objectives.base import Context
from genjax.objectives.lora import BASE
from genjax.runs import builders
from genjax.training import state
from genjax.training.run import Run
from genjax.types import UserError, named_leaves

ROOT = pathlib.Path(__file__).parent.parent.parent
PATHS = {
  'language/python_code': ('blocks/attention/(query|value)/kernel',
                          ), 'quickstart': ('blocks/.*/kernel', 'embed/patch/kernel'),
  'autoencoders/digits_vae': ('.*/kernel',), 'language/mixtral': ('blocks/experts/.*kernel',),
  'gans/digits_gan': ('stages/.*/kernel',), 'diffusion/mnist_ddpm_unet': ('down/.*/kernel', 'middle/.*/kernel'),
  'diffusion/pixart': ('blocks/.*/kernel', 'embed/modulation/kernel'), 'diffusion/flux': ('(joint|single)/.*/kernel',)
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (
  'gans/digits_gan', 'diffusion/mnist_ddpm_unet', 'diffusion/pixart', 'diffusion/flux')]


def experiment(name, *flags):
  values, paths = configs.parse('train', [f'--config={ROOT}/configs/{name}.py:smoke', *flags], '')
  return builders.build(values.config, paths), values.config


@pytest.fixture
def pair(request):
  """name -> a run of the base, its parameters as they begin, and a run of its adapters."""

  def make(name, **lora):
    flags = ()
    if name == 'diffusion/mnist_ddpm_unet':
      flags = (f'--config.data.originals={request.getfixturevalue("shared_data") / "mnist"}',)
    base, config = experiment(name, *flags)
    variables = jax.jit(base.objective.init)(state.init_key(3), base.frozen)
    # A trained one: a layer that begins at zero passes no gradient on.
    params = jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
                          variables.params)
    variables = variables._replace(params=params)
    with config.unlocked():
      config.lora.update(rank=2, paths=PATHS[name], **lora)
    adapted = builders.build(config)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(adapted.frozen))
    frozen = {**base.frozen, BASE: {'params': jax.device_get(variables.params),
                                     'mutable': jax.device_get(variables.mutable)}}
    adapted = dataclasses.replace(adapted, frozen=frozen)
    runs = [Run(one, builders.settings(config)) for one in (base, adapted)]
    for run in runs:
      run.initialise()
    # Separate buffers: the state is donated.
    copy = jax.tree.map(lambda leaf: leaf.copy(), variables)
    ema = {group: jax.tree.map(lambda leaf: leaf.copy(), copy.params[group]) for group in runs[0].state.ema}
    runs[0].restore(dataclasses.replace(runs[0].state, params=copy.params, mutable=copy.mutable, ema=ema))
    return runs

  return make


def samples(run):
  return run.sample(3, seed=0, averaged=False)


@pytest.mark.each_network
@pytest.mark.parametrize('name',
                         ['language/python_code', 'quickstart', 'autoencoders/digits_vae', 'language/mixtral', *SLOW])
def test_begins_as_its_base_bit_for_bit_and_leaves_it_alone(name, pair):
  base, adapted = pair(name)
  before = jax.device_get(adapted.frozen)
  for run in (base, adapted):
    run.expected = samples(run)
  for column, rows in base.expected.items():
    np.testing.assert_array_equal(adapted.expected[column], rows)
  batches = list(zip(range(50 if name == 'language/python_code' else 3), base.experiment.train.iterate(0, slice(0, 8))))
  first = [jax.device_get(run.train_step(batches[0][1])) for run in (base, adapted)]
  losses = [{key: float(value) for key, value in metrics.items() if key.endswith('/loss')} for metrics in first]
  if name == 'gans/digits_gan':  # the base's generator answers a discriminator that has moved already
    losses = [{'discriminator/loss': loss['discriminator/loss']} for loss in losses]
  assert losses[0] == losses[1]
  initial = jax.device_get(adapted.state.params)
  for _, batch in batches[1:]:
    adapted.train_step(batch)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(adapted.frozen), before)
  still = [
    name for name, leaf in named_leaves(adapted.state.params).items()
    if np.array_equal(leaf, named_leaves(initial)[name])
  ]
  assert not still
  assert set(
    adapted.state.params) == ({'lora_discriminator', 'lora_generator'} if name == 'gans/digits_gan' else {'lora'})
  assert set(adapted.state.ema) == {('lora' if group == 'net' else f'lora_{group}') for group in base.state.ema}


HALF = {
  'language/python_code': ('--config.model.remat=full', '--config.model.unroll=False'), 'language/mixtral': (),
  'quickstart': (), 'gans/digits_gan': ()
}


@pytest.mark.parametrize('name', [
  'language/python_code', 'gans/digits_gan',
  pytest.param('language/mixtral', marks=pytest.mark.slow),
  pytest.param('quickstart', marks=pytest.mark.slow)
])
def test_the_base_is_kept_in_the_compute_type_and_trains_alike(name):
  """Losses and updates of adapters over a base in float32 and over one as small as losses read it: equal but for the
  order of sums."""
  paths = 'blocks/.*kernel' if name in ('language/python_code', 'language/mixtral') else PATHS[name][0]
  flags = ('--config.model.dtype=bfloat16', '--config.lora.rank=2', f"--config.lora.paths=('{paths}',)", *HALF[name])
  whole, config = experiment(name, *flags, '--config.lora.dtype=float32')
  small, _ = experiment(name, *flags)
  types = {path: leaf.dtype.name for path, leaf in named_leaves(small.frozen).items() if path.endswith('kernel')}
  if name == 'gans/digits_gan':  # a spectral norm is computed in float32
    assert {types[path] for path in types if '/discriminator/' in path} == {'float32'}
    assert {types[path] for path in types if '/generator/' in path} == {'bfloat16'}
  else:
    assert set(types.values()) == {'bfloat16'}
  assert {leaf.dtype.name for path, leaf in named_leaves(whole.frozen).items() if path.endswith('kernel')
         } == {'float32'}
  values = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape).astype(leaf.dtype),
                        whole.frozen)
  found = []
  for adapted in (whole, small):
    frozen = jax.device_get(jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), values, adapted.frozen))
    run = Run(dataclasses.replace(adapted, frozen=frozen), builders.settings(config))
    run.initialise()
    batch = next(iter(whole.train.iterate(0, slice(0, 8))))
    found.append(jax.device_get((run.train_step(batch), run.state.params)))
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6), found[0][0],
               found[1][0])
  apart = [np.abs(one - other) > 1e-5 for one, other in zip(*(jax.tree.leaves(params) for _, params in found))]
  # Adam moves an entry by the sign of its gradient
  assert np.mean(np.concatenate([entries.ravel() for entries in apart])) < 0.01


def test_the_type_of_the_base_is_an_option():
  flags = ('--config.lora.rank=2', f'--config.lora.paths={PATHS["language/python_code"]}')
  for dtype in ('', 'float32', 'bfloat16'):
    adapted, _ = experiment('language/python_code', *flags, f'--config.lora.dtype={dtype}')
    types = {leaf.dtype.name for name, leaf in named_leaves(adapted.frozen).items() if name.endswith('kernel')}
    assert types == {dtype or 'float32'}  # the compute type of this config
    assert {leaf.dtype.name for name, leaf in named_leaves(adapted.frozen).items() if not name.endswith('kernel')
           } == {'float32'}
  with pytest.raises(UserError, match='config.lora.dtype must be one of'):
    experiment('language/python_code', *flags, '--config.lora.dtype=int8')


@pytest.mark.parametrize('name, mesh', [('language/python_code', dict(fsdp=2, tensor=2)),
                                        ('language/mixtral', dict(fsdp=2, expert=2, tensor=2))])
def test_the_step_of_adapters_is_split_as_its_base_is(name, mesh):
  """Traced under the mesh: what does not divide would raise."""
  adapted, config = experiment(name, '--config.lora.rank=2', f'--config.lora.paths={PATHS[name]}',
                               '--config.lora.dropout=0.1')
  abstract = inspect.abstract_mesh(','.join(f'{axis}:{size}' for axis, size in mesh.items()))
  step = sharding.under(abstract, {}, lambda *args: adapted.objective.phases()[0].loss(*args).loss)
  variables = jax.eval_shape(adapted.objective.init, jax.random.key(0), adapted.frozen)
  context = Context(jax.ShapeDtypeStruct((), np.int32), variables.mutable, {}, adapted.frozen)
  slopes = jax.eval_shape(jax.grad(step), variables.params, context, adapted.batch_shapes(config.batch_size),
                          jax.random.key(0))
  assert {leaf.dtype.name for leaf in jax.tree.leaves(slopes)} == {'float32'}


def test_adapters_lie_on_a_mesh_as_their_kernels():
  adapted, config = experiment('language/python_code', '--config.lora.rank=2',
                               f'--config.lora.paths={PATHS["language/python_code"]}')
  assert dict(adapted.axes['lora'])['blocks/attention/query/kernel/B'] == ('layers', None, 'heads')
  assert adapted.origins == {'lora': 'net'} and adapted.optimizers.keys() == {'lora'}


@pytest.mark.parametrize(
  ('flags', 'said'),
  [(("--config.lora.paths=('.*/kernel',)",), 'rank >= 1'), (('--config.lora.rank=2',), 'needs paths'),
   (('--config.lora.rank=2', "--config.lora.paths=('.*/kernel',)", "--config.lora.groups=('nett',)"),
    r"names \['nett'\]; the groups are"),
   (('--config.lora.rank=2', "--config.lora.paths=('blocks/.*',)"), 'matches blocks/attention/key/bias'),
   (('--config.lora.rank=2', "--config.lora.paths=('block/.*',)"), 'matches no parameter. The kernels of'),])
def test_bad_options(flags, said):
  with pytest.raises(UserError, match=said):
    experiment('quickstart', *flags)


def test_a_group_in_which_nothing_matches():
  with pytest.raises(UserError, match=r"names \['discriminator'\], where none of"):
    experiment('gans/digits_gan', '--config.lora.rank=2', "--config.lora.paths=('project/kernel',)",
               "--config.lora.groups=('generator', 'discriminator')")
  adapted, _ = experiment('gans/digits_gan', '--config.lora.rank=2', "--config.lora.paths=('project/kernel',)")
  assert adapted.origins == {'lora': 'generator'}
  assert [phase.name for phase in adapted.objective.phases()] == ['generator']


def test_inspect_counts_what_is_trained(capsys):
  """GPT-2 medium's sizes, queries and values at rank 4, in the layout of a mesh."""
  flags = [
    '--config.model.layers=24', '--config.model.heads=16', '--config.model.width=1024', '--config.lora.rank=4',
    '--mesh=tensor:2'
  ]
  assert main([
    'inspect', f'--config={ROOT}/configs/language/gpt3.py', *flags,
    f'--config.lora.paths={PATHS["language/python_code"]}'
  ]) == 0
  out = capsys.readouterr().out
  assert 'parameters in total: 393,216' in out and 'parameters of lora: 393,216' in out
  row = next(line for line in out.splitlines() if line.startswith('lora') and 'query/kernel/B' in line)
  assert row.split()[2:] == ['24', 'x', '4', 'x', '1024', '98,304', '-', '-', 'tensor', 'adamw']
