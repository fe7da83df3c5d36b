"""A search: what it chooses, what it ends early, and that it goes on after any stop as if there had been none."""

import dataclasses
import json
import sys

import pytest

from genjax.cli.main import main
from genjax.studies import jobs, listing, records, search, sweeps, tables
from genjax.types import UserError

pytest.importorskip('optuna')

FILE = """
from genjax.configs import quickstart, sweeps

def get_config(arg=None):
  config = quickstart.get_config('smoke')
  config.steps, config.evaluate_every = 10, 2
  return config

def sweep():
  return sweeps.search({body})
"""
SPACE = "{'optimizers.net.lr': sweeps.log_uniform(1e-5, 1e-1), 'model.depth': sweeps.integers(1, 3)}"
# What a training leaves whose loss is least for lr = 1e-3 and depth = 2; it falls with the steps.
TRAIN = """
import json, math, pathlib, sys
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(sys.argv[2])
(folder / 'config.json').write_text(json.dumps(config))
loss = abs(math.log10(config['optimizers']['net']['lr']) + 3) + abs(config['model']['depth'] - 2)
with open(folder / 'metrics.jsonl', 'w') as file:
  for step in range(2, 11, 2):
    file.write(json.dumps({'step': step, 'heldout/loss': loss + 1 / step}) + '\\n')
if pathlib.Path(folder.parent, 'fails').exists() and config['optimizers']['net']['lr'] > 1e-3:
  sys.exit(3)
(folder / 'summary.json').write_text(json.dumps({'step': 10, 'heldout': {'loss': loss, 'end': loss}}))
"""


@pytest.fixture
def config_file(tmp_path):
  """config_file(arguments of search) -> a config file."""

  def write(body=f'{SPACE}, trials=8'):
    (tmp_path / 'study.py').write_text(FILE.replace('{body}', body))
    return str(tmp_path / 'study.py')

  return write


@pytest.fixture
def quick(monkeypatch):
  """Lets runs be what `TRAIN` leaves, and no builder be built twice."""
  known = sweeps.tasks

  def tasks(sweep, folder, evaluate=None, only=''):
    return [dataclasses.replace(task, train=(
      sys.executable, '-S', '-c', TRAIN, str(sweeps.config_path(folder, task.name)), str(task.folder)))
      for task in known(sweep, folder, evaluate, only)]

  monkeypatch.setattr(sweeps, 'tasks', tasks)
  monkeypatch.setattr(sweeps, '_check_builders', lambda settings, paths: None)
  monkeypatch.setattr(jobs, 'POLL', 0.01)


class Lines(list):
  """An observer."""

  def say(self, line):
    self.append(line)

  def look(self, active):
    pass


class Killed(BaseException):
  """In the place of SIGKILL: nothing after it happens."""


def run(file, folder, trials=None, after=None):
  """The search in a folder; `after` runs, its process is killed."""
  sweep = sweeps.read(file)
  sweeps.check_folder(sweep, folder)
  sweep = sweeps.continued(sweep, folder)
  sweep.search['trials'] = trials or sweep.search['trials']
  sweeps.write(sweep, folder)
  seen = Lines()
  source = search.Search(sweep, folder, None, seen.say)
  if after:
    left = iter(range(after - 1, -1, -1))

    def ended(task, why, code):
      if not next(left):
        raise Killed
      search.Search.ended(source, task, why, code)
    source.ended = ended
  try:
    failed, _ = jobs.run(source, 1, seen)
    return source, failed
  finally:
    source.close()


def test_a_search_that_is_killed_chooses_what_an_undisturbed_one_does(config_file, quick, tmp_path):
  file = config_file(f"{SPACE}, trials=9, pruner='median', startup=3")
  calm, rough = tmp_path / 'calm', tmp_path / 'rough'
  run(file, calm)
  for after in (1, 2, 3):
    with pytest.raises(Killed):
      run(file, rough, after=after)
  run(file, rough)
  assert sweeps.stored(calm) == sweeps.stored(rough)
  found = [json.loads((folder / '.sweep' / 'search.json').read_text()) for folder in (calm, rough)]
  assert found[0] == found[1] and found[0]['trials'] == 9 and 0 < found[0]['pruned'] < 9
  names = [setting['name'] for setting in sweeps.stored(calm)['runs']]
  losses = {name: json.loads((calm / name / 'summary.json').read_text())['heldout']['loss'] for name in names}
  ended = [name for name in names if listing.read(calm / name).state == 'pruned']
  assert len(ended) == found[0]['pruned'] and found[0]['best'] == min(set(names) - set(ended), key=losses.get)
  assert not {'lr', 'depth'} - {part.partition('=')[0] for part in names[0].split(',')}
  # Nothing is left to do; more trials go on from there.
  before = [path.stat().st_mtime_ns for path in sorted(calm.glob('*/summary.json'))]
  run(file, calm)
  assert [path.stat().st_mtime_ns for path in sorted(calm.glob('*/summary.json'))] == before
  run(file, calm, trials=11)
  assert [setting['name'] for setting in sweeps.stored(calm)['runs']][:len(names)] == names
  assert json.loads((calm / '.sweep' / 'search.json').read_text())['trials'] == 11


def test_tpe_finds_better_settings_than_its_start_and_the_best_is_named(config_file, quick, tmp_path, capsys):
  file = config_file(f'{SPACE}, trials=30')
  assert main(['sweep', f'--config={file}', f'--workdir={tmp_path}/runs', '--trials=25']) == 0
  said = capsys.readouterr().out
  names = [setting['name'] for setting in sweeps.stored(tmp_path / 'runs')['runs']]
  losses = [json.loads((tmp_path / 'runs' / name / 'summary.json').read_text())['heldout']['loss'] for name in names]
  assert min(losses[5:]) < min(losses[:5])
  best = names[losses.index(min(losses))]
  assert f'best by heldout/loss, min: {best}, {min(losses):.6g} (25 trials' in said
  notes = ' '.join(tables.make(tmp_path / 'runs').notes)
  assert f'best by heldout/loss, min: {best}' in notes


def test_pruned_runs_are_shown_as_such(config_file, quick, tmp_path, capsys):
  file = config_file(f"{SPACE}, trials=12, pruner='asha'")
  source, failed = run(file, tmp_path / 'runs')
  assert failed == {}
  study = records.read(tmp_path / 'runs', ('seed',))
  ended = [record for record in study.records if record.info.state == 'pruned']
  assert ended and not any(record.finished for record in ended)
  step = listing.load(ended[0].path / 'job.json')['pruned']
  assert 0 < step < 10 and step % 2 == 0
  assert main(['runs', str(tmp_path / 'runs')]) == 2  # these runs have no run.json
  capsys.readouterr()
  assert main(['table', str(tmp_path / 'runs')]) == 0
  assert f'Pruned: {ended[0].name}, at step {step} of 10.' in capsys.readouterr().out


def test_choices_of_one_setting_are_one_run(config_file, quick, tmp_path):
  values = "{'optimizers.net.lr': sweeps.choice([1e-3, 1e-2])}"
  run(config_file(f"{values}, trials=6, setting={{'model.depth': 2}}"), tmp_path / 'runs')
  assert [setting['overrides'] for setting in sweeps.stored(tmp_path / 'runs')['runs']] in (
    [{'model.depth': 2, 'optimizers.net.lr': lr} for lr in order] for order in ((1e-3, 1e-2), (1e-2, 1e-3)))
  found = json.loads((tmp_path / 'runs' / '.sweep' / 'search.json').read_text())
  assert (found['trials'], found['runs'], found['value']) == (6, 2, 0.0)


def test_a_run_that_reached_its_end_is_not_judged_again(config_file, quick, tmp_path):
  """A later process chooses it once more, when others have become better."""
  import optuna
  folder, values = tmp_path / 'runs', "{'optimizers.net.lr': sweeps.choice([1e-1, 1e-2, 1e-3])}"
  file = config_file(f"{values}, trials=3, pruner='median', startup=1, setting={{'model.depth': 2}}")
  (folder / '.sweep').mkdir(parents=True)
  study = optuna.create_study(storage=f'sqlite:///{folder}/.sweep/search.db', study_name='genjax')
  for lr in ('0.1', '0.001', '0.01', '0.1'):
    study.enqueue_trial({'optimizers.net.lr': lr})
  run(file, folder)
  run(file, folder, trials=4)
  found = listing.load(folder / '.sweep' / 'search.json')
  worst = records.read(folder, ('seed',)).records[0]
  assert worst.overrides['optimizers.net.lr'] == 0.1 and found['trials'] == 4 and found['runs'] == 3
  assert worst.finished  # there was nothing to hold it against


def test_failed_runs_count_and_are_tried_again(config_file, quick, tmp_path):
  folder = tmp_path / 'runs'
  folder.mkdir()
  sweep = sweeps.read(config_file())
  sweeps.write(sweep, folder)
  (folder / 'fails').touch()
  source, failed = run(config_file(), folder)
  assert failed and all('exit code 3' in why for why in failed.values())
  found = json.loads((folder / '.sweep' / 'search.json').read_text())
  assert (found['trials'], found['failed']) == (8, len(failed))
  (folder / 'fails').unlink()
  before = sweeps.stored(folder)
  source, again = run(config_file(), folder)
  assert again == {} and sweeps.stored(folder) == before
  found = json.loads((folder / '.sweep' / 'search.json').read_text())
  assert (found['trials'], found['failed']) == (8, 0)


def test_finished_runs_are_evaluated_when_that_is_asked_for_later(config_file, quick, tmp_path):
  folder = tmp_path / 'runs'
  run(config_file(f'{SPACE}, trials=3'), folder)
  source = search.Search(sweeps.continued(sweeps.read(config_file(f'{SPACE}, trials=3')), folder), folder, ())
  try:
    found = [source.next() for _ in range(4)]
  finally:
    source.close()
  assert sorted(task.name for task in found[:3]) == sorted(setting['name'] for setting in sweeps.stored(folder)['runs'])
  assert [[name for name, _ in task.pending()] for task in found[:3]] == [['evaluate']] * 3
  assert found[3] is None


def test_a_metric_that_runs_do_not_have_ends_the_search_after_the_first(config_file, quick, tmp_path, capsys):
  file = config_file(f"{SPACE}, metric='heldout/los'")
  assert main(['sweep', f'--config={file}', f'--workdir={tmp_path}/runs']) == 2
  assert "has no metric 'heldout/los'. Did you mean 'heldout/loss'" in capsys.readouterr().err
  assert len(sweeps.stored(tmp_path / 'runs')['runs']) == 1


def test_a_pruner_needs_the_metric_during_training(config_file, quick, tmp_path, capsys):
  file = config_file(f"{SPACE}, metric='heldout/end', pruner='median', startup=1")
  assert main(['sweep', f'--config={file}', f'--workdir={tmp_path}/runs']) == 2
  assert "looks at 'heldout/end' during training" in capsys.readouterr().err
  assert len(sweeps.stored(tmp_path / 'runs')['runs']) == 1


def test_the_table_of_a_search_has_its_metric(tmp_path, fake_sweep):
  folder = fake_sweep({1.0: {0: 0.5}, 2.0: {0: 0.4}})
  assert 'samples/odd' not in tables.make(folder).metrics
  (folder / '.sweep' / 'search.json').write_text(json.dumps(
    {'metric': 'samples/odd', 'goal': 'max', 'trials': 2, 'runs': 2, 'pruned': 0, 'failed': 0, 'best': None}))
  assert tables.make(folder).metrics['samples/odd'] == 'max'


@pytest.mark.parametrize('body, said', [
  ("{'optimizers.net.rl': sweeps.uniform(0, 1)}", "'optimizers.net.rl'. Did you mean '.*net.lr'"),
  ("{'optimizers.net.lr': sweeps.uniform(-1, 1)}", '.*lr'),
  ("{'optimizers.net.lr': (1, 2)}", r'takes .optimizers.net.lr. from uniform, .*got \(1, 2\)'),
  ("{'arg.model': sweeps.choice('SB')}", 'arg.model.* is an argument of get_config'),
  (f'{SPACE}, trials=0', 'whole number of at least 1, got 0'),
  (f"{SPACE}, goal='less'", "'min' or 'max', got 'less'"),
  (f"{SPACE}, pruner='hyperband'", "none, median, asha, got 'hyperband'"),
  (f"{SPACE}, pruner='median', setting={{'evaluate_every': 0}}", 'evaluate_every must be from 1 to 9, got 0'),
  (f"{SPACE}, setting={{'model.depth': 1}}", "chooses 'model.depth', which setting gives"),
  ('{}', 'needs keys'),
])
def test_what_is_wrong_is_refused_before_any_run(config_file, body, said):
  with pytest.raises(UserError, match=said):
    sweeps.read(config_file(body))


def test_bad_flags(config_file, quick, tmp_path, capsys, monkeypatch):
  flags = ['sweep', f'--config={config_file()}', f'--workdir={tmp_path}/new']
  assert main([*flags, '--list']) == 0
  assert 'log_uniform of 1e-05 to 0.1' in capsys.readouterr().out
  for more, said in ((['--trials=0'], "--trials must be a whole number of at least 1, got '0'"),
                     (['--slurm'], 'a search chooses the next setting when a run ends')):
    assert main([*flags, *more]) == 2
    assert said in capsys.readouterr().err
  monkeypatch.setattr(search.importlib.util, 'find_spec', lambda name: None)
  assert main(flags) == 2
  assert 'install genjax-research[search]' in capsys.readouterr().err
  assert not (tmp_path / 'new').exists()


def test_the_search_of_another_file_or_space_is_refused(config_file, quick, tmp_path):
  folder = tmp_path / 'runs'
  sweeps.write(sweeps.read(config_file()), folder)
  sweeps.check_folder(sweeps.read(config_file(f'{SPACE}, trials=3')), folder)  # trials may change
  with pytest.raises(UserError, match='search.seed: 0 there, 1 now'):
    sweeps.check_folder(sweeps.read(config_file(f'{SPACE}, seed=1')), folder)
