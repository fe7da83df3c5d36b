"""`genjax export --workdir=RUN --to=DIR [--format=safetensors]`: writes the model of a run as a folder.

--format=transformers, the default, writes what Hugging Face's transformers loads: config.json, model.safetensors
(several, and their index, from 5 GB on) and the tokenizer, where it is one of pieces of words. Of a run with adapters,
these are written, as a folder that PEFT loads. The models of genjax with a public architecture have this format.

--format=kohya writes the adapters of an image model as kohya's scripts do; the other names of a public layout write
those of diffusers.

--format=safetensors writes any model: parameters by their paths, the config of the run, and README.md, a page of how to
read them.

Averaged parameters are used where the run has them.
"""

import argparse
import pathlib

from genjax.cli import flags
from genjax.runs import exporting, importing, outputs
from genjax.training.monitoring import logs


def main(argv: list[str]) -> int:
  """Exports; returns the exit code.

  Raises:
    UserError: see `genjax.runs.exporting.export`.
  """
  parser = argparse.ArgumentParser('genjax export', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--to', required=True, metavar='DIR', help='a new folder')
  parser.add_argument('--format', choices=exporting.FORMATS, default=exporting.FORMATS[0], help='of the folder')
  flags.add_step(parser)
  parser.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  parser.add_argument('--dtype', choices=importing.DTYPES, help='of the tensors; by default that of the parameters')
  args = parser.parse_args(argv)
  to = outputs.folder(args.to, '--to', new=True)
  logs.say(exporting.export(pathlib.Path(args.workdir), to, args.step, not args.raw, args.dtype, args.format))
  return 0
