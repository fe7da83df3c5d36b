"""The sweep of a config file and its folder: what is refused before any run begins, and what a change of it does."""

import json

import pytest

from genjax.cli.main import main
from genjax.studies import sweeps
from genjax.types import UserError

FILE = """
from genjax.configs import quickstart, sweeps

def get_config(arg=None):
  {get}

def sweep({takes}):
  {body}
"""
SMOKE = "return quickstart.get_config('smoke')"


@pytest.fixture
def config_file(tmp_path):
  """config_file(body, ...) -> the path of a config file whose sweep() has this body."""

  def write(body, name='study.py', get=SMOKE, takes=''):
    path = tmp_path / name
    path.write_text(FILE.format(body=body, get=get, takes=takes))
    return str(path)

  return write


GRID = "return sweeps.product({'optimizers.net.lr': (1e-3, 1e-4)}, sweeps.seeds(2))"


def test_list_prints_names_and_overrides_and_writes_nothing(config_file, tmp_path, capsys):
  assert main(['sweep', f'--config={config_file(GRID)}', '--list', f'--workdir={tmp_path}/new']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == ['run', 'lr=0.001,seed=0', 'lr=0.001,seed=1', 'lr=0.0001,seed=0',
                                                 'lr=0.0001,seed=1']
  assert 'optimizers.net.lr=0.001  seed=0' in lines[1]
  assert not (tmp_path / 'new').exists()


def test_settings_have_whole_configs_with_overrides_arguments_and_flags(config_file):
  get = f"config = {SMOKE[7:]}; config.model.depth = int((arg or 'depth=1').split('=')[-1]); return config"
  path = config_file("yield {'arg.depth': 3, 'model': {'width': 32}, 'data.flip': True}\n  yield {'seed': 7}", get=get)
  sweep = sweeps.read(path, {'steps': '5', 'sampler.interval': '(0.1, 0.9)'})
  first, second = (setting.config for setting in sweep.settings)
  assert [setting.name for setting in sweep.settings] == ['depth=3,width=32,flip=true', 'seed=7']
  assert (first['model']['depth'], first['model']['width'], first['data']['flip'], first['seed']) == (3, 32, True, 0)
  assert (second['model']['depth'], second['model']['width'], second['seed']) == (1, 16, 7)
  assert all(config['steps'] == 5 and config['sampler']['interval'] == [0.1, 0.9] for config in (first, second))


def test_an_argument_is_added_to_those_of_the_flag_and_goes_to_sweep(config_file):
  get = "config = quickstart.get_config('smoke'); config.model.depth = len(arg.split(',')); return config"
  sweep = sweeps.read(config_file("yield {'arg.c': 1, 'seed': len(arg)}", get=get, takes='arg') + ':a=1,b=2')
  assert sweep.settings[0].config['model']['depth'] == 3 and sweep.settings[0].config['seed'] == 7


@pytest.mark.parametrize(('body', 'said'), [
  ("yield {'optimizers.net.rl': 1.0}", "run '.*=1': unknown config key 'optimizers.net.rl'. Did you mean '.*net.lr'"),
  ("yield {'steps': 'many'}", "run 'steps=many': config key steps takes int"),
  ("yield {'optimizers.net.lr': -1.0}", "run 'lr=-1': .*lr"),
  ("yield {'model.heads': 3}", "run 'heads=3': .*heads"),
  ("yield {'seed': 1}\n  yield {'seed': 1}", "two settings of one name, 'seed=1', twice"),
  ("yield {'data.name': 'a b'}\n  yield {'data.name': 'a/b'}", "one name, 'data=a-b', for .*a b.* and for .*a/b"),
  ("yield {'seed': object()}", "gives 'seed' the value <object"),
  ("yield {'seed': float('nan')}", "gives 'seed' the value nan"),
  ('yield 3', 'must yield dicts .* got 3'),
  ('return []', 'yields no settings'),
  ('return 1 / 0', 'division by zero .config'),
  ("return sweeps.product({'a': 3})", "gives 'a' a list of values, got 3"),
  ("yield {'arg.model': 'S'}", 'model'),
])
def test_what_is_wrong_is_refused_before_any_run(config_file, tmp_path, body, said):
  get = "return quickstart.get_config('smoke' if arg is None else arg)"
  with pytest.raises(UserError, match=said):
    sweeps.read(config_file(body, get=get))


def test_bad_flags(config_file, tmp_path, capsys):
  path = config_file(GRID)
  for flags, said in ((['--jobs=0'], "--jobs must be a whole number of at least 1, got '0'"),
                      (['--jobs=two'], "got 'two'"),
                      (['--job=2'], "unexpected argument '--job=2'. Did you mean '--jobs'"),
                      (['--config.seed=3'], '--config.seed is what the sweep varies'),
                      (['--config.model.dept=3'], "Did you mean 'model.depth'"),
                      (['--evaluate=--set sampler.stepz=3'], 'sampler.stepz')):
    assert main(['sweep', f'--config={path}', f'--workdir={tmp_path}/new', *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()
  with pytest.raises(SystemExit):
    main(['sweep', f'--config={path}', f'--workdir={tmp_path}/new', '--evaluate=--no-sample-at-all'])
  assert main(['sweep', f'--config={path}']) == 2
  assert '--workdir=DIR is needed' in capsys.readouterr().err
  assert main(['sweep', f'--workdir={tmp_path}/new']) == 2
  assert 'holds no sweep' in capsys.readouterr().err
  assert main(['sweep', f'--config={path.replace("study", "other")}', '--list']) == 2
  assert 'study.py' in capsys.readouterr().err


def test_a_config_file_without_sweep_is_told_how(tmp_path, capsys):
  path = tmp_path / 'plain.py'
  path.write_text(f'from genjax.configs import quickstart\ndef get_config(arg=None):\n  {SMOKE}\n')
  assert main(['sweep', f'--config={path}', '--list']) == 2
  assert 'has no function sweep(); write one' in capsys.readouterr().err


def begin(sweep, folder, *names):
  """Leaves the configs of runs that have begun."""
  for setting in sweep.settings:
    if setting.name in names:
      (folder / setting.name).mkdir(parents=True, exist_ok=True)
      (folder / setting.name / 'config.json').write_text(json.dumps(setting.config))


def test_a_sweep_that_grows_keeps_its_runs_and_their_names(config_file, tmp_path):
  folder = tmp_path / 'runs'
  small = sweeps.read(config_file(GRID))
  sweeps.check_folder(small, folder)
  sweeps.write(small, folder)
  begin(small, folder, 'lr=0.001,seed=0')
  larger = "return sweeps.product({'optimizers.net.lr': (1e-3,), 'data.threads': (1,)}, [{}, {'data.flip': True}])"
  grown = sweeps.read(config_file(GRID.replace('seeds(2)', 'seeds(3)') + f' + (lambda: {larger[7:]})()'),
                      labels=sweeps.stored(folder)['labels'])
  sweeps.check_folder(grown, folder)
  sweeps.write(grown, folder)
  assert {setting.name for setting in small.settings} <= {setting.name for setting in grown.settings}
  assert 'lr=0.001,threads=1,flip=true' in [setting.name for setting in grown.settings]
  fewer = sweeps.read(config_file("yield {'optimizers.net.lr': 1e-3, 'seed': 0}"), labels=grown.labels)
  sweeps.check_folder(fewer, folder)
  sweeps.write(fewer, folder)
  assert [setting.name for setting in sweeps.reopened(folder).settings] == ['lr=0.001,seed=0']
  assert len(sweeps.stored(folder)['runs']) == 8


def test_a_run_of_another_config_is_never_used_again(config_file, tmp_path):
  folder = tmp_path / 'runs'
  first = sweeps.read(config_file(GRID))
  sweeps.write(first, folder)
  begin(first, folder, 'lr=0.001,seed=1')
  get = f'config = {SMOKE[7:]}; config.model.depth = 1; config.steps = 9; return config'
  changed = sweeps.read(config_file(GRID, get=get))
  with pytest.raises(UserError, match=r'(?s)lr=0.001,seed=1: model.depth is 2 there, 1 now.*steps is 2 there, 9 now'):
    sweeps.check_folder(changed, folder)


def test_the_folder_of_another_sweep_or_of_other_things_is_refused(config_file, tmp_path):
  folder = tmp_path / 'runs'
  sweep = sweeps.read(config_file(GRID))
  sweeps.write(sweep, folder)
  with pytest.raises(UserError, match=r"(?s)holds another sweep.*config file: 'study.py' there, 'other.py' now"):
    sweeps.check_folder(sweeps.read(config_file(GRID, 'other.py')), folder)
  with pytest.raises(UserError, match=r"flags.steps: '\(absent\)' there, '7' now"):
    sweeps.check_folder(sweeps.read(config_file(GRID), {'steps': '7'}), folder)
  with pytest.raises(UserError, match='is not empty'):
    sweeps.check_folder(sweep, tmp_path)
  begin(sweep, tmp_path / 'run', 'lr=0.001,seed=0')
  with pytest.raises(UserError, match='is a run directory'):
    sweeps.check_folder(sweep, tmp_path / 'run' / 'lr=0.001,seed=0')


def test_quickstart_has_an_ablation_of_twelve_settings():
  from genjax.configs import quickstart
  found = quickstart.sweep()
  assert len(found) == 36 and len({tuple(setting.values()) for setting in found}) == 36
