"""What `import genjax` offers to notebooks: runs are opened, trained, sampled and evaluated as by the commands."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import genjax
from genjax.cli.main import main
from genjax.runs import configs, sampling
from genjax.training import hooks
from genjax.training.experiment import Condition
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
FLOW = f'{ROOT}/configs/quickstart.py:smoke'
TEXT = f'{ROOT}/configs/language/python_code.py:smoke'


class Noted(hooks.Hook):
  """A hook of one's own."""

  def __init__(self):
    self.steps = []

  def after_step(self, run, metrics):
    self.steps.append(run.step)


@pytest.fixture(scope='module')
def noted():
  return Noted()


@pytest.fixture(scope='module')
def run(tmp_path_factory, noted):
  return genjax.train(FLOW, tmp_path_factory.mktemp('runs') / 'flow', hooks=[noted], sample_every=0,
                      optimizers=dict(net=dict(lr=0.01)), **{'checkpoint.every': 1})


@pytest.fixture(scope='module')
def text_run(tmp_path_factory):
  return genjax.train(TEXT, tmp_path_factory.mktemp('runs') / 'text', sample_every=0)


def test_the_import_loads_nothing_and_the_names_load_when_they_are_used():
  program = ("import sys, genjax; assert {'open', 'train'} <= set(dir(genjax))\n"
             "print([name for name in ('jax', 'numpy', 'ml_collections') if name in sys.modules])\n"
             "from genjax import open, train; print('jax' in sys.modules, train.__module__)\n"
             "try: genjax.sample\nexcept AttributeError as error: print(error)")
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True,
                        env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert done.stdout == "[]\nTrue genjax.runs.api\nmodule 'genjax' has no attribute 'sample'\n"


def test_a_config_file_trains_with_changes_and_hooks(run, noted):
  kept = json.loads((run.workdir / 'config.json').read_text())
  assert kept['optimizers']['net']['lr'] == 0.01 and kept['checkpoint']['every'] == 1
  assert noted.steps == [1, 2] and run.step == 2 and run.steps == [1, 2]
  assert [line['step'] for line in run.metrics() if 'diffusion/loss' in line] == [1, 2]
  assert repr(run) == f"LoadedRun('{run.workdir}', step 2 of 2, genjax.experiments.diffusion)"


def test_samples_are_those_of_the_command(run, tmp_path):
  assert main(['sample', f'--workdir={run.workdir}', '--num=5', '--conditions=label=3', '--seed=7',
               f'--out={tmp_path / "x.npz"}']) == 0
  drawn = run.sample(5, label=3, seed=7)
  with np.load(tmp_path / 'x.npz') as there:
    assert set(there) == set(drawn)
    for name, column in drawn.items():
      np.testing.assert_array_equal(there[name], column)
  (picture,) = run.render(drawn).values()
  assert picture.dtype == np.uint8 and picture.ndim == 3
  assert run.write(drawn, tmp_path / 'new' / 'grid.png') == [tmp_path / 'new' / 'grid.png']
  with pytest.raises(UserError, match=r"as \.png"):
    run.write(drawn, tmp_path / 'grid.txt')


@pytest.mark.parametrize(('given', 'labels'), [
  (dict(label=[1, 7]), [1, 7]), (dict(num=3, label=(1, 7)), [1, 7, 1]), (dict(label=np.arange(3)), [0, 1, 2]),
  (dict(num=2, label=np.int64(4)), [4, 4]), (dict(label='5'), [5]), (dict(conditions={'label': ['5', 6]}), [5, 6]),
])
def test_conditions_are_values_lists_arrays_or_texts(run, given, labels):
  assert run.sample(**given)['label'].tolist() == labels


@pytest.mark.parametrize(('given', 'words'), [
  (dict(label=10), "0 to 9, got '10'"), (dict(lable=1), "Did you mean 'label'"), (dict(label=[]), 'no values'),
  (dict(label=True), 'got True'), (dict(label=1.5), "got '1.5'"), (dict(num=2, label=[1, 2, 3]), '3 values'),
  (dict(label=np.zeros((2, 2), int)), 'shape'), (dict(num=0), 'at least 1'), (dict(prompt='x'), "'prompt'"),
])
def test_what_a_condition_does_not_take(run, given, words):
  with pytest.raises(UserError, match=words):
    run.sample(**given)


def test_rows_of_several_axes():
  sound = Condition(lambda path: np.zeros((2, 3), np.float32), lambda row: np.zeros((2, 3), np.float32), 'a sound')
  text = Condition(lambda words: np.arange(len(words)), lambda row: np.zeros(1, int), 'a text', fill=-1)
  known = {'sound': sound, 'words': text}
  assert len(sampling.read(known, {'sound': np.ones((5, 2, 3))})['sound']) == 5
  assert sampling.read(known, {'sound': np.ones((2, 3))})['sound'][0].dtype == np.float32
  assert sampling.read(known, {'prompt': ['a', 'b']}) == {'words': ['a', 'b']}
  for wrong in ({'sound': np.ones((3, 2))}, {'words': [1, 2]}, {'prompt': 'a', 'words': 'b'}):
    with pytest.raises(UserError):
      sampling.read(known, wrong)


def test_texts_by_prompt(text_run):
  drawn = text_run.sample(prompt=['def a', 'import b'])
  (text,) = text_run.render(drawn).values()
  assert 'def a' in text and 'import b' in text
  assert list(text_run.conditions) == ['prompt']


def test_evaluation_is_that_of_the_command(text_run, capsys):
  scores = text_run.evaluate()
  kept = json.loads((text_run.workdir / 'evaluation.json').read_text())
  assert main(['evaluate', f'--workdir={text_run.workdir}']) == 0
  told = json.loads(capsys.readouterr().out)
  assert scores.metrics == pytest.approx(told['metrics']) and kept == told
  assert scores.card['step'] == 2 and scores.examples['loss'].mean() == pytest.approx(scores.metrics['heldout/loss'])


def test_export_writes_the_step_that_was_opened(text_run, tmp_path):
  assert text_run.export(tmp_path / 'public') == tmp_path / 'public'
  assert (tmp_path / 'public' / 'model.safetensors').is_file()
  with pytest.raises(UserError, match='not an empty folder'):
    text_run.export(tmp_path / 'public')


def test_a_run_is_opened_at_a_step_with_another_sampler(run):
  early = genjax.open(run.workdir, step=1, sampler=dict(steps=3))
  assert early.step == 1 and early.config.sampler.steps == 3
  assert not np.array_equal(early.sample(2)['image'], run.sample(2)['image'])
  assert early.params.keys() == run.params.keys() == {'net'}
  with pytest.raises(UserError, match="'sampler.stepz'"):
    genjax.open(run.workdir, sampler=dict(stepz=3))
  with pytest.raises(UserError, match=r'optimizers\.net\.lr'):
    genjax.open(run.workdir, optimizers=dict(net=dict(lr=3.0)))


def test_a_finished_run_goes_on_and_lends_its_config(tmp_path):
  vae = configs.load(f'{ROOT}/configs/autoencoders/digits_vae.py:smoke')[0]
  vae.sample_every = vae.evaluate_every = 0
  first = genjax.train(vae, tmp_path / 'vae', steps=1)
  assert first.step == 1 and vae.steps == 2, 'the config that was given does not change'
  assert genjax.train(first, more_steps=2).step == 3
  assert genjax.train(tmp_path / 'vae').step == 3, 'nothing is left to do'
  other = genjax.train(str(tmp_path / 'vae'), tmp_path / 'other', steps=1, seed=5)
  assert other.step == 1 and other.config.seed == 5 and other.workdir == tmp_path / 'other'
  with pytest.raises(UserError, match='may only grow'):
    genjax.train(tmp_path / 'vae', steps=1)
  for wrong in (dict(steps=5, more_steps=1), dict(more_steps=0), dict(more_steps=1.5)):
    with pytest.raises(UserError):
      genjax.train(tmp_path / 'vae', **wrong)
  wrong = ((vae,), 'workdir is needed'), ((3, tmp_path), 'got 3'), ((vae, tmp_path / 'none'), 'holds none')
  for args, words in wrong:
    with pytest.raises(UserError, match=words):
      genjax.train(*args, more_steps=1)


def test_an_interrupt_saves_the_step_and_the_handlers_come_back(tmp_path):

  class Interrupt(hooks.Hook):
    def after_step(self, run, metrics):
      if run.step == 2:
        os.kill(os.getpid(), signal.SIGINT)

  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(KeyboardInterrupt):
    genjax.train(f'{ROOT}/configs/autoencoders/digits_vae.py:smoke', tmp_path / 'vae', steps=50, sample_every=0,
                 evaluate_every=0, hooks=[Interrupt()], **{'checkpoint.every': 50})
  assert signal.getsignal(signal.SIGINT) is before
  assert genjax.open(tmp_path / 'vae').step == 2


def test_configs_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = genjax.load_config('configs/quickstart.py:smoke')
  assert config.steps == 2 and config.is_locked
  (tmp_path / 'mine.py').write_text('def get_config():\n  return 3\n')
  (tmp_path / 'broken.py').write_text('def get_config():\n  raise ValueError("no luck")\n')
  for name, words in (('mine.py', 'ConfigDict, got int'), ('broken.py', 'no luck'), ('broken.py:x', 'argument'),
                      ('configs/digits_vae.py', 'It is configs/autoencoders/digits_vae.py now'),
                      ('configs/quickstart.py:smok', 'smoke'), (str(tmp_path), 'no run directory')):
    with pytest.raises(UserError, match=words):
      genjax.load_config(name)
  assert configs.assignments({'a': {'b': 1, 'c': (True, None)}, 'd.e': 'text', 'f': np.float32(0.5)}) == [
    'a.b=1', 'a.c=[true, null]', 'd.e=text', 'f=0.5']
  with pytest.raises(UserError, match=r'a\.b must be text'):
    configs.assignments({'a': {'b': object()}})
