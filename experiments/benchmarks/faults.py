"""Fault campaign: kills training processes in every phase and checks that nothing is lost.

    python -m genjax.experiments.benchmarks.faults --kills 52

The smoke config of each family is first trained without faults. Then it is trained again by processes that are killed
one after the other, by SIGKILL and SIGTERM, when `status.json` reports the chosen phase. After the last kill a process
may finish. Checked are the exit codes; that a run resumes from the newest complete checkpoint, after SIGTERM from the
last finished step; and that at the end checkpoints, evaluations and sample files equal those of the first run bit for
bit. Prints a table; the exit code is 1 if anything differs.

Needs no downloads, network or accelerator; runs one process at a time.
"""

import argparse
import collections
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.types import expanded

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent  # genjax/experiments is a link
FAMILIES = {
  'vae': 'autoencoders/digits_vae', 'gan': 'gans/digits_gan', 'diffusion': 'quickstart',
  'language': 'language/python_code'
}
PHASES = ('start-up', 'compile', 'step', 'evaluate', 'sample', 'save')
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
TIMEOUT_SECONDS = 600.0  # per process


@dataclasses.dataclass(frozen=True)
class Kill:
  """One kill: the phase to wait for, from which step on, and the signal."""

  phase: str
  number: signal.Signals
  after: int


@dataclasses.dataclass
class Campaign:
  """Runs of one family.

  Attributes:
    family: a key of FAMILIES.
    folder: folder for its run directories.
    steps, every: length of a run, and steps between checkpoints.
  """

  family: str
  folder: pathlib.Path
  steps: int
  every: int
  problems: list[str] = dataclasses.field(default_factory=list)
  rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

  def start(self, workdir: pathlib.Path) -> subprocess.Popen:
    """Starts a process that trains or resumes a run."""
    argv = [
      sys.executable, '-m', 'genjax.cli.main', 'train', f'--config={ROOT}/configs/{FAMILIES[self.family]}.py:smoke',
      f'--workdir={workdir}', f'--config.steps={self.steps}', f'--config.checkpoint.every={self.every}',
      '--config.evaluate_every=5', '--config.evaluate_batches=2', '--config.sample_every=5', '--config.log_every=5'
    ]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(workdir.with_suffix('.log'), 'a') as log:
      log.write('\n--- start\n')
      log.flush()
      # In a new session, so that Ctrl-C in this terminal does not reach it.
      return subprocess.Popen(
        argv, stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])})

  def finish(self, workdir: pathlib.Path) -> bool:
    """Trains a run to its end; returns False if that fails."""
    process = self.start(workdir)
    code = wait(process)
    if code != 0:
      self.problems.append(f'{workdir.name}: exit code {code}\n{tail(workdir)}')
    return code == 0

  def disturb(self, workdir: pathlib.Path, kills: list[Kill]) -> int:
    """Trains a run with kills until it finishes or all are used; returns the number of used kills."""
    for spent, kill in enumerate(kills):
      before = resumable(workdir)
      process = self.start(workdir)
      seen, step = approach(process, workdir, kill)
      if seen is None:
        wait(process)
        return spent  # it finished before the kill
      process.send_signal(kill.number)
      begin = time.monotonic()
      code = wait(process)
      said = last_words(workdir)
      status = read_status(workdir) or {}
      reached, kept = int(status.get('step', 0)), resumable(workdir)
      self.rows.append(
        (self.family, kill.phase, kill.number.name, seen, str(reached), str(kept), f'{time.monotonic() - begin:.2f}'))
      self._judge(workdir, kill, code, before, step, reached, kept, said)
    return len(kills)

  def _judge(self, workdir: pathlib.Path, kill: Kill, code: int, before: int, step: int, reached: int, kept: int,
             said: str) -> None:
    where = f'{workdir.name}: {kill.number.name} in {kill.phase} at step {step}'
    if code != (0 if kill.number == signal.SIGTERM else -kill.number):
      self.problems.append(f'{where}: exit code {code}\n{tail(workdir)}')
    if kept < before:
      self.problems.append(f'{where}: the run went back from checkpoint {before} to {kept}')
    if kill.number == signal.SIGTERM:
      stopped = re.search(r'stopped by SIGTERM at step (\d+), which is saved', said)
      if 'finished step' not in said and 'stopped by SIGTERM' not in said:
        self.problems.append(f'{where}: it did not say that it stopped\n{tail(workdir)}')
      if stopped and not int(stopped[1]) == kept == reached:
        self.problems.append(f'{where}: stopped at step {stopped[1]}, finished {reached}, but {kept} is saved')
    elif kept < ((reached - 1) // self.every - 1) * self.every:  # the newest checkpoint may have been incomplete
      self.problems.append(f'{where}: finished {reached}, but only {kept} is saved')

  def compare(self, expected: pathlib.Path, actual: pathlib.Path) -> int:
    """Checks that two finished runs are equal; returns the number of compared arrays."""
    steps = [checkpoint_steps(expected), checkpoint_steps(actual)]
    if steps[0] != steps[1] or not steps[0]:
      self.problems.append(f'{actual.name}: keeps checkpoints {steps[1]}, undisturbed {steps[0]}')
    compared = 0
    for step in sorted(set(steps[0]) & set(steps[1])):
      there, here = arrays(expected, step), arrays(actual, step)
      different = [name for name in sorted(set(there) | set(here)) if name not in there or name not in here
                   or there[name].dtype != here[name].dtype or there[name].tobytes() != here[name].tobytes()]
      compared += len(here)
      if different:
        self.problems.append(
          f'{actual.name}: {len(different)} of {len(there)} arrays of step {step} differ: {different[:3]}')
    if evaluations(expected) != evaluations(actual):
      self.problems.append(f'{actual.name}: other evaluations than undisturbed')
    if samples(expected) != samples(actual):
      self.problems.append(f'{actual.name}: other samples than undisturbed')
    return compared


def approach(process: subprocess.Popen, workdir: pathlib.Path, kill: Kill) -> tuple[str | None, int]:
  """Waits for the time of a kill; returns the phase and the finished steps, or None if the process ended before."""
  deadline = time.monotonic() + TIMEOUT_SECONDS
  if kill.phase == 'start-up':
    # Between the start of the interpreter, before signal handlers exist, and about the end of the imports.
    time.sleep(random.Random(kill.after).uniform(0.1, 2.5))
  while time.monotonic() < deadline:
    status = read_status(workdir)
    mine = bool(status) and status['process'] == process.pid
    if process.poll() is not None:
      return None, status['step'] if mine and status else 0
    if kill.phase == 'start-up':
      return (status['doing'] if mine and status else 'start-up'), (status['step'] if mine and status else 0)
    if mine and status and status['doing'] == kill.phase and (status['step'] >= kill.after or kill.phase == 'compile'):
      return status['doing'], status['step']
    time.sleep(0.0005 if mine else 0.01)
  process.kill()
  raise TimeoutError(f'{workdir}: phase {kill.phase} did not come in {TIMEOUT_SECONDS:.0f} s')


def wait(process: subprocess.Popen) -> int:
  """Returns the exit code; kills a process that takes too long."""
  try:
    return process.wait(TIMEOUT_SECONDS)
  except subprocess.TimeoutExpired:
    process.kill()
    return process.wait()


def read_status(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The contents of status.json, or None before it exists."""
  try:
    return json.loads((workdir / 'status.json').read_text())
  except (FileNotFoundError, ValueError):
    return None


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
  """Steps of the complete checkpoints of a run that is not running."""
  folder = workdir / 'checkpoints'
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def resumable(workdir: pathlib.Path) -> int:
  """The step from which a run would resume."""
  return max([0, *checkpoint_steps(workdir)])


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Every array of a checkpoint by its path."""
  checkpoints = Checkpoints(workdir / 'checkpoints')
  try:
    _, tree = checkpoints.load(print, step, ('step', 'params', 'mutable', 'opt', 'ema'))
  finally:
    checkpoints.close()
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def evaluations(workdir: pathlib.Path) -> list[dict[str, float]]:
  """The lines of metrics.jsonl with evaluations."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [line for line in lines if any(name.startswith('heldout/') for name in line)]


def samples(workdir: pathlib.Path) -> dict[str, bytes]:
  """The sample files and their contents."""
  return {path.name: path.read_bytes() for path in sorted((workdir / 'samples').iterdir())}


def last_words(workdir: pathlib.Path) -> str:
  """The output of the last process of a run."""
  return workdir.with_suffix('.log').read_text(errors='replace').rpartition('--- start')[2]


def tail(workdir: pathlib.Path) -> str:
  """Its last lines."""
  return '\n'.join(f'    {line}' for line in last_words(workdir).splitlines()[-8:])


def plan(kills: int, families: Sequence[str], steps: int, seed: int) -> dict[str, list[Kill]]:
  """The kills of each family: all phases and signals in turn, at increasing steps of a run."""
  pairs = [(phase, number) for phase in PHASES for number in SIGNALS]
  given: dict[str, list[tuple[str, signal.Signals]]] = {family: [] for family in families}
  for index in range(kills):
    turn, place = divmod(index, len(families))
    # 5 and the number of pairs are coprime, so each family gets every pair, and few kills are still different.
    given[families[place]].append(pairs[(5 * turn + 3 * place) % len(pairs)])
  chance, planned = random.Random(seed), {}
  for family, chosen in given.items():
    chance.shuffle(chosen)
    planned[family] = [Kill(phase, number, int(0.9 * steps * (position + chance.random()) / len(chosen)))
                       for position, (phase, number) in enumerate(chosen)]
  return planned


def run(kills: int, families: Sequence[str], steps: int, every: int, seed: int, folder: pathlib.Path) -> int:
  """Runs the campaign; returns the number of problems."""
  begin = time.monotonic()
  problems, rows = [], []
  for family, planned in plan(kills, families, steps, seed).items():
    campaign = Campaign(family, folder / family, steps, every)
    straight = folder / family / 'undisturbed'
    runs = 0
    if campaign.finish(straight):
      while planned and runs < 2 * len(planned) + 2:
        disturbed = folder / family / f'disturbed_{runs}'
        planned = planned[campaign.disturb(disturbed, planned):]
        runs += 1
        compared = campaign.compare(straight, disturbed) if campaign.finish(disturbed) else 0
        print(
          f'{family:<10} run {runs}: {compared} arrays compared, {len(planned)} kills to go, {len(campaign.problems)} '
          f'problems, {time.monotonic() - begin:.0f} s', flush=True)
    if planned:
      campaign.problems.append(f'{len(planned)} kills were not spent')
    problems += [f'{family} {problem}' for problem in campaign.problems]
    rows += campaign.rows
  report(rows, problems, time.monotonic() - begin)
  return len(problems)


def report(rows: Sequence[tuple[str, ...]], problems: Sequence[str], seconds: float) -> None:
  """Every kill, how many of each kind, and the problems."""
  print(
    f'\n{"family":<10} {"phase":<9} {"signal":<8} {"caught in":<9} {"finished":>8} {"saved":>6} {"ended after":>12}')
  for family, phase, number, seen, reached, kept, took in rows:
    print(f'{family:<10} {phase:<9} {number:<8} {seen:<9} {reached:>8} {kept:>6} {took:>10} s')
  counts = collections.Counter((phase, number) for _, phase, number, *_ in rows)
  print(f'\n{"kills":<10}' + ''.join(f'{phase:>10}' for phase in PHASES))
  for number in SIGNALS:
    print(f'{number.name:<10}' + ''.join(f'{counts[phase, number.name]:>10}' for phase in PHASES))
  print(f'\n{len(rows)} kills, {len(problems)} problems, {seconds:.0f} s')
  for problem in problems:
    print(f'PROBLEM {problem}')


def main(argv: Sequence[str] | None = None) -> int:
  """The command; see the module."""
  parser = argparse.ArgumentParser(prog='python -m genjax.experiments.benchmarks.faults', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=52, help='how many, over all families')
  parser.add_argument('--families', default=','.join(FAMILIES), help=f'of {", ".join(FAMILIES)}')
  parser.add_argument('--steps', type=int, default=200, help='steps of a run')
  parser.add_argument('--every', type=int, default=10, help='steps between checkpoints')
  parser.add_argument('--seed', type=int, default=0, help='of the order and the steps of the kills')
  parser.add_argument('--workdir', default='', help='where the runs are kept; by default they are deleted')
  options = parser.parse_args(argv)
  families = options.families.split(',')
  if options.kills < 1 or set(families) - set(FAMILIES):
    parser.error(f'at least one kill, and families of {sorted(FAMILIES)}')
  folder = expanded(options.workdir or tempfile.mkdtemp(prefix='faults-')).absolute()
  try:
    return 1 if run(options.kills, families, options.steps, options.every, options.seed, folder) else 0
  finally:
    if not options.workdir:
      shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
  sys.exit(main())
