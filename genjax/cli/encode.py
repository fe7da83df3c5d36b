"""`genjax data encode --workdir=AUTOENCODER --config=FILE[:args] --out=FOLDER [--text=TEXT_ENCODER]`

Encodes the pictures of config.data once: means and log variances of their latents, and with --text their captions, as
packed data. Of the config only `config.data` and `config.seed` are read; that of the autoencoder will do, and so will
flags such as --config.data.name=FOLDER_OF_PICTURES. Run again after an interruption, it goes on with the first
unfinished shard; several processes, started as for a run on several hosts, each write their own shards.

With config.data.flip every training picture is encoded twice, the second time mirrored.

    genjax train ... --config.data.name=FOLDER --config.data.train=train --config.data.heldout=heldout
        --config.data.content=latents --config.parts.autoencoder=AUTOENCODER
"""

import dataclasses

from absl import flags

from genjax import distributed
from genjax.cli import configs, hosts
from genjax.options import meanings
from genjax.runs import encoding
from genjax.runs import workdir as workdir_lib
from genjax.types import UserError


def main(argv: list[str]) -> int:
  """Encodes; returns the exit code.

  Raises:
    UserError: bad input, see `genjax.runs.encoding.encode`.
  """
  told = meanings(encoding.Options)
  fields = [field for field in dataclasses.fields(encoding.Options) if field.name != 'autoencoder']

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', '', f'the autoencoder: {told["autoencoder"]}', flag_values=values)
    flags.DEFINE_string('out', '', 'the folder to write', flag_values=values)
    for field in fields:
      kinds = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, str: flags.DEFINE_string}
      kinds[type(field.default)](field.name, field.default, told[field.name], flag_values=values)
    hosts.define(values)

  values, _ = configs.parse('data encode', argv, __doc__ or '', define)
  for name, what in (('workdir', 'the run of an autoencoder'), ('out', 'a folder to write')):
    if not values[name].value:
      raise UserError(f'--{name}=DIR is needed: {what}')
  options = encoding.Options(values.workdir, **{field.name: values[field.name].value for field in fields})
  distributed.join(hosts.options(values))
  workdir_lib.compilation_cache()
  schema = encoding.encode(values.config, values.out, options)
  if distributed.is_first():
    counts = ', '.join(f'{name} {count}' for name, count in schema['splits'].items())
    print(f'{values.out}: {counts} rows of {", ".join(schema["columns"])}')
    print(f'next:\n  genjax train ... --config.data.name={values.out} --config.data.train=train '
          f'--config.data.heldout=heldout \\\n    --config.data.content=latents '
          f'--config.parts.autoencoder={values.workdir}')
  return 0
