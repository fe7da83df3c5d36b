"""`genjax sample --workdir=DIR --num=N --out=PATH`: draws samples from a run.

--out ends in .npz for raw arrays (the samples and their conditions, one row each), in an ending for a rendering of all
(.png, .jpg, .webp or .gif for pictures; .mp4, .webp or .gif for clips; .wav or .flac for sounds; .txt for texts), or is
a folder for one file of each sample and metadata.jsonl; a new folder with a dot in its name is written with / at its
end. Without --out, text goes to standard output, with escapes for characters that the terminal cannot show. --stream
shows one text while it is generated.

--num counts all samples. Several prompts, and lists of conditions, go round the rows, and each is used at least once:
--num=1 with two prompts gives one sample of each. Without --num there are 64, or one of each file where a condition
names files or a folder of them.
"""

import argparse
from collections.abc import Mapping, Sequence
import os
import re
import sys
import time
from typing import Any

import numpy as np

from genjax import checks, distributed
from genjax.cli import flags, hosts
from genjax.runs import bases, extensions, sampling
from genjax.runs import workdir as workdir_lib
from genjax.training.experiment import Columns, Condition
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError, expanded

_MOST = 1_000_000  # values of a range
_NUM = 64  # samples without --num
_SAID = 4  # most files that are named one by one


def main(argv: list[str]) -> int:
  """Samples; returns the exit code."""
  args = _parser().parse_args(argv)
  if args.num is not None and args.num < 1 or args.chunk < 1:
    raise UserError(f'--num and --chunk are at least 1, got {args.num} and {args.chunk}')
  if args.start < 0 or args.start and args.stream:
    raise UserError(f'--start is at least 0, and --stream shows sample 0, got --start={args.start}')
  checks.seed('--seed', args.seed)
  if args.stream and (args.out is not None or len(args.prompt or ()) > 1):
    raise UserError('--stream shows one text as it comes, on standard output; give it one --prompt and no --out')
  out = None if args.out is None else sampling.destination(args.out)
  distributed.join(hosts.options(args))
  if args.adapter:
    args.workdir, args.set = args.adapter, bases.adapter_of(args.workdir, args.adapter, args.set)
  rows: Columns = {}
  asked: dict[str, list[str]] = {}
  count = 1

  def check(run: Run) -> None:
    nonlocal count
    known = run.experiment.conditions
    asked.update(read_conditions(args.conditions, args.prompt, known, args.negative))
    files = [len(values) for name, values in asked.items() if name in known and known[name].path]
    count = 1 if args.stream else args.num or max(files, default=_NUM)
    rows.update(sampling.rows(known, asked, count, args.start))
    sampling.check(run, rows, out, args.stream, flags.averaged(args))

  _, run = workdir_lib.open_run(args.workdir, args.set, args.step, check=check, imports=args.imports)
  start = time.perf_counter()
  if args.stream:
    samples = _stream(run, rows, args.seed, flags.averaged(args))
    _report(samples, 1, time.perf_counter() - start)
    return 0
  if out is not None:
    workdir_lib.prepare(str(out.path if out.is_folder else out.path.parent), '--out')
  num = max([count, *map(len, rows.values())])
  if num > count:
    logs.say(f'{num} samples instead of --num={count}: one for each prompt or listed condition')
  samples = run.sample(num, args.seed, rows, averaged=flags.averaged(args), chunk=args.chunk, start=args.start)
  if distributed.is_first():
    _report(samples, num, time.perf_counter() - start)
    paths = sampling.write(samples, run.experiment, out, args.seed, asked, args.start)
    for path in paths[-1:] if len(paths) > _SAID else paths:
      logs.say(f'wrote {path}' if len(paths) <= _SAID else f'wrote {len(paths) - 1} samples and {path}')
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('genjax sample', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--adapter', metavar='RUN',
                      help='a run with adapters that was trained on this one: sample with them')
  parser.add_argument('--num', type=int,
                      help='how many samples in all; at least one of each prompt and listed condition (default: '
                      f'{_NUM}, or one of each file that a condition names)')
  parser.add_argument('--out', help=f'{", ".join(sampling.ENDINGS)}, or a folder')
  parser.add_argument(
    '--conditions', default='',
    help="what to generate, e.g. 'label=3', 'label=0-9', 'label=1,7', 'source=A.wav,B.wav'; lists go round the rows; "
    "several conditions with ; between, e.g. 'image=FOLDER;label=1'")
  parser.add_argument('--prompt', action='append',
                      help='a text to continue, to translate or to draw; several go round the rows')
  parser.add_argument('--negative', action='append', help='a text that guidance leads away from; several go round, too')
  parser.add_argument('--stream', action='store_true', help='one text, shown while it is generated')
  parser.add_argument('--seed', type=int, default=0, help='row i is a function of the seed and i')
  parser.add_argument('--start', type=int, default=0, help='the first row: 100 continues a draw of --num=100')
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='e.g. sampler.steps=25')
  flags.add_step(parser)
  extensions.add_flag(parser)
  flags.add_averages(parser)
  parser.add_argument('--chunk', type=int, default=256, help='how many samples are computed at once')
  hosts.add(parser)
  return parser


def _stream(run: Run, rows: Columns, seed: int, averaged: bool | str) -> Columns:
  """One text, shown while it grows."""
  given = run.experiment.conditions.get('prompt')
  told = Told(run.experiment.render, rows['prompt'][0] if 'prompt' in rows else given.default(0) if given else ())
  samples = run.stream(seed, rows, told, averaged)
  told.end()
  return samples


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


def parse_conditions(text: str, prompts: Sequence[str] | None, known: Mapping[str, Condition], num: int,
                     negatives: Sequence[str] | None = None, start: int = 0) -> Columns:
  """`name=value;name=value` -> rows: `num`, or as many as the longest list has values; from row `start` on `num`.

  A value may be a list 'a,b' or, for whole numbers, a range 'a-b'. Where a row has several numbers, as many of a list
  make one row: of two, 'a,b' is one row and 'a,b,c,d' are two. A text is one value, commas included. In a list of paths
  a comma that belongs to the name of a file that exists separates nothing.

  Raises:
    UserError: an unknown condition, one that is given twice, conditions with commas between, or a value that one does
      not take.
  """
  return sampling.rows(known, read_conditions(text, prompts, known, negatives), num, start)


def read_conditions(text: str, prompts: Sequence[str] | None, known: Mapping[str, Condition],
                    negatives: Sequence[str] | None = None) -> dict[str, list[str]]:
  """`name=value;name=value` -> the values of each condition as they are written; see `parse_conditions`."""
  given = {sampling.text_name(known): list(prompts)} if prompts else {}
  if negatives:
    given[sampling.negative_name(known)] = list(negatives)
  for part in filter(None, (piece.strip() for piece in re.split(r';(?=\s*\w+\s*=)|;\s*$', text))):
    name, equals, value = part.partition('=')
    name = name.strip()
    if not equals:
      raise UserError(f'--conditions takes NAME=VALUE, several of them with ; between, got {part!r}; write for example '
                      f"--conditions='{name if name in known else next(iter(known), 'label')}=VALUE'")
    if name in given:
      raise UserError(f'condition {name!r} is given twice; write its values as one list, or as several --prompt or '
                      '--negative')
    given[name] = _values(name, value, known)
  return given


def _values(name: str, text: str, known: Mapping[str, Condition]) -> list[str]:
  """The values of a condition's text."""
  condition = known.get(name)
  if condition is not None and condition.takes_text:
    return [text]
  pieces = text.split(',')
  for place, piece in enumerate(pieces):
    if piece.partition('=')[0].strip() in known and '=' in piece and not os.path.exists(expanded(piece.strip())):
      before, after = ','.join(pieces[:place]), ','.join(pieces[place:]).strip()
      raise UserError(f'--conditions has ; between conditions and commas between the values of one, got '
                      f"'{name}={text}'; write --conditions='{name}={before};{after}'")
  if condition is not None and condition.path:
    return sampling.files(condition, _paths(pieces))
  if condition is not None and condition.numbers > 1:
    count = condition.numbers  # what is left over makes a row too short, which the condition refuses
    return [','.join(pieces[start:start + count]) for start in range(0, len(pieces), count)]
  return [item for piece in pieces for item in _range(piece.strip())]


def _paths(pieces: Sequence[str]) -> list[str]:
  """Paths that were split at commas: as many pieces as name a file that exists are one, else each is."""
  found, start = [], 0
  while start < len(pieces):
    ends = (
      end for end in range(len(pieces), start, -1) if os.path.exists(expanded(','.join(pieces[start:end]).strip())))
    end = next(ends, start + 1)
    found.append(str(expanded(','.join(pieces[start:end]).strip())))
    start = end
  return found


def _range(text: str) -> list[str]:
  match = re.fullmatch(r'(\d{1,18})-(\d{1,18})', text)
  if match and int(match[1]) > int(match[2]):
    raise UserError(f'--conditions: the range {text} is empty; write the smaller number first, {match[2]}-{match[1]}')
  if match and int(match[2]) - int(match[1]) >= _MOST:
    raise UserError(
      f'--conditions: the range {text} has more than {_MOST:,} values, a sample for each; write a shorter one')
  return [str(value) for value in range(int(match[1]), int(match[2]) + 1)] if match else [text]
