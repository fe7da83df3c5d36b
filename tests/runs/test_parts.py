"""Parts of a run: read, compared, moved, missing; with adapters, parts of parts, types and averages."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import genjax
from genjax import config as config_lib
from genjax.cli.main import main
from genjax.experiments import parts
from genjax.planning import plan
from genjax.runs import bases, builders, checkpoints, configs, sources, workdir
from genjax.training.experiment import Source
from genjax.types import UserError, named_leaves

ROOT = pathlib.Path(__file__).parent.parent.parent
DIGITS = f'--config={ROOT}/configs/classifiers/digits_classifier.py:smoke'
STUDENT = (DIGITS, '--config.experiment=digits_student', '--config.checkpoint.every=1')
LORA = ('--config.lora.rank=2', "--config.lora.paths=('(hidden|logits)/kernel',)", '--config.optimizers.net.lr=0.05')

# A builder whose `features` read the teacher of the part, too
MEAN = '''
import dataclasses
from genjax.experiments import classifier
from digits_student import build, options


def features(config, experiment):
  own, teach = classifier.features(config, experiment), experiment.objective.teach

  def predict(group, image):
    return (own.predict(group, image) + teach(group['frozen']['teacher'], image)) / 2

  return dataclasses.replace(own, predict=predict, reads=('.*',))
'''
IDLE = 'from genjax.experiments.classifier import build, options'


def write_builders(folder):
  """Writes the builder of docs/parts.md, and those above."""
  page = (ROOT / 'docs' / 'parts.md').read_text()
  blocks = dict(re.findall(r'```python\n# (\w+\.py)\n(.*?)```', page, re.DOTALL))
  for name, text in {**blocks, 'digits_mean.py': MEAN, 'digits_idle.py': IDLE}.items():
    (folder / name).write_text(text)


@pytest.fixture(scope='module')
def root(tmp_path_factory, smoke_run):
  """A folder with builders, a teacher and its student; runs/teacher has steps 1 and 2."""
  folder = tmp_path_factory.mktemp('parts')
  write_builders(folder)
  shutil.copytree(smoke_run('classifiers/digits_classifier'), folder / 'runs' / 'teacher')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    assert train('student', '--config.parts.teacher=runs/teacher') == 0
  return folder


@pytest.fixture
def here(root, monkeypatch):
  """The same, as the current folder."""
  monkeypatch.chdir(root)
  return root


@pytest.fixture
def copy(here, tmp_path, monkeypatch):
  """A copy that a test may change, as the current folder."""
  shutil.copytree(here / 'runs', tmp_path / 'runs')
  write_builders(tmp_path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def train(name, *flags):
  return main(['train', *STUDENT, f'--workdir=runs/{name}', *flags])


def config_of(teacher='runs/teacher', experiment='digits_student', **changes):
  """The config of a student."""
  config = configs.load(f'{ROOT}/configs/classifiers/digits_classifier.py:smoke')[0]
  with config.unlocked():
    config.experiment = experiment
    config.parts.teacher = teacher
    config.update(changes)
  return config


def filled(config):
  experiment = builders.build(config, ['.'])
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(experiment.frozen))
  return bases.attach(config, experiment)


def facts(name):
  return json.loads(pathlib.Path(f'runs/{name}/config.json').read_text())['assets']['parts']


def equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


def fails(said, *argv, capsys):
  assert main([*map(str, argv)]) == 2
  error = capsys.readouterr().err
  assert said in error, error


def test_a_run_reads_its_part_and_keeps_its_digest_alone(here):
  _, run = workdir.open_run('runs/student')
  _, teacher = workdir.open_run('runs/teacher')
  equal(run.frozen['teacher']['params'], teacher.state.params)
  equal(run.frozen['teacher']['mutable'], teacher.state.mutable)
  assert set(run.state.params) == {'net'} and run.experiment.sources['teacher'] == Source('runs/teacher', 2)
  kept = facts('student')['teacher']
  assert kept['step'] == 2 and len(kept['sha256']) == 64
  assert json.loads(pathlib.Path('runs/student/run.json').read_text())['parts'] == {
    'teacher': {'place': '../teacher', **kept}}
  with_part = checkpoints.of_run(pathlib.Path('runs/student'), run_config := workdir.read_config('runs/student')[0])
  _, saved = with_part.load(print, parts=('params', 'opt', 'mutable', 'ema'))
  with_part.close()
  assert run_config.parts.teacher == 'runs/teacher' and not [path for path in named_leaves(saved) if 'teacher' in path]
  assert main(['evaluate', '--workdir=runs/student', '--no-samples']) == 0


def test_resumes_to_the_same_bytes(copy, root):
  shutil.rmtree('runs/student/checkpoints/2')
  assert train('student', '--config.parts.teacher=runs/teacher') == 0
  found, expected = (genjax.open(folder / 'runs' / 'student') for folder in (copy, root))
  assert found.step == expected.step == 2
  equal(found.state, expected.state)


def test_moved_together_or_alone(copy, tmp_path, capsys):
  shutil.move('runs', 'sent')
  assert genjax.open('sent/student').experiment.sources['teacher'].path == str(tmp_path / 'sent' / 'teacher')
  assert "config.parts.teacher='runs/teacher' is not there; taking" in capsys.readouterr().err
  shutil.move('sent/teacher', 'alone')
  evaluate = ('evaluate', '--workdir=sent/student', '--no-samples')
  fails("config.parts.teacher='runs/teacher' is not there; if the part was moved, name it", *evaluate, capsys=capsys)
  assert main([*evaluate, '--set', 'parts.teacher=alone']) == 0
  assert genjax.open('sent/student', parts=dict(teacher='alone')).config.parts.teacher == 'alone'
  # A run that goes on remembers where it is
  assert main(['train', '--workdir=sent/student', '--config.parts.teacher=alone', '--config.steps=3']) == 0
  assert json.loads(pathlib.Path('sent/student/run.json').read_text())['parts']['teacher']['place'] == '../../alone'
  assert main(evaluate) == 0


def test_a_part_that_changed_or_lost_its_step(copy, capsys):
  assert main(['train', DIGITS, '--workdir=runs/other', '--config.seed=3']) == 0
  shutil.rmtree('runs/teacher')
  shutil.copytree('runs/other', 'runs/teacher')
  evaluate = ('evaluate', '--workdir=runs/student', '--no-samples')
  changed = 'its parameters of step 2 are not the ones that this run began with (step 2, sha256'
  fails(changed, *evaluate, capsys=capsys)
  fails(changed, 'train', *STUDENT, '--workdir=runs/student', '--config.parts.teacher=runs/other',
        capsys=capsys)
  shutil.rmtree('runs/teacher/checkpoints/2')
  fails('no checkpoint of step 2 there; there are [', *evaluate, capsys=capsys)
  fails('this run began with step 2 of that part', *evaluate, '--set', 'parts.teacher=runs/teacher@1', capsys=capsys)


def test_steps_and_types(here):
  _, teacher = workdir.open_run('runs/teacher', step=1)
  early = filled(config_of('runs/teacher@1'))
  equal(early.frozen['teacher']['params'], teacher.state.params)
  whole, half = filled(config_of()), filled(config_of({'path': 'runs/teacher', 'dtype': 'bfloat16'}))
  assert early.assets['parts']['teacher']['step'] == 1
  assert whole.assets == half.assets != early.assets  # whatever type it is kept in
  kernels = [named_leaves(one.frozen['teacher']) for one in (whole, half)]
  assert {leaf.dtype.name for path, leaf in kernels[1].items() if path.startswith('params/')} == {'bfloat16'}
  assert {leaf.dtype.name for path, leaf in kernels[1].items() if path.startswith('mutable/')} == {'float32'}
  equal(kernels[1]['params/net/logits/kernel'], kernels[0]['params/net/logits/kernel'].astype('bfloat16'))


def test_averages(copy, capsys):
  assert main(['train', DIGITS, '--workdir=runs/averaged', '--config.ema.net=0.5']) == 0
  _, run = workdir.open_run('runs/averaged')
  for averaged, expected in ((None, run.state.ema), (True, run.state.ema), (False, run.state.params)):
    found = filled(config_of({'path': 'runs/averaged', 'averaged': averaged}))
    equal(found.frozen['teacher']['params'], expected)
  with pytest.raises(UserError, match='config.parts.teacher.averaged=True: runs/teacher has no averaged parameters'):
    filled(config_of({'path': 'runs/teacher', 'averaged': True}))


def test_adapters_of_a_part_and_beside_one(copy, capsys):
  """A run with adapters as a part, merged; adapters of a run that stands on a part; and merged in turn."""
  assert main(['train', DIGITS, '--workdir=runs/adapted', '--config.init_from=runs/teacher', *LORA]) == 0
  assert main(['merge', '--workdir=runs/adapted', '--out=runs/merged']) == 0
  on_adapted, on_merged = filled(config_of('runs/adapted')), filled(config_of('runs/merged'))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), on_adapted.frozen['teacher']['params'],
               on_merged.frozen['teacher']['params'])
  plain = filled(config_of()).frozen['teacher']['params']['net']['logits']['kernel']
  assert np.abs(on_adapted.frozen['teacher']['params']['net']['logits']['kernel'] - plain).max() > 0.01
  assert train('tuned', '--config.init_from=runs/student', '--config.parts.teacher=runs/teacher', *LORA) == 0
  tuned = genjax.open('runs/tuned').run
  assert set(tuned.frozen) == {'base', 'teacher'} and set(tuned.state.params) == {'lora'}
  assert facts('tuned')['teacher'] == facts('student')['teacher'] and set(facts('tuned')) == {'teacher', 'base'}
  assert main(['merge', '--workdir=runs/tuned', '--out=runs/whole']) == 0
  assert facts('whole') == facts('student')
  assert main(['evaluate', '--workdir=runs/whole', '--no-samples']) == 0
  capsys.readouterr()
  # Another teacher than that of the base
  fails('are not the ones that this run began with', 'train', *STUDENT, '--workdir=runs/x', *LORA,
        '--config.init_from=runs/student', '--config.parts.teacher=runs/merged', capsys=capsys)


def test_parts_of_parts(copy):
  config = config_of('runs/student')
  (_, student), (_, teacher) = (workdir.open_run(f'runs/{name}') for name in ('student', 'teacher'))
  plain = filled(config)
  assert not named_leaves(plain.frozen['teacher']['frozen'])  # its functions do not read the teacher's teacher
  path = pathlib.Path('runs/student/config.json')
  path.write_text(path.read_text().replace('digits_student', 'digits_mean'))
  experiment = filled(config)
  group = experiment.frozen['teacher']
  equal(group['params'], student.state.params)
  equal(group['frozen']['teacher']['params'], teacher.state.params)
  image = next(experiment.heldout.epoch())['image'][:3]
  own, above = (run.experiment.objective.predict(run.state.params, run.state.context(run.frozen), image)[0]
                for run in (student, teacher))
  np.testing.assert_allclose(experiment.objective.teach(group, image), (own + above) / 2, rtol=1e-5, atol=1e-5)
  assert experiment.assets['parts']['teacher']['sha256'] != plain.assets['parts']['teacher']['sha256']


def test_a_part_of_a_part_that_is_gone(copy, capsys):
  assert train('graduate', '--config.parts.teacher=runs/student') == 0
  shutil.move('runs/teacher', 'elsewhere')
  fails(f'the part {pathlib.Path("runs/student").resolve()} stands on config.parts.teacher=', 'evaluate',
        '--workdir=runs/graduate', capsys=capsys)
  fails('which is not there; put it back', 'sample', '--workdir=runs/graduate', '--out=x.npz', capsys=capsys)
  shutil.move('elsewhere', 'runs/teacher')
  assert main(['evaluate', '--workdir=runs/graduate']) == 0


def test_frozen_bytes_are_listed(here, capsys):
  argv = [*STUDENT, '--config.parts.teacher=runs/teacher', '--config.parts.teacher.dtype=bfloat16']
  assert main(['inspect', *argv, '--mesh=data:2,fsdp:4', '--json']) == 0
  report = json.loads(capsys.readouterr().out)
  rows = {row['path']: row for row in report['parameters'] if row['group'] == 'teacher'}
  parameters = sum(row['count'] for row in rows.values())
  assert report['parts']['teacher']['parameters'] == parameters == report['frozen']
  assert 2 * parameters < report['parts']['teacher']['bytes'] == report['bytes']['frozen'] < 3 * parameters
  assert report['parts']['teacher']['per_device'] < report['parts']['teacher']['bytes'] / 3
  assert rows['params/net/hidden/kernel']['layout'].count('fsdp') == 1  # split, though the small ones are not
  assert {row['optimizer'] for row in rows.values()} == {'frozen'}
  assert main(['inspect', *argv]) == 0
  assert f'frozen teacher from runs/teacher: {parameters:,} parameters' in capsys.readouterr().out


def test_a_plan_counts_each_part(here, capsys):
  argv = ['plan', *STUDENT, '--config.parts.teacher=runs/teacher', '--topology=cpu:1']
  assert main([*argv, '--json']) == 0
  report = json.loads(capsys.readouterr().out)
  assert report['parts'] == {'teacher': {'bytes': report['bytes']['frozen'], 'per_device': report['bytes']['frozen']}}
  assert report['parts']['teacher']['bytes'] == sum(leaf.nbytes for leaf in jax.tree.leaves(filled(config_of()).frozen))
  lines = plan.render(report).splitlines()
  place = next(number for number, line in enumerate(lines) if line.startswith('  frozen'))
  assert lines[place + 1].split()[0] == 'teacher'


def test_set_by_flag_and_listed(here, capsys):
  flags = ['--config.parts.teacher.dtype=float16', '--config.parts.teacher=runs/teacher',
           '--config.parts.teacher.rules=(("drop", "net/logits/.*"),)', '--config.parts.teacher.averaged=False']
  for order in (flags, flags[::-1]):
    assert main(['inspect', *STUDENT, *order, '--options=parts', '--json']) == 0
    rows = {row['option']: row['value'] for row in json.loads(capsys.readouterr().out)['options']}
    assert rows['parts.teacher.path'] == 'runs/teacher' and rows['parts.teacher.dtype'] == 'float16'
    assert rows['parts.teacher.rules'] == [['drop', 'net/logits/.*']] and rows['parts.teacher.averaged'] is False
  assert {'parts.NAME', 'parts.NAME.path', 'parts.NAME.dtype', 'parts.NAME.averaged', 'parts.NAME.rules'} <= set(rows)
  fails("unknown config key 'parts.teacher.speed'", 'inspect', *STUDENT, '--config.parts.teacher.speed=1',
        capsys=capsys)
  config = config_of({'path': 'runs/teacher', 'dtype': 'bfloat16'})
  config_lib.override(config, 'parts.teacher=elsewhere')
  assert config_lib.plain(config.parts) == {'teacher': {'path': 'elsewhere', 'dtype': 'bfloat16'}}


@pytest.mark.parametrize(('teacher', 'said'), [
  ('', 'config.parts.teacher does not name it: set --config.parts.teacher=RUN_DIR'),
  ('runs/nowhere', "config.parts.teacher='runs/nowhere' is not there"),
  ('runs', 'has no config.json: expected a run directory, or a folder of public weights'),
  ('runs/teacher@7', r"no checkpoint of step 7 there; there are \[1, 2\]"),
  ('runs/teacher@best', "'best' is no step"),
  ({'path': 'runs/teacher', 'dtype': 'int8'}, "dtype must be one of .*got 'int8'"),
  ({'path': 'runs/teacher', 'averaged': 'yes'}, "averaged must be True, False or None, got 'yes'"),
  ({'path': 'runs/teacher', 'speed': 1}, 'config.parts.teacher.speed is not an option'),
  ({'dtype': ''}, r"config.parts.teacher lacks \['path'\]"),
  ({'path': 'runs/teacher', 'rules': (('rename', 'net/logits/kernel', 'net/x'),)},
   'net/logits/kernel here gets no value')
])
def test_bad_parts_are_named(teacher, said, here):
  with pytest.raises(UserError, match=said):
    filled(config_of(teacher))


def test_other_shapes_kinds_and_names(copy, capsys, smoke_run):
  config = json.loads(pathlib.Path('runs/teacher/config.json').read_text())
  config['model']['features'] = 5
  pathlib.Path('runs/teacher/config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match=r'net/hidden/kernel has shape \(64, 5\) here, and \(64, 8\) there'):
    filled(config_of())
  with pytest.raises(UserError, match='is no features: its builder is genjax.experiments.vae, and .* are '
                                        'autoencoder'):
    filled(config_of(str(smoke_run('autoencoders/digits_vae'))))
  with pytest.raises(UserError, match='offers are .*features.*. Did you mean .features.?'):
    parts.open(config_of(), 'teacher', 'feature')
  with pytest.raises(UserError, match='no part may be called .base.'):
    parts.open(config_of(), 'base', 'features')
  with pytest.raises(UserError, match=r'config.parts names teacher, which the builder digits_idle never opens; it opens'
                     ' none'):
    filled(config_of(experiment='digits_idle'))
  config = config_of('runs/student')
  part = parts.open(config, 'teacher', 'features')
  plain = builders.build(config_of('', experiment='digits_idle'), ['.'])
  with pytest.raises(UserError, match='the part .net. has the name of another group'):
    parts.attach(plain, dataclasses.replace(part, name='net'))
  experiment = parts.attach(plain, part)
  with pytest.raises(UserError, match='gives the frozen group .teacher. as shapes, without a source'):
    bases.attach(config, dataclasses.replace(experiment, sources={}))


def test_a_run_does_not_stand_on_itself(copy):
  config = json.loads(pathlib.Path('runs/student/config.json').read_text())
  pathlib.Path('runs/student/config.json').write_text(json.dumps({**config, 'parts': {'teacher': 'runs/student'}}))
  with pytest.raises(UserError, match='stands on itself'):
    filled(config_of('runs/student'))


TRAIN = """
import os, signal, sys, time
from genjax.cli.main import main
from genjax.training import hooks

class Kill(hooks.Hook):
  def after_step(self, run, metrics):
    if run.step == 3:
      while not os.path.exists(os.path.join(sys.argv[1], 'checkpoints', '2', '_CHECKPOINT_METADATA')):
        time.sleep(0.02)
      os.kill(os.getpid(), signal.SIGKILL)

if 'kill' in sys.argv:
  hooks.HOOKS.add('kill', lambda workdir: Kill())
sys.exit(main(['train', f'--workdir={sys.argv[1]}', *[flag for flag in sys.argv[2:] if flag != 'kill']]))
"""


def train_apart(devices, folder, *flags):
  """Trains in a process of its own on so many devices; returns its exit code and what it said."""
  flags_of_xla = os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={devices}'
  done = subprocess.run([sys.executable, '-c', TRAIN, folder, *STUDENT, '--config.parts.teacher=runs/teacher',
                         '--config.steps=4', '--config.checkpoint.every=2', *flags], capture_output=True, text=True,
                        timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags_of_xla})
  return done.returncode, done.stderr


@pytest.mark.slow
def test_killed_resumed_and_on_another_mesh(copy):
  """A killed run ends in the bytes of one that was not; on data:2,fsdp:4 the losses are those of one device."""
  assert train_apart(1, 'runs/whole')[0] == 0
  code, said = train_apart(1, 'runs/killed', 'kill')
  assert code == -signal.SIGKILL, said
  code, said = train_apart(1, 'runs/killed')
  assert code == 0 and 'at step 2 of 4' in said, said
  whole, killed = genjax.open('runs/whole'), genjax.open('runs/killed')
  equal(killed.state, whole.state)
  code, said = train_apart(8, 'runs/split', '--config.mesh.data=2', '--config.mesh.fsdp=4')
  assert code == 0, said
  split = genjax.open('runs/split', mesh=dict(data=1, fsdp=1))
  assert facts('split') == facts('whole')
  losses = [[line['classification/loss'] for line in run.metrics() if 'classification/loss' in line]
            for run in (split, whole)]
  assert len(losses[1]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_another_type_of_a_part_is_another_config(here):
  config = config_of()
  assert sources.names(config) == ['teacher'] and sources.key('base') == 'init_from'
  with pytest.raises(UserError, match="holds a run of another config:\n  parts.teacher.dtype: '' there"):
    genjax.train(config_of({'path': 'runs/teacher', 'dtype': 'bfloat16'}, checkpoint={'every': 1}), 'runs/student')
