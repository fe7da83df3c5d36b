"""Every config: its first step has golden numbers, and its full size is inspected. The smoke variant of one for each
model of each builder trains, evaluates, samples and saves."""

import functools
import importlib
import json
import pathlib

import jax
import pytest

from genjax.cli import configs
from genjax.cli.main import main
from genjax.configs.diffusion import sprites_text
from genjax.data.prepared import prepare
from genjax.runs import builders
from genjax.training.run import Run

ROOT = pathlib.Path(__file__).parent.parent
FILES = [path for path in (ROOT / 'configs').rglob('*.py') if path.stem not in ('__init__', 'common', 'sweeps')]
CONFIGS = sorted(path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in FILES)


def network(name):
  """The builder of a config, and the name of its model."""
  config = importlib.import_module(f'genjax.configs.{name.replace("/", ".")}').get_config('smoke')
  return config.experiment, config.model.get('name')


# Arguments without which there is no config
NEEDED = {'autoencoders/defects': ':data=FOLDER', 'classifiers/detector': ':generated=FOLDER'}
ONE_OF_EACH = sorted({network(name): name for name in CONFIGS}.values())
ORIGINALS = {
  'mnist': 'mnist', 'stacked_mnist': 'mnist', 'cifar10': 'cifar10', 'tiny_shakespeare': 'tinyshakespeare',
  'multi30k': 'multi30k',
  'names': 'names', 'shuffled_names': 'names', 'sst2': 'sst', 'jsb_chorales': 'jsb-chorales',
  'free_spoken_digits': 'fsdd', 'lpc_sprites': 'lpc-sprites', 'emoji_noto': 'emoji-noto'
}


@pytest.fixture
def flags_of(request):
  """name and arguments of a config -> its flags; a set that needs original files is built from the shared ones."""

  def flags(name: str, arguments: str = ':smoke') -> list[str]:
    argv = [f'--config={ROOT}/configs/{name}.py{arguments}']
    values, _ = configs.parse('train', argv, '')
    if values.config.data.get('splitter') == 'spacy':
      pytest.importorskip('spacy')
    if values.config.data.name in ORIGINALS:
      shared = request.getfixturevalue('shared_data')
      argv.append(f'--config.data.originals={shared / ORIGINALS[values.config.data.name]}')
    for further, _, _ in values.config.data.get('more', ()):
      prepare.open_builder(further, None, request.getfixturevalue('shared_data') / ORIGINALS[further])
    return argv

  return flags


@functools.cache
def first_step(argv):
  """Loss and gradient norm of every phase of the first step."""
  values, paths = configs.parse('train', argv, '')
  run = Run(builders.build(values.config, paths), builders.settings(values.config))
  run.initialise()
  metrics = jax.device_get(run.train_step(next(run.experiment.train.iterate(0, run.rows(run.settings.batch_size)))))
  return {key: float(value) for key, value in metrics.items() if key.endswith(('/loss', '/gradient_norm'))}


@pytest.mark.each_network
@pytest.mark.parametrize('name', CONFIGS)
def test_golden_first_step(name, flags_of, golden):
  golden(name.rpartition('/')[2], first_step(tuple(flags_of(name))))


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_full_size_is_inspected(name, flags_of):
  assert main(['inspect', *flags_of(name, NEEDED.get(name, ''))]) == 0


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_smoke_variant_runs_end_to_end(name, flags_of, tmp_path):
  assert main(['train', *flags_of(name), f'--workdir={tmp_path / "run"}']) == 0
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  assert summary['step'] == 2 and summary['heldout']
  if json.loads((tmp_path / 'run' / 'config.json').read_text())['sample_every']:
    assert list((tmp_path / 'run' / 'samples').iterdir())
  assert main(['evaluate', f'--workdir={tmp_path / "run"}', '--no-samples']) == 0


def test_sprites_without_a_code_have_a_smoke_variant():
  for argument in ('pixels,smoke', 'autoencoder=run,smoke'):
    assert 'code' not in sprites_text.get_config(argument)
  assert sprites_text.get_config('smoke').code.kept == 8
