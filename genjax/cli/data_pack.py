"""`genjax data pack`: makes shards of a folder of pictures, clips or sounds."""

import argparse
import os
from typing import Any

from genjax import checks
from genjax.data import packing
from genjax.data.folder import CAPTIONS, POLICIES, Options
from genjax.data.images.resizing import FILTERS
from genjax.data.kinds import KINDS
from genjax.runs import outputs
from genjax.types import UserError, expanded

ENCODING = ('size', 'resize', 'crop', 'format', 'quality')  # flags with which pictures are encoded anew


def add(commands: Any) -> None:
  """Adds the subcommand to those of `genjax data`."""
  parser = commands.add_parser(
    'pack', help='make shards of a folder of pictures, clips or sounds',
    description='Makes ArrayRecord shards of a folder of pictures, clips or sounds, with labels, captions and the '
                'bytes of the files. config.data.name then names the shards, and training on them is training on the '
                'folder. Run again after an interruption, it goes on with the first unfinished shard.')
  parser.add_argument('--input', required=True, metavar='FOLDER', help='what config.data.name could name')
  parser.add_argument('--out', required=True, metavar='DIR')
  parser.add_argument('--kind', default='', choices=('', *KINDS), help='by default what lies there')
  parser.add_argument('--shards', type=int, default=0, metavar='N',
                      help=f'files to write; by default one for {packing.SHARD_BYTES >> 20} MiB')
  parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, metavar='N',
                      help='files that are read at a time; it changes no byte')
  parser.add_argument('--broken', default='refuse', choices=POLICIES, help='what a file that cannot be decoded does')
  parser.add_argument('--field', default='text', help='which field of metadata.jsonl is the caption')
  parser.add_argument('--captions', default='any', choices=CAPTIONS, help='none ignores captions')
  parser.add_argument('--size', metavar='N|HxW',
                      help='encode pictures anew, with at most N pixels on the shorter side, or with H x W')
  parser.add_argument('--resize', choices=tuple(FILTERS), help='the filter of --size; by default lanczos')
  parser.add_argument('--crop', action='store_true', default=None,
                      help='with --size=HxW: cut the middle out instead of stretching')
  parser.add_argument('--format', choices=tuple(packing.FORMATS), help='encode pictures anew; by default png')
  parser.add_argument('--quality', type=int, metavar='N', help='of jpg and webp, 1 to 100; by default 95')


def run(arguments: argparse.Namespace) -> None:
  """Runs the subcommand.

  Raises:
    UserError: bad flags, or a folder that cannot be packed.
  """
  out = outputs.folder(arguments.out, '--out')
  if arguments.workers < 1 or arguments.shards < 0:
    raise UserError(f'--workers must be at least 1 and --shards not negative, got {arguments.workers} and '
                    f'{arguments.shards}')
  options = Options(kind=arguments.kind, broken=arguments.broken, field=arguments.field, captions=arguments.captions)
  schema = packing.pack(expanded(arguments.input), out, options, arguments.shards, arguments.workers,
                        _encoding(arguments))
  size = sum(shard['file_bytes'] for shard in schema['shards'])
  splits = ', '.join(f'{name} {count}' for name, count in schema['splits'].items())
  print(f'{out}: {schema["key"]["kind"]} ({splits}) in {len(schema["shards"])} shards, {size / 2**20:.3g} MiB in all; '
        f'columns {", ".join(schema["columns"])}')
  if schema['key']['broken']:
    print(f'{schema["key"]["broken"]} broken files were left out')
  if classes := schema['key']['classes']:
    print(f'{len(classes)} classes, labels 0 to {max(map(int, classes))}')
  print(f'next:\n  genjax train ... --config.data.name={arguments.out}')


def _encoding(arguments: argparse.Namespace) -> packing.Encoding | None:
  given = {name: value for name in ENCODING if (value := getattr(arguments, name)) is not None}
  if not given:
    return None
  if 'size' in given:
    parts = given['size'].lower().split('x')
    if not all(part.isdecimal() and int(part) for part in parts) or len(parts) > 2:
      raise UserError(f'--size takes N, pixels of the shorter side, or HxW, got {given["size"]!r}')
    given['size'] = tuple(map(int, parts))
  elif 'resize' in given or 'crop' in given:
    raise UserError('--resize and --crop say how pictures get the size of --size; set it')
  if 'crop' in given and len(given['size']) < 2:
    raise UserError('--crop cuts pictures to --size=HxW, and --size=N keeps all of them; leave one out')
  try:
    return packing.Encoding(**given)
  except checks.OutOfRange as error:
    raise UserError(f'--{error}') from error
