"""Finds the address and number of this process in a multi-process run: from flags, environment or cluster."""

from collections.abc import Mapping
import dataclasses
import importlib.util
import os
import re

from genjax.types import UserError

_DEFAULT_PORT = 8476  # port of process 0 if the address has none


@dataclasses.dataclass(frozen=True)
class Options:
  """How this process finds the others; what is None or '' is taken from the environment.

  coordinator: 'host:port' of process 0. num_processes, process_id: how many there are and which one this is.
  start_timeout: seconds until all must have come. peer_timeout: seconds without a sign of life after which a process
  counts as lost; one that dies is noticed at once.
  """

  coordinator: str = ''
  num_processes: int | None = None
  process_id: int | None = None
  start_timeout: float = 300.0
  peer_timeout: float = 60.0


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of this process in a run.

  Attributes:
    coordinator: 'host:port' of process 0.
    processes: number of processes.
    process: number of this process, from 0.
    devices: indices of the local GPUs that this process uses; None for all visible ones.
  """

  coordinator: str
  processes: int
  process: int
  devices: tuple[int, ...] | None = None


def find(options: Options, environment: Mapping[str, str] = os.environ) -> Place | None:
  """Returns the place of this process in a multi-process run, or None if it runs alone.

  Sources, in this order: the options; the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (an
  indexed Job or a JobSet of Kubernetes may set JOB_COMPLETION_INDEX instead of the last one); the cluster detection of
  jax: TPU pods, Slurm, Open MPI, and Kubernetes if the package `kubernetes` is installed.

  Raises:
    UserError: only some of the three values are given, or they contradict each other.
  """
  processes = _number('--num_processes', options.num_processes, 'JAX_NUM_PROCESSES', environment)
  if processes == 1:
    return None
  coordinator = options.coordinator or environment.get('JAX_COORDINATOR_ADDRESS', '')
  process = _number('--process_id', options.process_id, 'JAX_PROCESS_ID', environment)
  if process is None and processes is not None:
    process = _number('', None, 'JOB_COMPLETION_INDEX', environment)
  given = {'--coordinator (or JAX_COORDINATOR_ADDRESS)': coordinator or None,
           '--num_processes (or JAX_NUM_PROCESSES)': processes, '--process_id (or JAX_PROCESS_ID)': process}
  devices = None
  if any(value is None for value in given.values()):
    found = _detect(options, environment)
    if found is None or found.processes == 1:
      if any(value is not None for name, value in given.items() if 'coordinator' not in name) or options.coordinator:
        raise UserError(f'several processes need {", ".join(given)}; missing: '
                        f'{", ".join(name for name, value in given.items() if value is None)}')
      return None
    coordinator, processes = coordinator or found.coordinator, processes or found.processes
    process, devices = found.process if process is None else process, found.devices
  if processes is None or process is None or processes < 1 or not 0 <= process < processes:
    raise UserError(f'--process_id must be from 0 to --num_processes - 1, got {process} of {processes}')
  has_port = re.search(r':\d+$', coordinator)
  host, _, port = coordinator.rpartition(':') if has_port else (coordinator, '', str(_DEFAULT_PORT))
  return Place(f'{host}:{port}', processes, process, devices)


def _number(flag: str, given: int | None, variable: str, environment: Mapping[str, str]) -> int | None:
  if given is not None or not environment.get(variable):
    return given
  if not environment[variable].isdecimal():
    raise UserError(f'{variable} must be a whole number, got {environment[variable]!r}'
                    + (f'; {flag} goes before it' if flag else ''))
  return int(environment[variable])


def _detect(options: Options, environment: Mapping[str, str]) -> Place | None:
  """The place that jax's cluster detection finds, or None."""
  # `jax.distributed.initialize` uses this module too, but has no way to detect without connecting.
  from jax._src import clusters

  for cluster in clusters.ClusterEnv._cluster_types:
    if cluster.opt_in_only_method:
      continue
    if cluster.__name__ == 'K8sCluster' and not ('JOB_COMPLETION_INDEX' in environment
                                                 and importlib.util.find_spec('kubernetes')):
      continue  # a single pod, or a Job without numbered pods: nothing tells of other processes
    try:
      if not cluster.is_env_present():
        continue
      processes = cluster.get_process_count()
      if processes == 1:
        return None
      port = environment.get('JAX_COORDINATOR_PORT')
      coordinator = options.coordinator or cluster.get_coordinator_address(timeout_secs=int(options.start_timeout),
                                                                           override_coordinator_port=port)
      return Place(coordinator, processes, cluster.get_process_id(),
                   _local_devices(cluster.get_local_process_id(), environment))
    except Exception as error:  # a metadata server or API that does not answer, or a variable that is not a number
      raise UserError(
        f'this seems to be one of several processes ({cluster.__name__} of jax), but asking for the others failed: '
        f'{type(error).__name__}: {error}. If this process is alone, add --num_processes=1; else give --coordinator, '
        '--num_processes and --process_id') from error
  return None


def _local_devices(local: int | None, environment: Mapping[str, str]) -> tuple[int, ...] | None:
  """Local GPUs of this process: one by its local number if processes share a host, else None for all."""
  tasks = environment.get('SLURM_STEP_TASKS_PER_NODE') or environment.get('SLURM_TASKS_PER_NODE', '')
  alone = bool(tasks) and set(re.sub(r'\(x\d+\)', '', tasks).split(',')) == {'1'}
  return None if local is None or alone or environment.get('JAX_LOCAL_DEVICE_IDS') else (local,)
