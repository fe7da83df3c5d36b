"""Bad input ends with exit code 2 and a message that says what was expected, what came and what to do."""

import pathlib
import shutil

import numpy as np
import pytest

from genjax.cli.main import main
from genjax.training.run import Run

ROOT = pathlib.Path(__file__).parent.parent.parent
VAE = f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'
TEXT = f'--config={ROOT}/configs/language/python_code.py:smoke'
FLOW = f'--config={ROOT}/configs/quickstart.py:smoke'


def fails(capsys, *argv, code=2):
  """Runs a command that must fail; returns what it said."""
  assert main([str(arg) for arg in argv]) == code
  return capsys.readouterr().err


@pytest.fixture(scope='module')
def trained(smoke_run):
  """A finished run of a VAE, of a language model and of a flow."""
  names = {'vae': 'autoencoders/digits_vae', 'text': 'language/python_code', 'flow': 'quickstart'}
  return {name: smoke_run(config) for name, config in names.items()}


@pytest.mark.parametrize(('override', 'words'), [
  ('--config.optimizers.net.lrr=3', ("'optimizers.net.lrr'", "'optimizers.net.lr'")),
  ('--config.stepz=3', ("'stepz'", "'steps'")),
  ('--config.batch_size=many', ('batch_size', 'many')),
  ('--config.batch_size=2.5', ('batch_size', '2.5')),
  ('--wrkdir=x', ('wrkdir', 'workdir')),
  ('extra', ('extra',)),
  ('--config.data.name=digitz', ('digitz', 'digits')),
  ('--config.data.train=trian', ('trian', 'train')),
  ('--config.batch_size=0', ('batch_size',)),
  ('--config.mesh.tensor=3', ('mesh', 'tensor', '1 devices')),
  ('--config.model.name=mpl', ('config.model.name', 'mlp')),
  ('--config.experiment=experiments.vea', ('genjax.experiments.vea',)),
  ('--config.experiment=', ('config.experiment=', 'genjax.experiments.diffusion')),
  ('--config.experiment=.', ('config.experiment=', 'genjax.experiments.diffusion')),
  ('--config.checkpoint.mode=lowest', ("'min' or 'max'",)),
  ('--config.checkpoint.best=fid', ("'fid'", 'negative_elbo')),
  ('--config.microbatches=3', ('microbatches', 'multiple of 3')),
])
def test_bad_config(capsys, tmp_path, override, words):
  said = fails(capsys, 'train', VAE, f'--workdir={tmp_path / "run"}', override)
  assert all(word in said for word in words), said
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize(('config', 'overrides', 'words'), [
  ('autoencoders/digits_vae', ['data.heldout=nothing'], "'nothing'"),
  ('language/python_code', ['data.heldout=test[:0%]'], ''),
  ('autoencoders/digits_vae', ['sample_num=0', 'sample_every=1'], 'config.sample_num must be at least 1, got 0'),
  ('classifiers/digits_classifier', ['sample_every=1'], 'a classifier'),
  ('language/python_code', ['sampler.beams=1000'], 'beams'),
  ('autoencoders/digits_vae', ['checkpoint.best=fid', 'evaluate_every=1'], "'fid'"),
])
def test_what_would_fail_at_the_end_fails_before_the_first_step(capsys, tmp_path, monkeypatch, config, overrides,
                                                                words):
  monkeypatch.setattr(Run, 'initialise', lambda self: pytest.fail('the initial state was computed'))
  said = fails(capsys, 'train', f'--config={ROOT}/configs/{config}.py:smoke', f'--workdir={tmp_path / "run"}',
               *(f'--config.{override}' for override in overrides))
  assert words in said, said
  assert not (tmp_path / 'run' / 'config.json').exists()


def test_missing_config_and_argument(capsys, tmp_path):
  assert 'quickstart.py' in fails(capsys, 'train', f'--config={ROOT}/configs/quickstrat.py', f'--workdir={tmp_path}')
  assert '--config=FILE' in fails(capsys, 'train', f'--workdir={tmp_path}')
  assert '--workdir' in fails(capsys, 'train', VAE)
  said = fails(capsys, 'train', f'--config={ROOT}/configs/autoencoders/digits_vae.py:smok', f'--workdir={tmp_path}')
  assert 'smoke' in said and 'Traceback' not in said
  assert "'train'" in fails(capsys, 'trian')


def test_data_that_cannot_be_had_names_the_command(capsys, tmp_path):
  said = fails(capsys, 'train', VAE, f'--workdir={tmp_path / "run"}', '--config.data.name=mnist',
               f'--config.data.data_dir={tmp_path}')
  assert 'genjax data build mnist --from=' in said


def test_batch_that_devices_do_not_divide(capsys, tmp_path):
  # One device: the mesh asks for more than there are, which is the same check at another number.
  assert 'devices' in fails(capsys, 'train', VAE, f'--workdir={tmp_path}', '--config.mesh.data=2')


def test_unwritable_workdir(capsys, tmp_path):
  (tmp_path / 'file').write_text('')
  assert 'cannot be written' in fails(capsys, 'train', VAE, f'--workdir={tmp_path / "file" / "run"}')


def test_workdir_of_another_config(capsys, trained):
  said = fails(capsys, 'train', VAE, f'--workdir={trained["vae"]}', '--config.checkpoint.every=1',
               '--config.optimizers.net.lr=0.5')
  assert 'optimizers.net.lr: 0.001 there, 0.5 now' in said


def test_no_run_and_no_checkpoint(capsys, tmp_path, trained):
  assert 'no run directory' in fails(capsys, 'sample', f'--workdir={tmp_path}', '--out=x.png')
  folder = tmp_path / 'run'
  shutil.copytree(trained['vae'], folder)
  shutil.rmtree(folder / 'checkpoints')
  assert 'no complete checkpoint' in fails(capsys, 'evaluate', f'--workdir={folder}')


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_half_written_checkpoint_falls_back_to_the_last_complete_one(capsys, tmp_path, trained):
  folder = tmp_path / 'run'
  shutil.copytree(trained['vae'], folder)
  for path in (folder / 'checkpoints' / '2' / 'state').rglob('*'):
    if path.is_file() and '/d/' in str(path):
      path.write_bytes(path.read_bytes()[:20])
  assert main(['sample', f'--workdir={folder}', '--num=2', f'--out={tmp_path / "x.npz"}']) == 0
  said = capsys.readouterr().err
  assert 'checkpoints/2 cannot be read' in said and 'step 1' in said
  assert np.load(tmp_path / 'x.npz')['image'].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(('run', 'argv', 'words'), [
  ('flow', ['--conditions=lable=3'], ("'lable'", 'label')),
  ('flow', ['--conditions=label=10'], ('0 to 9', "'10'")),
  ('flow', ['--set', 'sampler.name=heum'], ('heum', 'heun')),
  ('flow', ['--set', 'sampler.stepz=3'], ('sampler.stepz', 'sampler.steps')),
  ('flow', ['--set', 'optimizers.net.lr=3'], ('optimizers.net.lr',)),
  ('flow', ['--step=77'], ('step 77',)),
  ('flow', ['--num=0'], ('--num',)),
  ('flow', ['--prompt=hello'], ("'prompt'",)),
  ('vae', ['--conditions=label=1'], ("'label'", 'none')),
  ('text', ['--prompt='], ('1 to 15 tokens',)),
])
def test_bad_sampling(capsys, tmp_path, trained, run, argv, words):
  said = fails(capsys, 'sample', f'--workdir={trained[run]}', f'--out={tmp_path / "x.npz"}', *argv)
  assert all(word in said for word in words), said


def test_unknown_character_in_a_prompt(capsys, tmp_path):
  text = tmp_path / 'corpus.txt'
  text.write_text('abcdef ' * 50)
  argv = [
    'train', f'--config={ROOT}/configs/language/shakespeare_char.py:smoke', f'--workdir={tmp_path / "run"}',
    f'--config.data.name={text}', '--config.data.vocabulary=char', '--config.data.train=train[:70%]',
    '--config.data.heldout=train[70%:]', '--config.data.start=a'
  ]
  assert main(argv) == 0
  capsys.readouterr()
  said = fails(capsys, 'sample', f'--workdir={tmp_path / "run"}', '--prompt=abZ')
  assert "'Z'" in said and 'abcdef' in said
  # The text is gone: a run samples from its directory alone.
  text.unlink()
  assert main(['sample', f'--workdir={tmp_path / "run"}', '--prompt=abc', '--num=1']) == 0
  assert capsys.readouterr().out.startswith('abc')


def test_ending_of_the_output(capsys, tmp_path, trained):
  assert '.png' in fails(capsys, 'sample', f'--workdir={trained["vae"]}', f'--out={tmp_path / "x.txt"}')


def test_divergence_stops_with_step_and_phase_and_keeps_the_last_good_checkpoint(capsys, tmp_path):
  argv = [
    'train', VAE, f'--workdir={tmp_path / "run"}', '--config.steps=40', '--config.checkpoint.every=1',
    '--config.checkpoint.keep=40', '--config.optimizers.net.name=sgd', '--config.optimizers.net.lr=1e6',
    '--config.objective.scale=1e-3', '--config.sample_every=0'
  ]
  said = fails(capsys, *argv, code=3)
  assert "phase 'elbo'" in said and 'at step' in said and 'last good checkpoint' in said
  assert main(['evaluate', f'--workdir={tmp_path / "run"}', '--no-samples']) == 0


def test_group_without_phase(capsys, tmp_path):
  (tmp_path / 'one_sided.py').write_text(
    'import dataclasses\n'
    'from experiments import vae\n'
    'from genjax.objectives.base import Variables\n\n\n'
    'class Lopsided:\n'
    '  def __init__(self, inner): self.inner = inner\n'
    '  def __getattr__(self, name): return getattr(self.inner, name)\n'
    '  def init(self, key, frozen):\n'
    '    variables = self.inner.init(key, frozen)\n'
    "    return Variables({**variables.params, 'idle': variables.params['net']}, variables.mutable)\n\n\n"
    'def build(config):\n'
    '  experiment = vae.build(config)\n'
    '  return dataclasses.replace(experiment, objective=Lopsided(experiment.objective))\n')
  config = tmp_path / 'config.py'
  config.write_text(
    pathlib.Path(f'{ROOT}/configs/autoencoders/digits_vae.py').read_text().replace('genjax.experiments.vae',
                                                                                   'one_sided'))
  said = fails(capsys, 'train', f'--config={config}:smoke', f'--workdir={tmp_path / "run"}')
  assert "no phase trains: ['idle']" in said and "['idle', 'net']" in said
