"""What `genjax sweep` does on clusters: gives runs to Slurm or Kubernetes, and works on one of them there."""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib
import sys

from genjax import cluster
from genjax.runs import lock
from genjax.runs import workdir as workdir_lib
from genjax.studies import jobs, kubernetes, queues, slurm, submissions, sweeps
from genjax.types import UserError


def submit(sweep: sweeps.Sweep, folder: pathlib.Path, args: argparse.Namespace, count: int | None,
           flags: Sequence[str] | None, watch: Callable[[], int]) -> int:
  """Gives what is to do of a sweep to a cluster; returns the exit code.

  Args:
    sweep: the sweep.
    folder: its folder, absolute.
    args: what the command line says of clusters.
    count: how many runs at a time, None for no limit.
    flags: of the evaluation, None for none.
    watch: shows the runs until they have ended.

  Raises:
    UserError: what the user brings does not fit, or the cluster refuses it.
  """
  on_slurm = args.slurm is not None
  if args.wait and (args.kubernetes or args.list):
    raise UserError('--wait looks at the queue of Slurm; leave it out with --kubernetes and --list')
  if on_slurm:
    slurm.check(args.slurm)
  else:
    given = kubernetes.read(args.kubernetes, folder)
  if on_slurm and not args.list:
    slurm.check_sbatch()
  tasks = [task for task in sweeps.tasks(sweep, folder, flags) if task.pending()]
  waiting = [task for task in tasks if args.list or not on_slurm or not queues.is_active(task.folder)]
  engine = queues.SLURM if on_slurm else queues.KUBERNETES
  submission = submissions.new(folder, engine, [task.name for task in waiting], flags)
  if not waiting:
    print(f'nothing to submit: {len(sweep.settings) - len(tasks)} of {len(sweep.settings)} runs are finished, '
          f'{len(tasks)} in the queue')
    return watch() if args.wait else 0
  made = [] if on_slurm else kubernetes.manifests(given, submission, folder, count)
  text = slurm.script(args.slurm, submission, folder, count) if on_slurm else kubernetes.text(made, submission, folder)
  if args.list:
    print(text, end='')
    return 0
  workdir_lib.prepare(str(folder))
  with lock.hold(folder):
    if submissions.new(folder, engine, (), None).number != submission.number:  # its files would be overwritten
      raise UserError(f'another process has submitted runs of {folder} meanwhile; give the command again')
    sweeps.write(sweep, folder)
    told = f'{len(waiting)} of {len(sweep.settings)} runs'
    if on_slurm:
      job = slurm.submit(text, submission, folder)
      print(f'{told} submitted as job array {job}; {len(tasks) - len(waiting)} were in the queue before\n'
            f'watch: genjax runs {folder} --watch')
    else:
      before = sorted({queue['job'].partition(',')[0] for task in waiting
                       if (queue := queues.read(task.folder)).get('engine') == queues.KUBERNETES})
      path = submissions.write(submission, folder, 'yaml', text)
      kubernetes.note(made, submission, folder)
      kinds = 'Job' if len(made) == 1 and made[0]['kind'] == 'Job' else 'JobSets'
      print(f'{told} in the {kinds} of {path}')
      if before:
        print(f'before: kubectl delete {made[0]["kind"].lower()} --ignore-not-found {" ".join(before)}')
      print(f'next: kubectl apply -f {path}')
  return watch() if args.wait else 0


def work(folder: pathlib.Path, text: str) -> int:
  """Does what is pending of one run, as one process of it; returns the exit code.

  Args:
    folder: of the sweep.
    text: --task=NUMBER[:INDEX].
  """
  submission, index = submissions.find(folder, text)
  name = submission.runs[index]
  sweep = sweeps.reopened(folder)
  found = sweeps.tasks(sweep, folder, submission.evaluate, name)
  if not found:
    print(f'{name}: the sweep no longer has this run')
    return 0
  place = cluster.find(cluster.Options())
  number = place.process if place else 0
  task = dataclasses.replace(found[0], job=_job(submission, index), process=number)
  source = jobs.Listed([task])
  failed, stopped = jobs.run(source, 1, _Lines())
  if stopped and task.pending():
    print(f'{name}: stopped by {stopped}; what was trained is saved')
    return slurm.STOPPED
  if not failed:
    return 0
  print(f'{name}: {failed[name]}', file=sys.stderr)
  code = source.codes[name]
  # A training that ends well before its end was asked to stop, though this process was not.
  return slurm.STOPPED if code == 0 else 128 - code if code < 0 else code


def _job(submission: submissions.Submission, index: int) -> str:
  """What the cluster calls the job that this process is of."""
  if submission.engine == queues.SLURM:
    return f'{os.environ.get("SLURM_ARRAY_JOB_ID", "?")}_{index}'
  return os.environ.get('HOSTNAME', f'{submission.number}:{index}')  # the name of the pod


class _Lines:
  """An observer that prints."""

  def say(self, line: str) -> None:
    """Prints a line."""
    print(line, flush=True)

  def look(self, active: Sequence[str]) -> None:
    """Nothing is drawn."""
