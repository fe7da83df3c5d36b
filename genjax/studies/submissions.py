"""What was given to a cluster at one time: which runs, by the index that the cluster calls each by.

    .sweep/submissions/NUMBER.json     engine, runs in the order of their indices, flags of the evaluation
    .sweep/submissions/NUMBER.sbatch   or NUMBER.yaml: what was submitted

A job of the cluster starts `genjax sweep --workdir=DIR --task=NUMBER`, once for each process of its run, and that does
what is pending of the run, as a sweep on one machine would.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import re

from genjax.runs import atomic
from genjax.types import UserError

_FOLDER = '.sweep/submissions'
_INDICES = ('SLURM_ARRAY_TASK_ID', 'JOB_COMPLETION_INDEX')  # variables of clusters


@dataclasses.dataclass(frozen=True)
class Submission:
  """Runs that a cluster works on.

  Attributes:
    number: which submission of the sweep this is, from 1.
    engine: 'slurm' or 'kubernetes'.
    runs: names, in the order of their indices.
    evaluate: flags of `genjax evaluate`, None for no evaluation.
  """

  number: int
  engine: str
  runs: tuple[str, ...]
  evaluate: tuple[str, ...] | None

  def path(self, folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """Its file with an ending."""
    return folder / _FOLDER / f'{self.number}.{suffix}'


def new(folder: pathlib.Path, engine: str, runs: Sequence[str], evaluate: Sequence[str] | None) -> Submission:
  """The next submission of a sweep; it is not written yet."""
  numbers = [int(path.stem) for path in (folder / _FOLDER).glob('*.json') if path.stem.isdecimal()]
  return Submission(max(numbers, default=0) + 1, engine, tuple(runs), None if evaluate is None else tuple(evaluate))


def write(submission: Submission, folder: pathlib.Path, suffix: str, text: str) -> pathlib.Path:
  """Writes a submission and what a cluster reads of it; returns the path of that."""
  path = submission.path(folder, suffix)
  atomic.write(path.parent, {path.name: text.encode()})
  atomic.write_json(submission.path(folder, 'json'), dataclasses.asdict(submission))
  return path


def find(folder: pathlib.Path, text: str, environment: Mapping[str, str] = os.environ) -> tuple[Submission, int]:
  """The submission and the index that --task=NUMBER[:INDEX] names.

  Args:
    folder: of the sweep.
    text: after the '='; the cluster tells an index that it leaves out.
    environment: in which variables of clusters are looked for.

  Raises:
    UserError: there are no such.
  """
  parts = re.fullmatch(r'(\d+)(?::(\d+))?', text)
  if parts is None:
    raise UserError(f'--task must be NUMBER or NUMBER:INDEX of a submission, got {text!r}')
  index = parts[2] or next((environment[name] for name in _INDICES if environment.get(name)), None)
  if index is None or not index.isdecimal():
    raise UserError(f'--task={text} is for jobs of clusters, which set {" or ".join(_INDICES)}; elsewhere give '
                    f'--task={text}:INDEX')
  path = folder / _FOLDER / f'{parts[1]}.json'
  try:
    found = json.loads(path.read_text())
    submission = Submission(found['number'], found['engine'], tuple(found['runs']),
                            None if found['evaluate'] is None else tuple(found['evaluate']))
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f'{path} is missing or damaged ({error}); submit the sweep again') from error
  if int(index) >= len(submission.runs):
    raise UserError(f'--task={text}: submission {submission.number} has {len(submission.runs)} runs, and no index '
                    f'{index}')
  return submission, int(index)
