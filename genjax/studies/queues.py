"""What the queue of a cluster knows of the runs of a sweep.

A run that was given to a cluster has queue.json beside its config in the hidden folder of its sweep: the engine, the
job, and its log. Slurm is asked what became of a job; Kubernetes is not, and only named.
"""

from collections.abc import Mapping
import json
import pathlib
import shutil
import subprocess
import time
from typing import Any

from genjax.runs import atomic
from genjax.types import UserError

FILE = 'queue.json'
SLURM, KUBERNETES = 'slurm', 'kubernetes'
PENDING, RUNNING, GONE, UNKNOWN = 'pending', 'running', 'gone', 'unknown'
_AGE = 5.0  # seconds that an answer of Slurm is used
HIDDEN = '.sweep'  # folder of a sweep with what its runs are given
_FOREIGN = 'Invalid job id'  # what squeue says of a job that has ended a while ago
_answers: dict[str, tuple[float, dict[str, str] | None]] = {}  # job -> when it was asked about, task -> state


def hidden(run: pathlib.Path) -> pathlib.Path:
  """Where a sweep keeps what a run, by its folder, is given."""
  return run.parent / HIDDEN / run.name


def names(folder: pathlib.Path) -> list[str]:
  """The runs of a sweep that were given to a cluster at some time."""
  return sorted(path.parent.name for path in (folder / HIDDEN).glob(f'*/{FILE}'))


def read(run: pathlib.Path) -> dict[str, Any]:
  """queue.json of a run; empty for none."""
  try:
    return json.loads((hidden(run) / FILE).read_text())
  except (OSError, ValueError):
    return {}


def write(run: pathlib.Path, engine: str, job: str, log: str) -> None:
  """Notes the job that a run was given to.

  Args:
    run: its folder.
    engine: 'slurm' or 'kubernetes'.
    job: 'ID_INDEX' of Slurm, or the name and the index of a Job.
    log: where to look when the job ends before the run begins.
  """
  atomic.write_json(hidden(run) / FILE, {'engine': engine, 'job': job, 'log': log})


def state(queue: Mapping[str, Any]) -> str:
  """'pending', 'running', 'gone', or 'unknown': no job, another engine, or Slurm does not answer here."""
  if queue.get('engine') != SLURM:
    return UNKNOWN
  array, _, _ = queue['job'].partition('_')
  now = time.monotonic()
  if array not in _answers or now - _answers[array][0] > _AGE:
    _answers[array] = now, _ask(array)
  tasks = _answers[array][1]
  if tasks is None:
    return UNKNOWN
  found = tasks.get(queue['job'], '')
  if found in ('RUNNING', 'COMPLETING', 'SUSPENDED', 'STAGE_OUT', 'SIGNALING', 'STOPPED'):
    return RUNNING
  return PENDING if found else GONE


def forget() -> None:
  """Asks anew the next time."""
  _answers.clear()


def _ask(array: str) -> dict[str, str] | None:
  """Task -> its state, of the tasks of a job array that have not ended; None where Slurm does not answer."""
  if shutil.which('squeue') is None:
    return None
  try:
    done = subprocess.run(['squeue', '--noheader', '--array', '--format=%i %T', f'--jobs={array}'], capture_output=True,
                          text=True, timeout=60, check=False)
  except (OSError, subprocess.SubprocessError):
    return None
  if done.returncode:
    return {} if _FOREIGN in done.stderr else None
  return dict(line.split()[:2] for line in done.stdout.splitlines() if len(line.split()) >= 2)  # type: ignore[misc]


def told(queue: Mapping[str, Any], asked: str) -> str:
  """What there is to say of the job of a run that does not train."""
  if queue.get('engine') == KUBERNETES:
    return f'Job {queue["job"]}'
  return f'job {queue["job"]}' + (' has ended' if asked == GONE else '') if queue else ''


def is_active(run: pathlib.Path) -> bool:
  """Whether a job that has not ended will train a run.

  Raises:
    UserError: Slurm does not answer; submitting then might train a run twice.
  """
  queue = read(run)
  found = state(queue)
  if queue.get('engine') == SLURM and found == UNKNOWN:
    raise UserError(f'squeue does not say what became of job {queue["job"]}; try again when it answers')
  return found in (PENDING, RUNNING)
