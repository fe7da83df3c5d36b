"""Benchmark of one accelerator: training, decoding and sampling at published sizes, compared with PyTorch.

    # everything that fits into 400 seconds
    python -m genjax.experiments.benchmarks.accelerator --out=accelerator.json
    python -m genjax.experiments.benchmarks.accelerator --cases=gpt2_train,dit_train --sides=genjax --budget=120
    # tiny shapes on any device: checks that it works, measures nothing
    python -m genjax.experiments.benchmarks.accelerator --dry

PyTorch is only compared if it has the same device. Each measurement runs in its own process, so that a failure does not
affect others and memory is not shared. A batch that does not fit is halved. Measurements that would exceed the budget
are skipped and reported as such. docs/accelerators.md describes the report.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax

from genjax.experiments.benchmarks import accelerator_cases
from genjax.experiments.benchmarks.accelerator_cases import CASES, SIDES, Skipped, Unavailable
from genjax.planning import topology
from genjax.training.monitoring import logs
from genjax.types import strict_json

FORMAT = 1
ROUNDS = 7
START_SECONDS = 10.0  # for the start of a process, its imports and its device
MAX_MESSAGE_LENGTH = 600  # characters of the last output of a failed process

Report = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
  """The command; see the module."""
  parser = argparse.ArgumentParser(prog='python -m genjax.experiments.benchmarks.accelerator', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cases', default=','.join(CASES), help=f'of {", ".join(CASES)}')
  parser.add_argument('--sides', default=','.join(SIDES), help=f'of {", ".join(SIDES)}')
  parser.add_argument('--budget', type=float, default=400.0, metavar='SECONDS',
                      help='nothing is begun that would end later')
  parser.add_argument('--out', type=pathlib.Path, metavar='FILE', help='write the report here, as JSON')
  parser.add_argument('--dry', action='store_true', help='tiny shapes in this process, to try the command anywhere')
  parser.add_argument('--one', metavar='CASE:SIDE', help=argparse.SUPPRESS)  # what a child process measures
  parser.add_argument('--batch', type=int, default=0, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  cases, sides = ([name for name in text.split(',') if name] for text in (args.cases, args.sides))
  if unknown := [
      name for name, known in [(name, CASES) for name in cases] + [(name, SIDES) for name in sides] if name not in known
  ]:
    parser.error(f'unknown {unknown[0]!r}: --cases takes {", ".join(CASES)}, and --sides {", ".join(SIDES)}')
  if not args.budget > 0 or not cases or not sides:
    parser.error(
      f'--budget is above 0, and there is at least one case and one side; got {args.budget}, {args.cases!r}, '
      f'{args.sides!r}')
  if args.out and not args.out.absolute().parent.is_dir():
    parser.error(f'--out={args.out} cannot be written: its folder does not exist')
  if args.one:
    name, _, side = args.one.partition(':')
    args.out.write_text(strict_json(measure(name, side, args.batch)))
    return 0
  report = run(cases, sides, args.budget, measure_dry if args.dry else measure_apart, args.dry)
  print(render(report))
  if args.out:
    args.out.write_text(strict_json(report, indent=1) + '\n')
  return 0 if any(row[side]['status'] == 'ok' for row in report['cases'].values() for side in sides) else 1


def run(cases: Sequence[str], sides: Sequence[str], budget: float, measuring: Callable[[str, str, int, float], Report],
        dry: bool) -> Report:
  """Measures all cases on all sides, within a budget of seconds.

  genjax is measured first on all cases, so that the budget rather cuts off the comparison. Other sides use the batch
  that fitted genjax.

  Args:
    cases, sides: what to measure.
    budget: seconds.
    measuring: (case, side, batch or 0, seconds left) -> what `measure` returns.
    dry: for the report.
  """
  begin, slower = time.monotonic(), 1.0
  rows: dict[str, Report] = {name: {'setting': CASES[name].setting} for name in cases}
  device: Report = {}
  for side in sorted(sides, key=SIDES.index):
    for name in cases:
      left, expected = budget - (time.monotonic() - begin), slower * (START_SECONDS + CASES[name].seconds[side])
      batch = rows[name].get('genjax', {}).get('batch') or 0
      if reason := _hopeless(side, rows, device):
        rows[name][side] = {'status': 'skipped', 'reason': reason}
      elif expected > left and not dry:
        rows[name][side] = {
          'status': 'skipped',
          'reason': f'would take about {expected:.0f} s, and {max(0.0, left):.0f} of the budget of '
                    f'{budget:.0f} s are left; --budget=SECONDS allows more'
        }
      else:
        logs.say(f'{name} {side} ...')
        before = time.monotonic()
        rows[name][side] = found = measuring(name, side, batch, left)
        device = device or found.pop('device', {})
        found.pop('device', None)
        if found['status'] == 'ok':
          slower = max(slower, (time.monotonic() - before) / (START_SECONDS + CASES[name].seconds[side]))
  return {'format': FORMAT, 'dry': dry, 'budget_seconds': budget, 'seconds': time.monotonic() - begin, 'device': device,
          'versions': versions(), 'cases': rows}


def _hopeless(side: str, rows: Mapping[str, Report], device: Report) -> str:
  """Returns why no case can run on this side, or ''."""
  if side != 'genjax' and device and device['platform'] not in ('gpu', 'cpu'):
    return f'PyTorch is compared on GPUs, and this is {device["kind"]}'
  return next((row[side]['reason'] for row in rows.values() if row.get(side, {}).get('status') == 'unavailable'), '')


def measure_apart(name: str, side: str, batch: int, left: float) -> Report:
  """Runs `measure` in a child process, which ends with the budget."""
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'report.json'
    command = [
      sys.executable, '-m', 'genjax.experiments.benchmarks.accelerator', f'--one={name}:{side}', f'--batch={batch}',
      f'--out={out}'
    ]
    memory = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92'
             } if side == 'genjax' else {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    try:
      done = subprocess.run(command, env={**os.environ, **memory}, timeout=left, capture_output=True, text=True,
                            check=False)
    except subprocess.TimeoutExpired:
      return {'status': 'failed', 'reason': f'did not end within the {left:.0f} s that were left of the budget'}
    if not out.exists():
      return {'status': 'failed',
              'reason': f'the process ended with {done.returncode}: {done.stderr.strip()[-MAX_MESSAGE_LENGTH:]}'}
    return json.loads(out.read_text())


def measure_dry(name: str, side: str, batch: int, left: float) -> Report:
  """Runs `measure` with tiny shapes in this process."""
  return measure(name, side, batch, dry=True)


def measure(name: str, side: str, batch: int = 0, dry: bool = False) -> Report:
  """Measures one case on one side; halves the batch until it fits.

  Args:
    name, side: of `CASES` and `SIDES`.
    batch: rows, 0 for those of the case.
    dry: tiny shapes, one round.

  Returns:
    status 'ok', 'failed', 'skipped' or 'unavailable' (with a reason unless 'ok'); device; and if 'ok', the results that
    docs/accelerators.md lists.
  """
  case, tried = CASES[name], []
  rows = batch or (2 if dry and case.batch > 1 else case.batch)
  while True:
    tried.append(rows)
    try:
      found = accelerator_cases.measure(case, side, rows, dry, 1 if dry else ROUNDS)
      break
    except Unavailable as error:
      return {'status': 'unavailable', 'reason': str(error), 'device': describe_device()}
    except Skipped as error:
      return {'status': 'skipped', 'reason': str(error), 'device': describe_device()}
    except Exception as error:  # a backend may raise any error; other measurements continue
      message = f'{type(error).__name__}: {error}'
    # Outside the handler, because its traceback keeps the arrays of the failed attempt alive.
    gc.collect()
    if not out_of_memory(message) or rows == 1:
      return {'status': 'failed', 'reason': message[:MAX_MESSAGE_LENGTH], 'batches_tried': tried,
              'device': describe_device()}
    rows = rows // 2
  device = describe_device()
  step = statistics.median(found['step_seconds_rounds'])
  per_second = found['flops'] / step if found['flops'] else None
  return {'status': 'ok', **found, 'batch': rows, 'batches_tried': tried, 'step_seconds': step,
          'units_per_second': found['units_per_step'] / step, 'flops_per_second': per_second,
          'mfu': per_second / device['peak_flops'] if per_second and device['peak_flops'] else None, 'device': device}


def out_of_memory(message: str) -> bool:
  """Returns whether an error message is about too little device memory."""
  return any(words in message.lower()
             for words in ('resource_exhausted', 'out of memory', 'outofmemory', 'exceeds available hbm'))


def describe_device() -> Report:
  """The first device: its name in jax, and its memory and peak bfloat16 FLOP/s if known."""
  device = jax.devices()[0]
  hardware = topology.hardware_of(device.device_kind)
  return {
    'kind': device.device_kind, 'platform': device.platform, 'count': jax.device_count(),
    'memory_bytes': (device.memory_stats() or {}).get('bytes_limit'), 'peak_flops': hardware.flops if hardware else None
  }


def versions() -> dict[str, str | None]:
  """Versions of the measured packages; None if not installed."""
  found: dict[str, str | None] = {'python': platform.python_version()}
  for name in ('jax', 'jaxlib', 'flax', 'torch', 'transformers'):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return found


def render(report: Report) -> str:
  """The report as a table."""
  device, known = report['device'], [f'{name} {version}' for name, version in report['versions'].items() if version]
  peak = f'peak {device["peak_flops"] / 1e12:.0f} TFLOP/s' if device.get('peak_flops') else 'peak unknown'
  lines = [
    f'{device.get("kind", "no device")}, {peak}; {", ".join(known)}; {report["seconds"]:.0f} s' +
    ('; dry: tiny shapes, these are no measurements' if report['dry'] else ''), '',
    f'{"case":<14}{"side":<15}{"batch":>6}{"step ms":>10}{"units/s":>11}{"MFU":>8}{"peak GiB":>10}{"compile s":>11}'
    '  attention; setting; unit'
  ]
  for name, row in report['cases'].items():
    for side in (side for side in SIDES if side in row):
      found = row[side]
      if found['status'] != 'ok':
        lines.append(
          f'{name:<14}{side:<15}{found["status"]}: {found["reason"].splitlines()[-1] if found["reason"] else ""}')
        continue
      share = f'{100 * found["mfu"]:.1f} %' if found['mfu'] is not None else '-'
      memory = f'{found["peak_bytes"] / 2**30:.2f}' if found['peak_bytes'] else '-'
      compiling = f'{found["compile_seconds"]:.1f}' if found['compile_seconds'] is not None else '-'
      speed = f'{found["batch"]:>6}{1e3 * found["step_seconds"]:>10.2f}{found["units_per_second"]:>11.4g}{share:>8}'
      lines.append(
        f'{name:<14}{side:<15}{speed}{memory:>10}{compiling:>11}  {found["attention"]["ran"]}; {row["setting"]}; '
        f'{found["unit"]}')
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
