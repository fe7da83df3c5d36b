"""Gives the runs of a sweep to Slurm: a job array with a task a run, submitted by sbatch.

What the user brings is a file with lines `#SBATCH` and commands that set up the environment, or the options alone. The
rest is as in docs/launch/slurm.sbatch: srun starts the processes of a run, and a task that was asked to stop, or lost a
process, is queued again.
"""

from collections.abc import Sequence
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from genjax.studies import queues, submissions
from genjax.types import UserError, expanded

STOPPED = 10  # the exit code of a task that was asked to stop before its run was finished
_OURS = ('-a', '--array', '--parsable', '--wrap', '-W', '--wait', '-H', '--test-only')
_DEFAULTS = ('--job-name={name}', '--output={logs}/%A_%a.log', '--open-mode=append', '--requeue', '--signal=TERM@120')
_BODY = """
# srun no longer takes this from sbatch by itself.
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

# Not --kill-on-bad-exit: when a process is lost the others end by themselves, and say which one it was.
status=0
srun --label --wait=180 COMMAND || status=$?

case $status in
  5 | 7 | STOPPED | 143) ;; # a hang, a lost process, asked to stop before the end or before it began: it goes on
  *) exit "$status" ;;
esac
if ((${SLURM_RESTART_COUNT:-0} >= 50)); then
  echo "exit code $status after ${SLURM_RESTART_COUNT} restarts; not queued again" >&2
  exit "$status"
fi
exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
"""


def check(given: str) -> None:
  """Checks what --slurm names.

  Raises:
    UserError: a template that sbatch would refuse or that decides what is decided here.
  """
  _template(given)


def _template(given: str) -> tuple[str, list[str]]:
  """The first line of a script and the others, of a file or of options."""
  if not given.strip():
    return '#!/bin/bash', []
  if given.lstrip().startswith('-'):
    try:
      words = shlex.split(given)
    except ValueError as error:
      raise UserError(f'--slurm={given}: {error}') from error
    lines: list[str] = []
    for word in words:  # an option, or the value of the one before
      lines = [*lines, f'#SBATCH {word}'] if word.startswith('-') else [*lines[:-1], f'{lines[-1]} {shlex.quote(word)}']
    _check(lines, '--slurm')
    return '#!/bin/bash', lines
  path = expanded(given)
  try:
    first, *rest = path.read_text().splitlines() or ['']
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'--slurm={given} cannot be read ({error}); expected a file with lines #SBATCH and the commands '
                    "that set up the environment, or options such as --slurm='--partition=gpu --time=4:00:00'"
                    ) from error
  if not re.match(r'#!.*\b(bash|zsh)\b', first):
    raise UserError(f'{path}: the first line must be that of a bash script, such as #!/bin/bash, got {first!r}')
  _check(rest, str(path))
  return first, rest


def _check(lines: Sequence[str], where: str) -> None:
  command = ''
  for number, line in enumerate(lines, 2):
    place = f'{where}, line {number}' if where != '--slurm' else where
    if line.startswith('#SBATCH'):
      if command:
        raise UserError(f'{place}: sbatch reads no {line!r} after the first command, {command!r}; move it up')
      try:
        options = [word.partition('=')[0] for word in shlex.split(line[len('#SBATCH'):], comments=True)]
      except ValueError as error:
        raise UserError(f'{place}: {line!r}: {error}') from error
      if found := [option for option in options if option in _OURS or option.startswith('-a')]:
        raise UserError(f'{place}: {found[0]} is what genjax sweep decides (--jobs=N limits how many tasks run at a '
                        'time); leave it out')
    elif line.strip() and not line.lstrip().startswith('#'):
      command = command or line.strip()
      if re.match(r'\s*(exec\s+)?(srun|sbatch|genjax|exit)\b', line):
        raise UserError(f'{place}: {line.strip()!r} has no place in the template, which only sets up the environment; '
                        'genjax sweep adds srun and the command of each run')


def script(given: str, submission: submissions.Submission, folder: pathlib.Path, jobs: int | None) -> str:
  """The script of a job array.

  Args:
    given: a file, or options, or ''; see `check`.
    submission: the runs.
    folder: of the sweep.
    jobs: how many tasks run at a time; None for as many as there is room for.
  """
  first, rest = _template(given)
  logs = folder / queues.HIDDEN / 'slurm'
  limit = f'%{jobs}' if jobs else ''
  options = [f'--array=0-{len(submission.runs) - 1}{limit}',
             *(option.format(name=re.sub(r'\s', '-', folder.name), logs=logs) for option in _DEFAULTS)]
  head = [first, f'# Submission {submission.number} of the sweep in {folder}, one task a run:',
          *(f'#   {index}  {name}' for index, name in enumerate(submission.runs)),
          *(f'#SBATCH {shlex.quote(option) if " " in option else option}' for option in options), *rest]
  command = shlex.join([sys.executable, '-m', 'genjax.cli.main', 'sweep', f'--workdir={folder}',
                        f'--task={submission.number}'])
  return '\n'.join(head) + '\n' + _BODY.replace('COMMAND', command).replace('STOPPED', str(STOPPED))


def check_sbatch() -> None:
  """Checks that there is an sbatch.

  Raises:
    UserError: there is none.
  """
  if shutil.which('sbatch') is None:
    raise UserError('sbatch is not on this machine; run the same command where jobs are submitted to Slurm, or add '
                    '--list to print the script')


def submit(text: str, submission: submissions.Submission, folder: pathlib.Path) -> str:
  """Submits a script, and notes the job of each run; returns the number of the job array.

  Raises:
    UserError: Slurm refuses it; the message is its own.
  """
  logs = folder / queues.HIDDEN / 'slurm'
  logs.mkdir(parents=True, exist_ok=True)
  path = submissions.write(submission, folder, 'sbatch', text)
  done = subprocess.run(['sbatch', '--parsable', str(path)], capture_output=True, text=True, check=False)
  if done.returncode:
    raise UserError(f'sbatch refuses {path}: {done.stderr.strip()}')
  job = done.stdout.strip().partition(';')[0]
  for index, name in enumerate(submission.runs):
    queues.write(folder / name, queues.SLURM, f'{job}_{index}', str(logs / f'{job}_{index}.log'))
  queues.forget()
  return job
