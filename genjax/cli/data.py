"""`genjax data`: lists, prepares and describes data sets, tokenizes text, packs files and encodes pictures."""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import textwrap
from typing import Any

from genjax.cli import data_pack, encode
from genjax.data import sources
from genjax.data.prepared import prepare
from genjax.data.prepared.builders import BUILDERS
from genjax.data.text import documents
from genjax.data.text.tokenization import tokenize
from genjax.data.text.tokenizers import open_tokenizer
from genjax.data.text.windows import ByteVocabulary
from genjax.runs import outputs
from genjax.types import UserError


def main(argv: Sequence[str]) -> int:
  """Runs a subcommand; returns the exit code.

  Raises:
    UserError: unknown data set, or it cannot be prepared; text that cannot be read.
  """
  if argv[:1] == ['encode']:  # whose flags may be those of any config
    return encode.main(list(argv[1:]))
  arguments = _parser().parse_args(argv)
  {'list': _list, 'build': _build, 'info': _info, 'tokenize': _tokenize,
   'pack': data_pack.run}[arguments.command](arguments)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='genjax data',
    description='Lists, prepares and describes data sets. They are TFDS data sets; no TensorFlow is needed.',
    epilog=_epilog(),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  listing = commands.add_parser('list', help='the prepared data sets, and those that genjax can prepare')
  build = commands.add_parser(
    'build',
    help='prepare a data set, from its original files with --from',
    epilog=_epilog(),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  info = commands.add_parser('info', help='splits, features and checksums of a prepared data set')
  commands.add_parser('encode', help='turn pictures and captions into latents and embeddings, see `encode --help`')
  tokens = commands.add_parser(
    'tokenize', help='turn text files into a folder of tokens',
    description='Turns text files into a folder of tokens, which config.data.name then names. Run again after an '
                'interruption, it goes on with the first unfinished shard.',
  )
  tokens.add_argument(
    '--input', required=True, metavar='GLOB',
    help=f'a file, a folder or a pattern; {" and ".join(documents.ENDINGS)}, either also .gz. A line of .jsonl is a '
    'document, and so is any other file')
  tokens.add_argument(
    '--tokenizer', required=True, metavar='PATH',
    help="tokenizer.json, a SentencePiece .model, a folder with one (a run, a public model), or 'byte'")
  tokens.add_argument('--out', required=True, metavar='DIR')
  tokens.add_argument('--shards', type=int, default=1, metavar='N',
                      help='files to write; each is finished or begun anew')
  tokens.add_argument('--field', default='text', help='which field of a JSON line is the text')
  tokens.add_argument('--end', type=int, metavar='TOKEN',
                      help="what follows each document; by default the tokenizer's end of text")
  data_pack.add(commands)
  build.add_argument('name', metavar='NAME')
  build.add_argument('--from', dest='originals', metavar='FOLDER', help='folder of the original files, read only')
  info.add_argument('name', metavar='NAME')
  for command in (listing, build, info):
    command.add_argument('--data_dir', metavar='DIR', help='default: TFDS_DATA_DIR, else ~/tensorflow_datasets')
  return parser


def _epilog() -> str:
  """Which original files each set is built from."""
  lines = ['What FOLDER must hold:']
  for name, builder in BUILDERS.items():
    files = builder.FILES or 'nothing: it comes with an installed package, leave --from out'
    lines.extend(textwrap.wrap(files, 100, initial_indent=f'  {name:<18}', subsequent_indent=' ' * 20))
  lines += [
    '',
    'Without --from these are fetched from where they were published. Any other name is prepared by the code of',
    'TFDS, which may need TensorFlow; FOLDER then holds what that code wants fetched by hand.',
    '',
    'example:',
    '  genjax data build mnist --from=$HOME/Downloads/mnist',
    '  genjax data info mnist',
  ]
  return '\n'.join(lines)


def _list(arguments: argparse.Namespace) -> None:
  root = prepare.data_directory(arguments.data_dir)
  files = [*root.glob('*/*/dataset_info.json'), *root.glob('*/*/*/dataset_info.json')]
  found = sorted(file.parent.relative_to(root).as_posix() for file in files)
  print(f'prepared in {root}:')
  print('\n'.join(f'  {name}' for name in found) or '  none')
  print('\ngenjax can prepare, without TensorFlow:')
  for name, builder in BUILDERS.items():
    print(f'  {name:<18}{builder.SUMMARY}')
  print('\nTFDS can prepare more: https://www.tensorflow.org/datasets/catalog')


def _build(arguments: argparse.Namespace) -> None:
  builder = prepare.prepared(arguments.name, arguments.data_dir)
  if builder is not None:
    print(f'{arguments.name} is prepared already; to build it anew, first remove {builder.data_path}', file=sys.stderr)
  else:
    builder = prepare.open_builder(arguments.name, arguments.data_dir, arguments.originals)
  print(f'{builder.name} {builder.version} in {builder.data_path}: {_counts(builder)}')


def _info(arguments: argparse.Namespace) -> None:
  builder = prepare.prepared(arguments.name, arguments.data_dir)
  if builder is None:
    raise UserError(
      f'{arguments.name} is not prepared in {prepare.data_directory(arguments.data_dir)}; '
      f'run: genjax data build {arguments.name}   (`genjax data --help` tells about --from)'
    )
  features: Any = builder.info.features
  print(f'{builder.name} {builder.version}\nfolder    {builder.data_path}\nsplits    {_counts(builder)}\nfeatures')
  for name in sorted(features):
    print(f'  {name:<10}{features[name]!r}')
  print('fingerprint')
  text_only = all(type(features[name]).__name__ == 'Text' for name in features)
  for split in builder.info.splits:
    source = sources.open_tfds(arguments.name, split, list(features) if text_only else None, arguments.data_dir)
    print(f'  {split:<12}{source.fingerprint()}')


def _tokenize(arguments: argparse.Namespace) -> None:
  try:
    paths = documents.files(arguments.input)
  except UserError as error:
    raise UserError(f'--input={arguments.input}: {error}') from None
  outputs.folder(arguments.out, '--out')
  vocabulary = ByteVocabulary() if arguments.tokenizer == 'byte' else open_tokenizer(arguments.tokenizer)
  index = tokenize(paths, vocabulary, pathlib.Path(arguments.out), arguments.shards, arguments.field, arguments.end)
  mean = index['bytes'] / index['tokens']
  print(f'{arguments.out}: {index["tokens"]} tokens of {index["documents"]} documents, {mean:.3g} bytes a token')
  named = 'byte' if arguments.tokenizer == 'byte' else arguments.out
  print(
    f"next:\n  genjax train ... --config.data.name={arguments.out} --config.data.vocabulary={named} "
    "--config.data.train='train[:99%]' "
    "--config.data.heldout='train[99%:]'")


def _counts(builder: Any) -> str:
  return ', '.join(f'{name} {info.num_examples}' for name, info in builder.info.splits.items())
