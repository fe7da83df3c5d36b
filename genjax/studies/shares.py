"""What each of several jobs on one machine gets of its cores and accelerators."""

from collections.abc import Mapping, Sequence
import importlib.util
import os
import pathlib
import re
import subprocess

THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
_MEMORY = 0.9  # of a GPU, for the jobs that share it


def cores(slot: int, jobs: int, available: Sequence[int] | None = None) -> list[int]:
  """The cores of one of several jobs; jobs share cores where there are more jobs than cores.

  Args:
    slot: which job, from 0.
    jobs: how many run at a time.
    available: cores of this process by default.
  """
  if available is None:
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  if not available:
    return []
  if jobs > len(available):
    return [available[slot % len(available)]]
  return list(available[slot * len(available) // jobs:(slot + 1) * len(available) // jobs])


def environment(slot: int, jobs: int, before: Mapping[str, str] = os.environ) -> dict[str, str]:
  """Variables that give one of several jobs its threads and its accelerators.

  Args:
    slot: which job, from 0.
    jobs: how many run at a time.
    before: the environment; what it says of devices goes for all jobs together.
  """
  found = {}
  if jobs == 1:
    return found
  for name in THREADS:
    if name not in before:
      found[name] = str(max(1, len(cores(slot, jobs))))
  platforms = before.get('JAX_PLATFORMS', '')
  if platforms == 'cpu':
    return found
  if gpus := _nvidia(before):
    found['CUDA_VISIBLE_DEVICES'], sharers = _devices(gpus, slot, jobs)
    if sharers > 1 and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in before:
      found['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{_MEMORY / sharers:.3f}'
  elif gpus := _amd(before):
    found['ROCR_VISIBLE_DEVICES'], _ = _devices(gpus, slot, jobs)
  elif chips := _tpus(before):
    found['TPU_VISIBLE_CHIPS'], _ = _devices(chips, slot, jobs)
    if jobs >= len(chips):  # a chip alone is a mesh of its own; more keep the shape that the host has
      found.update(TPU_CHIPS_PER_PROCESS_BOUNDS='1,1,1', TPU_PROCESS_BOUNDS='1,1,1')
  return found


def accelerators(before: Mapping[str, str] = os.environ) -> list[str]:
  """The accelerators that processes of this one would use; none with JAX_PLATFORMS=cpu."""
  return [] if before.get('JAX_PLATFORMS') == 'cpu' else _nvidia(before) or _amd(before) or _tpus(before)


def _devices(names: Sequence[str], slot: int, jobs: int) -> tuple[str, int]:
  """The devices of a job, and how many jobs share them."""
  if jobs <= len(names):
    return ','.join(names[slot * len(names) // jobs:(slot + 1) * len(names) // jobs]), 1
  mine = slot % len(names)
  return names[mine], len(range(mine, jobs, len(names)))


def _nvidia(before: Mapping[str, str]) -> list[str]:
  """GPUs by number or name, of CUDA_VISIBLE_DEVICES or of the driver."""
  if 'CUDA_VISIBLE_DEVICES' in before:
    return _listed(before['CUDA_VISIBLE_DEVICES'])
  try:
    said = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=30, check=True).stdout
  except (OSError, subprocess.SubprocessError):
    return []
  return re.findall(r'^GPU (\d+):', said, re.MULTILINE)


def _amd(before: Mapping[str, str]) -> list[str]:
  if 'ROCR_VISIBLE_DEVICES' in before:
    return _listed(before['ROCR_VISIBLE_DEVICES'])
  nodes = sorted(pathlib.Path('/sys/class/kfd/kfd/topology/nodes').glob('*/gpu_id'))
  found = [path for path in nodes if path.read_text().strip() not in ('', '0')]
  return [str(number) for number in range(len(found))]


def _tpus(before: Mapping[str, str]) -> list[str]:
  if 'TPU_VISIBLE_CHIPS' in before:
    return _listed(before['TPU_VISIBLE_CHIPS'])
  chips = [path for folder, pattern in (('/dev', 'accel[0-9]*'), ('/dev/vfio', '[0-9]*'))
           for path in pathlib.Path(folder).glob(pattern)]
  return [str(number) for number in range(len(chips))] if importlib.util.find_spec('libtpu') else []


def _listed(text: str) -> list[str]:
  return [name.strip() for name in text.split(',') if name.strip() and name.strip() != '-1']
