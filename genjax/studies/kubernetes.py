"""Manifests that give the runs of a sweep to Kubernetes: an indexed Job, or a JobSet a run where it has several pods.

What the user brings is a manifest of kind Job or JobSet with the image, the resources and the volume, such as
docs/launch/jobset.yaml. The sweep adds which runs there are and what a pod starts. Both are checked before anything is
written: Jobs against the schema of Kubernetes, JobSets against the models of their public interface, which are part of
the package kubeflow-trainer-api.
"""

from collections.abc import Mapping
import copy
import importlib.util
import pathlib
import re
from typing import Any

import yaml

from genjax.studies import queues, submissions
from genjax.types import UserError, expanded

VERSION = '1.31'  # of Kubernetes, whose schema is used
CONTAINER = 'genjax'
AGAIN = (5, 7, 10, 137, 143)  # a hang, a lost process, stopped before the end, killed: to be tried again
RETRIES = 10
_LONGEST = 63  # characters of a name
_PACKAGES = {'Job': ('kubernetes_validate',), 'JobSet': ('kubernetes_validate', 'kubeflow_trainer_api')}


def read(given: str, folder: pathlib.Path) -> dict[str, Any]:
  """The manifest that --kubernetes names, checked as far as it goes without the runs.

  Args:
    given: its file.
    folder: of the sweep, which must be on a volume of the pods.

  Raises:
    UserError: it is none of these, or lacks something.
  """
  path = expanded(given)
  try:
    found = list(yaml.safe_load_all(path.read_text()))
  except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
    raise UserError(f'--kubernetes={given} cannot be read: {error}; expected a manifest of kind Job or JobSet'
                    ) from error
  if len(found) != 1 or not isinstance(found[0], Mapping) or found[0].get('kind') not in _PACKAGES:
    kinds = [one.get('kind') if isinstance(one, Mapping) else None for one in found]
    raise UserError(f'{path} must hold one manifest of kind Job or JobSet, got {kinds}')
  manifest = dict(found[0])
  if missing := [name for name in _PACKAGES[manifest['kind']] if importlib.util.find_spec(name) is None]:
    raise UserError(f"--kubernetes checks manifests with {' and '.join(missing)}; install genjax-research[kubernetes]")
  try:
    name = manifest['metadata']['name']
    container = _container(_job(manifest)['template']['spec'])
    mounts = [mount.get('mountPath', '') for mount in container.get('volumeMounts') or ()]
  except KeyError as error:
    raise UserError(f'{path} lacks {error}; expected a name, and a pod template with a container {CONTAINER!r}'
                    ) from error
  except (TypeError, IndexError, AttributeError) as error:
    raise UserError(f'{path}: {error}; expected a manifest with a name, and a pod template with a container '
                    f'{CONTAINER!r}') from error
  if not re.fullmatch(r'[a-z]([-a-z0-9]*[a-z0-9])?', str(name)):
    raise UserError(f'{path}: metadata.name must have small letters, digits and dashes, got {name!r}')
  if not container:
    raise UserError(f'{path}: the pod template has several containers or none, and none is called {CONTAINER!r}')
  if not any(folder.is_relative_to(mount) for mount in mounts if mount):
    raise UserError(f'{path}: the pods mount {mounts or "nothing"}, and --workdir={folder} is in none of these; a '
                    'sweep needs a shared volume that has the same path here and in the pods')
  return manifest


def _job(manifest: Mapping[str, Any]) -> dict[str, Any]:
  """The specification of the Job in a manifest."""
  if manifest['kind'] == 'Job':
    return manifest['spec']
  replicated = manifest['spec']['replicatedJobs']
  if len(replicated) != 1 or replicated[0].get('replicas', 1) != 1:
    raise UserError('the JobSet of a run must have one replicated job with one replica')
  return replicated[0]['template']['spec']


def _container(pod: Mapping[str, Any]) -> dict[str, Any]:
  """The container that trains: the only one, or the one called so."""
  containers = pod['containers']
  return containers[0] if len(containers) == 1 else next(
    one for one in [*containers, {}] if not one or one['name'] == CONTAINER)


def manifests(given: Mapping[str, Any], submission: submissions.Submission, folder: pathlib.Path, jobs: int | None
              ) -> list[dict[str, Any]]:
  """The manifests of a submission: one Job, or a JobSet for each run.

  Args:
    given: what `read` returned.
    submission: the runs.
    folder: of the sweep.
    jobs: how many pods run at a time; None for all. A limit for JobSets is the business of a queue such as Kueue.

  Raises:
    UserError: what comes out does not fit its schema.
  """
  if given['kind'] == 'Job':
    made = [_indexed(given, submission, folder, jobs)]
  elif jobs:
    raise UserError('--jobs limits the pods of a Job; of JobSets a queue decides how many run at a time, such as Kueue')
  else:
    made = [_jobset(given, submission, folder, index) for index in range(len(submission.runs))]
  for manifest in made:
    _validate(manifest)
  return made


def _indexed(given: Mapping[str, Any], submission: submissions.Submission, folder: pathlib.Path, jobs: int | None
             ) -> dict[str, Any]:
  manifest = copy.deepcopy(dict(given))
  manifest['metadata']['name'] = _name(given, f'{submission.number}')
  count, spec = len(submission.runs), manifest['spec']
  spec.pop('backoffLimit', None)  # of all runs together: failures of one would end the others
  spec.update(completionMode='Indexed', completions=count, parallelism=min(jobs or count, count))
  spec.setdefault('backoffLimitPerIndex', RETRIES)
  pod = spec['template']['spec']
  pod.setdefault('restartPolicy', 'Never')
  if pod['restartPolicy'] != 'Never':
    raise UserError(f"restartPolicy must be Never, got {pod['restartPolicy']!r}; the Job starts pods again itself")
  spec.setdefault('podFailurePolicy', {'rules': [
    {'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
    {'action': 'FailIndex', 'onExitCodes': {'operator': 'NotIn', 'values': [0, *AGAIN]}}]})
  # Indices are runs. Where the package kubernetes is installed, jax would take them for the processes of one.
  _start(pod, folder, f'{submission.number}', {'JAX_NUM_PROCESSES': '1'})
  return manifest


def _jobset(given: Mapping[str, Any], submission: submissions.Submission, folder: pathlib.Path, index: int
            ) -> dict[str, Any]:
  manifest = copy.deepcopy(dict(given))
  manifest['metadata']['name'] = _name(given, f'{submission.number}-{index}')
  _start(_job(manifest)['template']['spec'], folder, f'{submission.number}:{index}', {})
  return manifest


def _name(given: Mapping[str, Any], ending: str) -> str:
  name = f'{given["metadata"]["name"]}-{ending}'
  if len(name) > _LONGEST:
    raise UserError(f'metadata.name {name!r} has more than {_LONGEST} characters; give the manifest a shorter one')
  return name


def _start(pod: dict[str, Any], folder: pathlib.Path, task: str, variables: Mapping[str, str]) -> None:
  """Lets the pods start the runs, and have the variables."""
  container = _container(pod)
  container['command'] = ['genjax', 'sweep']
  container['args'] = [f'--workdir={folder}', f'--task={task}']
  known = {entry['name'] for entry in container.get('env') or ()}
  added = [{'name': name, 'value': value} for name, value in variables.items() if name not in known]
  if added:
    container['env'] = [*(container.get('env') or ()), *added]


def _validate(manifest: dict[str, Any]) -> None:
  import kubernetes_validate
  job = manifest
  if manifest['kind'] == 'JobSet':
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
    try:
      kept = JobsetV1alpha2JobSet.from_dict(manifest)
      lost = sorted(_keys(manifest) - _keys(kept.to_dict() if kept else {}))
    except ValueError as error:
      raise UserError(f'the manifest is no JobSet: {error}') from error
    if lost:
      raise UserError(f'the manifest is no JobSet: there is no {lost[0]}')
    template = manifest['spec']['replicatedJobs'][0]['template']
    job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': manifest['metadata'], **template}
  try:
    kubernetes_validate.validate(job, VERSION, strict=True)
  except kubernetes_validate.ValidationError as error:
    place = '.'.join(map(str, error.path))
    raise UserError(f'the Job of the manifest does not fit the schema of Kubernetes {VERSION}: {place}: '
                    f'{error.message}') from error


def _keys(value: Any, path: str = '') -> set[str]:
  """All keys of nested dicts and lists, with their places; keys that users choose are not looked into."""
  if isinstance(value, Mapping):
    if path.endswith(('labels', 'annotations', 'nodeSelector', 'limits', 'requests', 'template')):
      return {path}
    return {path} | {found for key, item in value.items() for found in _keys(item, f'{path}.{key}' if path else key)}
  if isinstance(value, (list, tuple)):
    return {path} | {found for item in value for found in _keys(item, path)}
  return {path}


def text(made: list[dict[str, Any]], submission: submissions.Submission, folder: pathlib.Path) -> str:
  """Manifests as a file, with a comment that says which index is which run."""
  lines = [f'# Submission {submission.number} of the sweep in {folder}:',
           *(f'#   {index}  {name}' for index, name in enumerate(submission.runs))]
  return '\n'.join(lines) + '\n' + yaml.safe_dump_all(made, sort_keys=False)


def note(made: list[dict[str, Any]], submission: submissions.Submission, folder: pathlib.Path) -> None:
  """Notes which Job or JobSet each run was given to."""
  names = [manifest['metadata']['name'] for manifest in made]
  for index, name in enumerate(submission.runs):
    job = f'{names[0]}, index {index}' if len(names) == 1 and made[0]['kind'] == 'Job' else names[index]
    queues.write(folder / name, queues.KUBERNETES, job, '')
