"""`genjax sample --workdir=DIR --num=N --out=PATH`: draws samples from a run.

--out ends in .npz for raw arrays (the samples and their conditions, one row each), in .png or .txt for a rendering, or
is a folder. Without --out, text goes to standard output. --stream shows one text while it is generated.
"""

import argparse
from collections.abc import Mapping, Sequence
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np

from genjax import checks, distributed
from genjax.cli import hosts
from genjax.cli import workdir as workdir_lib
from genjax.config import suggestion
from genjax.training import logs
from genjax.training.experiment import Columns, Condition
from genjax.types import UserError


def main(argv: list[str]) -> int:
  """Samples; returns the exit code."""
  parser = argparse.ArgumentParser('genjax sample', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--adapter', metavar='RUN', help='a run with adapters that was trained on this one: sample with them')
  parser.add_argument('--num', type=int, default=64, help='how many samples')
  parser.add_argument('--out', help='.npz, .png, .txt or a folder')
  parser.add_argument('--conditions', default='',
                      help="what to generate, e.g. 'label=3', 'label=0-9', 'label=1,7'; lists go round the rows")
  parser.add_argument('--prompt', action='append', help='a text to continue or to translate; several go round the rows')
  parser.add_argument('--stream', action='store_true', help='one text, shown while it is generated')
  parser.add_argument('--seed', type=int, default=0, help='row i is a function of the seed and i')
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='e.g. sampler.steps=25')
  workdir_lib.add_step(parser)
  parser.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  parser.add_argument('--chunk', type=int, default=256, help='how many samples are computed at once')
  hosts.add(parser)
  args = parser.parse_args(argv)
  if args.num < 1 or args.chunk < 1:
    raise UserError(f'--num and --chunk are at least 1, got {args.num} and {args.chunk}')
  checks.seed('--seed', args.seed)
  if args.stream and (args.out is not None or len(args.prompt or ()) > 1):
    raise UserError('--stream shows one text as it comes, on standard output; give it one --prompt and no --out')
  out = None if args.out is None else pathlib.Path(args.out)
  distributed.join(hosts.options(args))
  if args.adapter:
    args.workdir, args.set = args.adapter, workdir_lib.adapter_of(args.workdir, args.adapter, args.set)
  _, run = workdir_lib.open_run(args.workdir, args.set, args.step)
  num = 1 if args.stream else args.num
  rows = parse_conditions(args.conditions, args.prompt, run.experiment.conditions, num)
  start = time.perf_counter()
  if args.stream:
    given = run.experiment.conditions.get('prompt')
    told = Told(run.experiment.render, rows['prompt'][0] if 'prompt' in rows else given.default(0) if given else ())
    samples = run.stream(args.seed, rows, told, averaged=not args.raw)
    told.end()
    _report(samples, num, time.perf_counter() - start)
    return 0
  if out is not None:
    workdir_lib.prepare(str(out if out.suffix == '' else out.parent))
  samples = run.sample(num, args.seed, rows, averaged=not args.raw, chunk=args.chunk)
  if distributed.is_first():
    _report(samples, num, time.perf_counter() - start)
    for path in write(samples, run.experiment.render, out):
      logs.say(f'wrote {path}')
  return 0


def _report(samples: Columns, num: int, seconds: float) -> None:
  """Says how fast it went."""
  tokens = samples.get('tokens')
  count = 0 if tokens is None or 'prompt' not in samples else int((tokens >= 0).sum() - (samples['prompt'] >= 0).sum())
  pace = f', {count / seconds:,.0f} new tokens/s' if count else ''
  logs.say(f'{num} samples in {seconds:.1f} s with compilation{pace}')


class Told:
  """Shows a text on standard output while its tokens come.

  A character of several bytes is shown once all have come.

  Args:
    render: see `Experiment`.
    prompt_P: what the text starts with.
  """

  def __init__(self, render: Any, prompt_P: Any):
    self._render, self._shown = render, ''
    self._tokens = [int(token) for token in prompt_P if token >= 0]

  def __call__(self, index: Any, token_N: Any) -> None:
    self._tokens += [int(token) for token in token_N if token >= 0]
    self._show(self._text().rstrip('\ufffd'))

  def end(self) -> None:
    """Shows what is left, and ends the line."""
    self._show(self._text() + '\n')

  def _text(self) -> str:
    return next(iter(self._render({'tokens': np.asarray([self._tokens])}).values()))

  def _show(self, text: str) -> None:
    if text.startswith(self._shown):  # else a later token changed what earlier ones mean
      sys.stdout.write(text[len(self._shown):])
      sys.stdout.flush()
      self._shown = text


def parse_conditions(text: str, prompts: Sequence[str] | None, known: Mapping[str, Condition], num: int) -> Columns:
  """`name=value;name=value` -> rows. A value may be a list 'a,b' or, for whole numbers, a range 'a-b'.

  Raises:
    UserError: an unknown condition, or a value that it does not take.
  """
  texts = [name for name, condition in known.items() if condition.fill is not None]
  given = {texts[0] if len(texts) == 1 else 'prompt': list(prompts)} if prompts else {}
  for part in filter(None, (piece.strip() for piece in text.split(';'))):
    name, _, value = part.partition('=')
    given[name.strip()] = [item for entry in value.split(',') for item in _range(entry.strip())]
  rows = {}
  for name, values in given.items():
    if name not in known:
      what = f'it takes {({key: condition.describe for key, condition in known.items()})}' if known else 'it takes none'
      raise UserError(f'this run knows no condition {name!r}; {what}.{suggestion(name, known)}')
    parsed = [known[name].parse(value) for value in values]
    rows[name] = known[name].stack([parsed[row % len(parsed)] for row in range(num)])
  return rows


def _range(text: str) -> list[str]:
  match = re.fullmatch(r'(\d+)-(\d+)', text)
  if match and int(match[1]) > int(match[2]):
    raise UserError(f'--conditions: the range {text} is empty; write the smaller number first, {match[2]}-{match[1]}')
  return [str(value) for value in range(int(match[1]), int(match[2]) + 1)] if match else [text]


def write(samples: Columns, render, out: pathlib.Path | None) -> list[pathlib.Path]:
  """Writes samples as `out` asks; returns the files.

  Raises:
    UserError: the ending of `out` does not fit what the run generates.
  """
  if out is not None and out.suffix == '.npz':
    np.savez_compressed(out, **samples)  # type: ignore[arg-type]
    return [out]
  rendered = render(samples)
  if out is None:
    texts = [value for value in rendered.values() if isinstance(value, str)]
    if not texts:
      raise UserError('--out=PATH is needed: .npz for raw arrays, .png for a grid, or a folder')
    print('\n'.join(texts))
    return []
  if out.suffix == '':
    return [logs.write_artifact(out / name, value) for name, value in rendered.items()]
  files = []
  for name, value in rendered.items():
    ending = '.txt' if isinstance(value, str) else '.png'
    if out.suffix != ending:
      raise UserError(f'this run renders {name!r} as {ending}, got --out={out}; use {ending}, .npz or a folder')
    files.append(logs.write_artifact(out.with_suffix('') if name == 'samples' else out.with_name(f'{out.stem}_{name}'), value))
  return files
