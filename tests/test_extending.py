"""docs/extending.md: every example is imported and used, as its commands say."""

import ast
import importlib
import json
import math
import pathlib
import re
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.cli.main import main
from genjax.configs import quickstart
from genjax.diffusion import parameterizations, samplers, schedules, weightings
from genjax.experiments import images
from genjax.models.denoisers import dit
from genjax.models.transformers import decoder
from genjax.nn import blocks, norms
from genjax.runs import builders, exporting_safetensors, extensions, training
from genjax.tables import Table
from genjax.training.optimization import optimizers
from genjax.types import UserError, named_leaves

PAGE = (pathlib.Path(__file__).parent.parent / 'docs' / 'extending.md').read_text()
FILES = dict(re.findall(r'```python\n# (\w+\.py)\n(.*?)```', PAGE, re.S))
COMMANDS = [block.replace('\\\n', ' ') for block in re.findall(r'```bash\n(.*?)```', PAGE, re.S)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('own')
  for name, text in FILES.items():
    (folder / name).write_text(text)
  return folder


@pytest.fixture
def use(folder):
  """Imports files of the page for one test; gives their modules."""

  def load(*names):
    extensions.load([str(folder / f'{name}.py') for name in names])
    return [importlib.import_module(name) for name in names]

  yield load
  extensions.unload()


def flags(name):
  """key -> value of the `--config.` flags in the commands that import a file."""
  found = {}
  for command in COMMANDS:
    if f'--import={name}.py' in command and 'genjax train' in command:
      for key, quoted, bare in re.findall(r'--config\.([\w.]+)=(?:"([^"]*)"|(\S+))', command):
        try:
          found[key] = ast.literal_eval(quoted or bare)
        except (SyntaxError, ValueError):
          found[key] = bare
  return found


def config_of(*names, **changes):
  """The quickstart's smoke config with the flags of the page."""
  config = quickstart.get_config('smoke')
  for key, value in {**{key: value for name in names for key, value in flags(name).items()}, **changes}.items():
    *parents, leaf = key.split('.')
    node = config
    for parent in parents:
      node = node[parent]
    node[leaf] = value
  return config.lock()


def small(**options):
  return dit.DiT((8, 8, 1), **{'width': 16, 'depth': 2, 'heads': 2, 'num_classes': 3, 'frequencies': 8, **options})


def applied(net, scale=0.1):
  """The network's output at parameters that are not zero, and their tree."""
  params, _ = jax.jit(net.init)(jax.random.key(0))
  params = jax.tree.map(lambda leaf: leaf + scale * jnp.sin(jnp.arange(leaf.size, dtype=jnp.float32).reshape(
    leaf.shape)), params)
  image = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
  return jax.jit(net.apply)(params, {}, image, jnp.asarray([3.0, 700.0]), {'label': jnp.asarray([0, 2])})[0], params


def test_the_page_has_an_example_and_a_command_for_each_part():
  assert len(FILES) == 10
  for name in FILES:
    assert any(f'--import={name}' in command for command in COMMANDS), name
  listed = re.findall(r'^\| [^|]+ \| `([\w.]+)` \|', PAGE, re.M)
  assert len(listed) == 18
  for path in listed:
    module, _, table = path.rpartition('.')
    assert isinstance(getattr(importlib.import_module(module), table), Table), path


def test_sampler_is_of_second_order(use):
  use('my_sampler')
  process, deviation = schedules.flow(), 0.5
  denoise = lambda x, t: (1 - t) * deviation ** 2 / ((1 - t) ** 2 * deviation ** 2 + t ** 2) * x
  start = jnp.ones((1, 4))  # the ODE keeps x / sqrt(variance)

  def error(steps):
    times = schedules.sampling_times(process, steps)
    drawn = samplers.SAMPLERS['midpoint'](denoise, start, process, times, jax.random.split(jax.random.key(0), 1))
    return float(jnp.abs(drawn - deviation).max())

  assert error(16) < 1e-3 and error(8) / error(16) > 3


def test_process(use):
  use('my_process')
  process = schedules.PROCESSES['circle'](scale=10.0)
  time = jnp.linspace(0, 1, 11)
  np.testing.assert_allclose(process.alpha(time) ** 2 + process.sigma(time) ** 2, 1, atol=1e-6)
  assert process.sigma(jnp.float32(0)) == 0 and process.alpha(jnp.float32(1)) == 0
  assert process.embed(0.5) == 5


def test_weighting(use):
  use('my_weighting')
  weight = weightings.WEIGHTINGS['power_of_snr'](power=0.25)
  time = jnp.asarray([0.2, 0.5, 0.9])
  found = weight(schedules.flow(), parameterizations.epsilon(), time)
  np.testing.assert_allclose(found, ((1 - time) / time) ** (2 * 0.25 - 2), rtol=1e-4)


def test_norm_and_activation(use):
  use('my_norm')
  plain, params = applied(dit.network(small()))
  assert not [name for name in named_leaves(params) if 'norm' in name]
  own, params = applied(dit.network(small(norm='dynamic_tanh', activation='squared_relu')))
  assert {name for name in named_leaves(params) if 'norm' in name} == {
    'blocks/attention_norm/steepness', 'blocks/mlp_norm/steepness', 'head/norm/steepness'}
  assert np.isfinite(own).all() and not np.allclose(plain, own)
  assert blocks.ACTIVATIONS['squared_relu'](jnp.asarray([-2.0, 3.0])).tolist() == [0, 9]
  learned = norms.NORMS['dynamic_tanh'](4, epsilon=1e-6, scale=True, bias=True, dtype=jnp.bfloat16, rngs=None)
  assert learned(jnp.ones((2, 4))).dtype == jnp.bfloat16


def test_rms_norm_in_the_dit_needs_no_code():
  plain, params = applied(dit.network(small()))
  own, others = applied(dit.network(small(norm='rmsnorm')))
  assert list(named_leaves(params)) == list(named_leaves(others)) and not np.allclose(plain, own)


def test_block(use):
  module, = use('my_block')
  named, params = applied(dit.network(small(block='parallel')))
  given, _ = applied(dit.network(small(), block=module.Parallel))
  plain, others = applied(dit.network(small()))
  assert list(named_leaves(params)) == list(named_leaves(others))
  assert np.array_equal(named, given) and not np.allclose(named, plain)


def test_block_of_a_decoder(monkeypatch):

  class Scaled(decoder.Block):

    def __init__(self, config, rngs):
      super().__init__(config, rngs)
      self.gain = nnx.Param(jnp.ones(1))

    def __call__(self, x, key=None, **options):
      return self.gain * super().__call__(x, key, **options)

  monkeypatch.setitem(decoder.BLOCKS, 'scaled', Scaled)
  options = dict(vocab=5, context=4, layers=2, heads=2, width=8)
  for net in (decoder.transformer(decoder.TransformerConfig(**options, block='scaled')),
              decoder.transformer(decoder.TransformerConfig(**options), block=Scaled)):
    params, _ = jax.eval_shape(net.init, jax.random.key(0))
    assert params['blocks']['gain'].shape == (2, 1)
    logits, _ = jax.eval_shape(net.apply, params, {}, jnp.zeros((2, 4), jnp.int32))
    assert logits.shape == (2, 4, 5)
  with pytest.raises(ValueError, match='block must be one of .*scaled'):
    decoder.TransformerConfig(**options, block='nothing')


def test_optimizers(use):
  use('my_optimizers')
  params, gradient = {'kernel': jnp.asarray([1.0, 2.0])}, {'kernel': jnp.asarray([0.3, -4.0])}

  def update(optimizer):
    return optimizer.update(gradient, optimizer.init(params), params)[0]['kernel']

  own = optimizers.make('sign_momentum', 0.1, 10, momentum=0.5, weight_decay=0.5)
  np.testing.assert_allclose(update(own), [-0.1 * (1 + 0.5), -0.1 * (-1 + 1.0)], atol=1e-7)
  np.testing.assert_allclose(update(optimizers.make('novograd', 0.1, 10, b1=0.8)), update(optax.novograd(0.1, b1=0.8)))
  with pytest.raises(UserError, match="novograd has no option 'learning_rate'"):
    optimizers.make('novograd', 0.1, 10, learning_rate=0.2)
  with pytest.raises(UserError, match='must be one of .*sign_momentum'):
    optimizers.make('sign_momentun', 0.1, 10)


def test_data_source(use):
  use('my_data')
  config = config_of('my_data')
  train, heldout = images.batches(config, 'train'), images.batches(config, 'test', shuffle=False)
  batch = train.batch(0)
  assert batch['image'].shape == (8, 8, 8, 1)
  assert (batch['image'].argmax(axis=1)[:, 0, 0] == batch['label']).all()
  assert train.fingerprint()['examples'] == 800 and heldout.fingerprint()['examples'] == 80
  assert train.fingerprint() != heldout.fingerprint()


def test_metric(use):
  use('my_metric')
  config = config_of(evaluation={'metrics': ('brightness',)})
  metric = builders.build(config).metrics[-1]
  assert metric.name == 'brightness' and metric.card == {'function': 'my_metric.brightness'}
  draw = lambda num, conditions: {'image': np.full((num, 8, 8, 1), 100, np.uint8)}
  values = metric.compute(draw, 0)
  assert values['samples'] == 100 and 0 < values['samples'] - values['difference'] < 255
  with pytest.raises(UserError, match='config.evaluation.metrics must be one of .*brightness'):
    builders.build(config_of(evaluation={'metrics': ('brightnes',)}))


def test_builder(use):
  use('my_builder')
  config = config_of('my_builder')
  columns = {'image': np.zeros((4, 8, 8, 1), np.uint8)}
  plain = builders.build(config_of()).render(columns)['samples']
  assert np.array_equal(builders.build(config).render(columns)['samples'], 255 - np.asarray(plain))


TOGETHER = ('my_process', 'my_weighting', 'my_norm', 'my_block', 'my_optimizers', 'my_data', 'my_log', 'my_builder')


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
  """A run of 10 steps with all parts that training uses; the files that it was begun with are gone."""
  path = tmp_path_factory.mktemp('runs') / 'run'
  begun = shutil.copytree(folder, path.parent / 'begun')
  config = config_of(*TOGETHER, **{'steps': 10, 'sample_every': 0, 'evaluate_every': 0, 'checkpoint.every': 10,
                                   'model.depth': 1, 'sampler.guidance': 1.0})
  try:
    training.train(config, str(path), imports=[str(begun / f'{name}.py') for name in TOGETHER])
  finally:
    extensions.unload()
  shutil.rmtree(begun)
  return path


def test_a_run_with_parts_of_ones_own(run):
  kept = json.loads((run / 'run.json').read_text())
  assert kept['imports'] == [f'{name}.py' for name in TOGETHER]
  assert sorted(name for name, _ in kept['code']) == sorted(kept['imports'])
  assert {path.name for path in (run / 'imports').iterdir()} == set(kept['imports'])
  (step, loss), = [line.split(',') for line in (run / 'my_log.csv').read_text().splitlines()]
  assert step == '10' and math.isfinite(float(loss))


def test_it_is_sampled_elsewhere_and_with_a_sampler_of_ones_own(run, folder, tmp_path, monkeypatch):
  moved = shutil.copytree(run, tmp_path / 'moved')
  monkeypatch.chdir(tmp_path)
  argv = ['sample', f'--workdir={moved}', '--num=2', '--set', 'sampler.name=midpoint', '--out=samples.npz']
  try:
    assert main(argv) == 2  # no such sampler
    assert main([*argv, f'--import={folder / "my_sampler.py"}']) == 0
    label_N = np.load('samples.npz')['label']
    assert label_N.tolist() == [0, 1]
    assert main(['evaluate', f'--workdir={moved}', '--no-samples']) == 0
  finally:
    extensions.unload()


def test_it_leaves_as_tensors_with_the_files_that_it_keeps(run, tmp_path):
  try:
    assert main(['export', f'--workdir={run}', f'--to={tmp_path / "out"}', '--format=safetensors']) == 0
    extensions.unload()
    experiment, params, _ = exporting_safetensors.read(tmp_path / 'out')
    assert set(params) == {'net'} and experiment.objective.init(jax.random.key(0), {}).params.keys() == params.keys()
  finally:
    extensions.unload()


def test_it_goes_on_with_the_files_that_it_keeps(run, folder, tmp_path, capsys):
  moved = shutil.copytree(run, tmp_path / 'moved')
  mine = tmp_path / 'my_weighting.py'
  try:
    mine.write_text(FILES['my_weighting.py'].replace('(signal / noise)', '(2 * signal / noise)'))
    assert main(['train', f'--workdir={moved}', f'--import={mine}']) == 2
    assert 'not the file that the run' in capsys.readouterr().err
    extensions.unload()
    assert main(['train', f'--workdir={moved}', '--config.steps=20', f'--import={folder / "my_metric.py"}']) == 0
    assert [line.split(',')[0] for line in (moved / 'my_log.csv').read_text().splitlines()] == ['10', '20']
    imports = json.loads((moved / 'run.json').read_text())['imports']
    assert imports == [f'{name}.py' for name in (*TOGETHER, 'my_metric')]
    extensions.unload()
    (moved / 'imports' / 'my_norm.py').write_text('changed')
    assert main(['sample', f'--workdir={moved}', '--num=1', f'--out={tmp_path / "x.npz"}']) == 2
    assert 'my_norm.py is not the file that the run began with' in capsys.readouterr().err
  finally:
    extensions.unload()
