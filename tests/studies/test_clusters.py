"""What clusters are given: scripts and manifests, what is submitted again, and what is refused before anything is."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import pytest
import yaml

from genjax.cli.main import main
from genjax.studies import jobs, kubernetes, listing, queues, slurm, submissions, sweeps
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
FILE = """
from genjax.configs import quickstart, sweeps

def get_config(arg=None):
  return quickstart.get_config('smoke')

def sweep():
  return sweeps.product({'model.depth': (1, 2)}, sweeps.seeds(2))
"""
NAMES = [f'depth={depth},seed={seed}' for depth in (1, 2) for seed in (0, 1)]
JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: ablation
spec:
  backoffLimit: 3
  template:
    spec:
      containers:
        - name: genjax
          image: registry.example.com/genjax:latest
          resources:
            limits:
              nvidia.com/gpu: 1
          volumeMounts:
            - name: runs
              mountPath: MOUNT
      volumes:
        - name: runs
          persistentVolumeClaim:
            claimName: genjax-runs
"""


@pytest.fixture
def flags(tmp_path):
  """Those of a sweep of four runs in tmp_path/runs."""
  (tmp_path / 'study.py').write_text(FILE)
  return ['sweep', f'--config={tmp_path}/study.py', f'--workdir={tmp_path}/runs']


@pytest.fixture
def commands(tmp_path, monkeypatch):
  """commands(name=text): programs that stand in for those of Slurm."""

  def write(**texts):
    folder = tmp_path / 'bin'
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
      (folder / name).write_text(f'#!/bin/bash\n{text}\n')
      (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    queues.forget()

  yield write
  queues.forget()


@pytest.fixture
def template(tmp_path):
  """template(text) -> its path."""

  def write(text, name='template'):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)

  return write


def finish(folder):
  folder.mkdir(parents=True, exist_ok=True)
  shutil.copy(queues.hidden(folder) / 'config.json', folder / 'config.json')
  (folder / 'run.json').write_text('{}')
  (folder / 'summary.json').write_text(json.dumps({'step': 2}))


def test_what_is_not_finished_and_not_in_the_queue_is_submitted(flags, commands, tmp_path, capsys):
  folder = tmp_path / 'runs'
  commands(sbatch=f'cp "${{@: -1}}" {tmp_path}/script; echo "17;cluster"',
           squeue='echo 17_0 RUNNING; echo 17_1 PENDING; echo 17_2 COMPLETING')
  assert main([*flags, '--slurm=--partition gpu --time=4:00:00', '--jobs=3', '--evaluate=--no-samples']) == 0
  assert '4 of 4 runs submitted as job array 17' in capsys.readouterr().out
  script = (tmp_path / 'script').read_text()
  assert '\n#SBATCH --array=0-3%3\n' in script and '\n#SBATCH --partition gpu\n#SBATCH --time=4:00:00\n' in script
  assert f'{sys.executable} -m genjax.cli.main sweep --workdir={folder} --task=1 ' in script
  assert script.index('#SBATCH --requeue') < script.index('--partition') < script.index('srun')
  assert submissions.find(folder, '1:3')[0] == submissions.Submission(1, 'slurm', tuple(NAMES), ('--no-samples',))

  states = {path.name: listing.read(path) for path in listing.find(folder)}
  assert [(info.state, info.doing) for info in states.values()] == [
    ('running', 'startup, job 17_0'), ('queued', 'job 17_1'), ('running', 'startup, job 17_2'),
    ('waiting', 'job 17_3 has ended')]
  assert states[NAMES[1]].steps == 2
  assert main(['runs', str(folder)]) == 0
  assert 'queued (job 17_1)' in capsys.readouterr().out

  # Task 3 has left the queue without a word, task 0 is finished, and 2 has failed since.
  finish(folder / NAMES[0])
  (folder / NAMES[2]).mkdir()
  (folder / NAMES[2] / 'job.json').write_text(json.dumps({'command': 'train', 'exit': 3, 'job': '17_2'}))
  commands(squeue='[[ $* == *--jobs=17* ]] && echo 17_1 PENDING || echo "18_0 PENDING"', sbatch='echo 18')
  failed = listing.read(folder / NAMES[2])
  assert (failed.state, failed.doing) == ('failed', 'train: exit code 3, job 17_2')
  assert main([*flags, '--slurm']) == 0
  assert '2 of 4 runs submitted as job array 18; 1 were in the queue before' in capsys.readouterr().out
  assert submissions.find(folder, '2:0')[0].runs == (NAMES[2], NAMES[3])
  assert listing.read(folder / NAMES[2]).state == 'queued'  # the failure was that of the job before
  assert listing.read(folder / NAMES[3]).state == 'waiting'

  # A sweep on this machine leaves to the queue what is there.
  tasks = sweeps.tasks(sweeps.reopened(folder), folder)
  from genjax.cli import sweep

  class Shown(list):
    say = list.append

  shown = Shown()
  assert [task.name for task in sweep._here(tasks, shown)] == [NAMES[0], NAMES[3]]
  assert shown[0] == f'{NAMES[1]}: left to job 17_1 of slurm'


def test_an_unknown_answer_of_slurm_submits_nothing_twice(flags, commands, tmp_path, capsys):
  commands(sbatch='echo 17', squeue='echo "Unable to contact slurm controller" >&2; exit 1')
  assert main([*flags, '--slurm']) == 0
  assert main([*flags, '--slurm']) == 2
  assert 'squeue does not say what became of job 17_0' in capsys.readouterr().err
  commands(squeue='echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
  assert main([*flags, '--slurm']) == 0
  assert '4 of 4 runs submitted' in capsys.readouterr().out


def test_two_that_submit_at_once_do_not_share_a_number(flags, commands, tmp_path, capsys, monkeypatch):
  from genjax.cli import submitting
  commands(sbatch=f'touch {tmp_path}/submitted; echo 17', squeue='true')
  other = submissions.Submission(1, 'slurm', ('another run',), None)
  prepare = submitting.workdir_lib.prepare
  monkeypatch.setattr(submitting.workdir_lib, 'prepare', lambda text: (
    submissions.write(other, tmp_path / 'runs', 'sbatch', 'theirs'), prepare(text))[1])
  assert main([*flags, '--slurm']) == 2
  assert 'has submitted runs of' in capsys.readouterr().err and not (tmp_path / 'submitted').exists()
  assert submissions.find(tmp_path / 'runs', '1:0')[0] == other


def test_waiting_tells_what_is_left(flags, commands, tmp_path, capsys):
  folder = tmp_path / 'runs'
  commands(sbatch=f'mkdir -p {folder}/.sweep/slurm; echo no module > {folder}/.sweep/slurm/17_1.log; echo 17',
           squeue='true')
  assert main([*flags, '--slurm', '--wait']) == 9
  said = capsys.readouterr().err
  assert f'{NAMES[0]} is waiting: job 17_0 has ended\n' in said
  assert f'{NAMES[1]} is waiting: job 17_1 has ended; what Slurm says is in {folder}/.sweep/slurm/17_1.log' in said
  for name in NAMES:
    finish(folder / name)
  (folder / NAMES[3] / 'job.json').write_text(json.dumps({'command': 'evaluate', 'exit': 2}))
  assert main([*flags, '--slurm', '--wait', '--evaluate=--no-samples']) == 9
  said = capsys.readouterr().err
  assert f'{NAMES[2]} is not evaluated\n' in said
  assert f'{NAMES[3]} failed: evaluate: exit code 2; its log is' in said
  assert main([*flags, '--slurm', '--wait']) == 0


def test_list_prints_a_script_that_shell_tools_accept(flags, tmp_path, capsys, template):
  path = template('#!/bin/bash -l\n# Ours.\n#SBATCH --account=me\nmodule load cuda\n')
  assert main([*flags, f'--slurm={path}', '--list']) == 0
  script = capsys.readouterr().out
  assert script.startswith('#!/bin/bash -l\n') and script.index('#SBATCH --array') < script.index('module load')
  assert script.index('#SBATCH --account=me') < script.index('module load') < script.index('srun')
  assert not (tmp_path / 'runs').exists()
  assert subprocess.run(['bash', '-n'], input=script, text=True, check=False).returncode == 0
  checker = shutil.which('shellcheck') or shutil.which('shellcheck', path=str(pathlib.Path(sys.executable).parent))
  if checker is not None:
    done = subprocess.run([checker, '-'], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('code, restarts, expected, requeued', [
  (0, 0, 0, False), (10, 0, 0, True), (7, 3, 0, True), (2, 0, 2, False), (3, 0, 3, False), (1, 0, 1, False),
  (143, 0, 0, True), (10, 50, 10, False)])
def test_a_task_that_was_stopped_is_queued_again(commands, tmp_path, code, restarts, expected, requeued):
  commands(srun=f'exit {code}', scontrol='echo "scontrol $*"')
  submission = submissions.Submission(1, 'slurm', ('a',), None)
  script = slurm.script('', submission, tmp_path, None)
  variables = {'SLURM_ARRAY_JOB_ID': '17', 'SLURM_ARRAY_TASK_ID': '2', 'SLURM_RESTART_COUNT': str(restarts)}
  done = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=False,
                        env={**os.environ, **variables})
  assert done.returncode == expected and (done.stdout == 'scontrol requeue 17_2\n') == requeued


@pytest.mark.parametrize('text, said', [
  ('#SBATCH --time=1\n', "the first line must be that of a bash script"),
  ('#!/bin/bash\n#SBATCH --array=0-3\n', 'line 2: --array is what genjax sweep decides'),
  ('#!/bin/bash\nmodule load cuda\n#SBATCH --time=1\n', "line 3: sbatch reads no '#SBATCH --time=1' after"),
  ("#!/bin/bash\n#SBATCH --comment=it's\n", 'line 2: "#SBATCH --comment=it\'s": No closing quotation'),
  ('#!/bin/bash\nsrun genjax train\n', "line 2: 'srun genjax train' has no place"),
])
def test_bad_templates(flags, template, tmp_path, capsys, text, said):
  assert main([*flags, f'--slurm={template(text)}', '--list']) == 2
  assert said in capsys.readouterr().err and not (tmp_path / 'runs').exists()


def test_bad_input_is_refused_before_anything_is_submitted(flags, commands, template, tmp_path, capsys, monkeypatch):
  commands(sbatch=f'touch {tmp_path}/submitted; echo 17')
  (tmp_path / 'other.py').write_text(FILE.replace('model.depth', 'model.dept'))
  for more, said in ((['--slurm', '--jobs=0'], "--jobs must be a whole number of at least 1, got '0'"),
                     (['--slurm', f'--config={tmp_path}/other.py'], "Did you mean 'model.depth'"),
                     (['--slurm', '--kubernetes=a'], 'give one of them'), (['--slurm=none.sh'], 'cannot be read'),
                     (['--slurm=--array=1-2'], '--array is what genjax sweep decides'),
                     (["--slurm=--time='1"], 'No closing quotation'), (['--slurm', '--trials=3'], 'of a search'),
                     (['--slurm', '--workdir='], '--workdir=DIR is needed'),
                     (['--task=1', '--list', '--workdir='], '--workdir=DIR is needed'),
                     (['--slurm', '--wait', '--list'], '--wait looks at the queue')):
    assert main([*flags, *more]) == 2
    assert said in capsys.readouterr().err
  assert not (tmp_path / 'submitted').exists() and not (tmp_path / 'runs').exists()
  sweeps.write(sweeps.read(f'{tmp_path}/study.py', {'steps': '1'}), tmp_path / 'runs')
  assert main([*flags, '--slurm']) == 2
  assert 'holds another sweep' in capsys.readouterr().err and not (tmp_path / 'submitted').exists()


def test_without_sbatch_and_when_it_refuses(flags, commands, tmp_path, capsys, monkeypatch):
  commands(sbatch='echo "invalid partition specified: x" >&2; exit 1')
  assert main([*flags, '--slurm=--partition=x']) == 2
  assert 'invalid partition specified: x' in capsys.readouterr().err
  assert not queues.names(tmp_path / 'runs')
  monkeypatch.setenv('PATH', '/nowhere')
  assert main([*flags, '--slurm']) == 2
  assert 'sbatch is not on this machine' in capsys.readouterr().err


def test_a_task_of_a_cluster_does_one_run(flags, commands, tmp_path, capsys, monkeypatch):
  folder = tmp_path / 'runs'
  commands(sbatch='echo 17', squeue='true')
  assert main([*flags, '--slurm']) == 0
  write = 'pathlib.Path(sys.argv[1], "summary.json").write_text(json.dumps({"step": 2}))'
  code = ("import json, os, pathlib, sys; print('by', os.environ['SLURM_PROCID'])\n"
          "if os.environ.get('FAILS'): sys.exit(3)\n"
          f"if os.environ['SLURM_PROCID'] == '0': {write}")
  known = sweeps.tasks
  monkeypatch.setattr(sweeps, 'tasks', lambda *args: [jobs.Task(task.name, task.folder, task.steps, (
    sys.executable, '-S', '-c', code, str(task.folder))) for task in known(*args)])
  for name, value in (('SLURM_ARRAY_JOB_ID', '17'), ('SLURM_ARRAY_TASK_ID', '2'), ('SLURM_PROCID', '0'),
                      ('JAX_NUM_PROCESSES', '1')):
    monkeypatch.setenv(name, value)
  work = ['sweep', f'--workdir={folder}', '--task=1']
  monkeypatch.setenv('FAILS', 'yes')
  assert main(work) == 3
  assert listing.read(folder / NAMES[2]).doing == 'train: exit code 3, job 17_2'
  monkeypatch.delenv('FAILS')
  assert main(work) == 0
  facts = json.loads((folder / NAMES[2] / 'job.json').read_text())
  assert (facts['exit'], facts['job']) == (0, '17_2') and listing.read(folder / NAMES[2]).state == 'finished'
  # The second process of a run waits for what the first writes, and keeps its own log.
  for name, value in (('JAX_NUM_PROCESSES', '2'), ('JAX_COORDINATOR_ADDRESS', 'a:1'), ('SLURM_PROCID', '1'),
                      ('JAX_PROCESS_ID', '1'), ('SLURM_ARRAY_TASK_ID', '3')):
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(jobs, 'PATIENCE', 0.5)
  assert main(work) == slurm.STOPPED
  assert 'by 1' in (folder / NAMES[3] / 'job_1.log').read_text() and not (folder / NAMES[3] / 'job.json').exists()
  for text, said in (('7', 'submit the sweep again'), ('1:9', 'no index 9'), ('x', 'must be NUMBER')):
    assert main([*work[:2], f'--task={text}']) == 2
    assert said in capsys.readouterr().err


def test_an_indexed_job_has_an_index_a_run(flags, tmp_path, template, capsys):
  pytest.importorskip('kubernetes_validate')
  folder, path = tmp_path / 'runs', template(JOB.replace('MOUNT', str(tmp_path)))
  assert main([*flags, f'--kubernetes={path}', '--list', '--jobs=2']) == 0
  text = capsys.readouterr().out
  assert not folder.exists() and f'#   3  {NAMES[3]}' in text
  job = yaml.safe_load(text)
  spec, (container,) = job['spec'], job['spec']['template']['spec']['containers']
  assert (spec['completionMode'], spec['completions'], spec['parallelism']) == ('Indexed', 4, 2)
  assert 'backoffLimit' not in spec and spec['backoffLimitPerIndex'] == 10
  assert container['command'] + container['args'] == ['genjax', 'sweep', f'--workdir={folder}', '--task=1']
  assert {'name': 'JAX_NUM_PROCESSES', 'value': '1'} in container['env']

  assert main([*flags, f'--kubernetes={path}']) == 0
  manifest = folder / '.sweep' / 'submissions' / '1.yaml'
  assert f'next: kubectl apply -f {manifest}' in capsys.readouterr().out
  assert yaml.safe_load(manifest.read_text())['metadata']['name'] == 'ablation-1'
  assert submissions.find(folder, '1', {'JOB_COMPLETION_INDEX': '3'})[0].runs[3] == NAMES[3]
  assert listing.read(folder / NAMES[3]).doing == 'Job ablation-1, index 3'
  for name in NAMES[:3]:
    finish(folder / name)
  queues.write(folder / NAMES[0], queues.SLURM, '17_0', '')
  (folder / NAMES[0] / 'summary.json').unlink()  # it is to be done again, and Slurm had it before
  assert main([*flags, f'--kubernetes={path}']) == 0
  said = capsys.readouterr().out
  assert '2 of 4 runs' in said and 'kubectl delete job --ignore-not-found ablation-1\n' in said
  again = yaml.safe_load((folder / '.sweep' / 'submissions' / '2.yaml').read_text())
  assert (again['metadata']['name'], again['spec']['completions']) == ('ablation-2', 2)
  assert submissions.find(folder, '2:0')[0].runs == (NAMES[0], NAMES[3])


def test_runs_of_several_pods_are_jobsets_of_the_recipe(flags, tmp_path, template, capsys):
  pytest.importorskip('kubernetes_validate')
  pytest.importorskip('kubeflow_trainer_api')
  recipe = (ROOT / 'docs' / 'launch' / 'jobset.yaml').read_text()
  path = template(recipe.replace('mountPath: /runs', f'mountPath: {tmp_path}'))
  assert main([*flags, f'--kubernetes={path}', '--list']) == 0
  made = list(yaml.safe_load_all(capsys.readouterr().out))
  assert [one['metadata']['name'] for one in made] == [f'genjax-1-{index}' for index in range(4)]
  job = made[2]['spec']['replicatedJobs'][0]['template']['spec']
  container, = job['template']['spec']['containers']
  assert container['args'] == [f'--workdir={tmp_path}/runs', '--task=1:2'] and job['completions'] == 4
  assert main([*flags, f'--kubernetes={path}', '--list', '--jobs=2']) == 2
  assert 'such as Kueue' in capsys.readouterr().err
  for wrong, said in ((recipe.replace('coordinator:\n', 'coordinater:\n'), 'there is no spec.coordinater'),
                      (recipe.replace('parallelism: 4', 'paralellism: 4'), 'paralellism')):
    path = template(wrong.replace('mountPath: /runs', f'mountPath: {tmp_path}'))
    assert main([*flags, f'--kubernetes={path}', '--list']) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('change, said', [
  (('kind: Job', 'kind: Deployment'), 'one manifest of kind Job or JobSet'),
  (('name: ablation', 'label: ablation'), "lacks 'name'"), (('name: ablation', 'name: My_Job'), 'metadata.name'),
  (('MOUNT', '/elsewhere'), "mount ['/elsewhere']"), (('backoffLimit: 3', 'backofLimit: 3'), 'backofLimit'),
  (('      containers:', '      restartPolicy: Always\n      containers:'), 'restartPolicy must be Never'),
  (('kind: Job', 'kind: ['), 'cannot be read'),
  (('            - name: runs\n              mountPath: MOUNT', '            - MOUNT'),
   'expected a manifest with a name'),
  (('        - name: genjax\n', '        - name: proxy\n        - name: mine\n'), "none is called 'genjax'"),
])
def test_bad_manifests(flags, tmp_path, template, capsys, change, said):
  pytest.importorskip('kubernetes_validate')
  path = template(JOB.replace(*change).replace('MOUNT', str(tmp_path)))
  assert main([*flags, f'--kubernetes={path}']) == 2
  assert said in capsys.readouterr().err and not (tmp_path / 'runs').exists()


def test_without_the_packages_the_extra_is_named(tmp_path, template, monkeypatch):
  monkeypatch.setattr(kubernetes.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'install genjax-research\[kubernetes\]'):
    kubernetes.read(template(JOB.replace('MOUNT', '/')), tmp_path)
