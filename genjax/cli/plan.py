"""`genjax plan --config=FILE[:args] --topology=v5p:8x8x16 [--mesh=fsdp:256,tensor:4] [--json]`: what a run costs,
before it costs.

Compiles the real train step for a TPU slice, with libtpu and without a TPU or data, and prints parameters, bytes per
device, FLOPs, collectives, a bound on the time of a step, and whether it fits. `--topology=cpu:8` does the same on fake
devices, `gpu` on those that are present. `--workdir=DIR` plans the config of a run directory. Exit code 4 if it does
not fit.
"""

from collections.abc import Callable
import functools
from typing import Any

from absl import flags
import jax

from genjax import config as config_lib
from genjax.cli import configs
from genjax.config import Config
from genjax.planning import plan, topology
from genjax.runs import bases, builders, extensions, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training.run import Run
from genjax.types import UserError, expanded, strict_json

DOES_NOT_FIT = 4


def main(argv: list[str]) -> int:
  """Prints the plan; returns the exit code."""

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('topology', '', 'v5p:8x8x16, v5e:4x4, ..., cpu:8 or gpu', flag_values=values)
    flags.DEFINE_string('mesh', '', "mesh in place of the config's, e.g. fsdp:256,tensor:4", flag_values=values)
    flags.DEFINE_string('workdir', '', 'run directory to plan, in place of --config', flag_values=values)
    flags.DEFINE_string('hlo', '', 'file to write the compiled program to, as text', flag_values=values)
    flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)

  if any(arg.startswith('--workdir') for arg in argv):
    if any(arg.startswith('--config') for arg in argv):
      raise UserError('--workdir=DIR plans the config of a run, --config=FILE another one; give one of them')
    values = flags.FlagValues()
    define(values)
    configs.define_import(values)
    try:
      values(['genjax plan', *argv])
    except flags.Error as error:
      raise UserError(' '.join(str(error).split())) from error
    config, paths = workdir_lib.read_config(values.workdir)
    bases.locate(config, expanded(values.workdir))
    extensions.load(values['import'].value or ())
  else:
    values, paths = configs.parse('plan', argv, __doc__ or '', define)
    config = values.config
  if not values.topology:
    raise UserError('--topology=NAME is needed: the slice to plan for, such as v5p:8x8x16, v5e:4x4, cpu:8 or gpu')
  hlo = outputs.file(values.hlo, '--hlo') if values.hlo else None
  if hlo and not hlo.absolute().parent.is_dir():
    raise UserError(f'--hlo={values.hlo} cannot be written: its folder does not exist')
  save = functools.partial(hlo.write_text, encoding='utf-8') if hlo else None
  report = make(config, paths, values.topology, values.mesh, save)
  print(strict_json(report, indent=2) if values.json else plan.render(report))
  return DOES_NOT_FIT if report['fits'] is False else 0


def make(config: Config, paths: list[str], name: str, mesh: str = '',
         save: Callable[[str], Any] | None = None) -> plan.Report:
  """The plan of a config on a topology; `mesh` as text takes the place of the config's, `save` gets the compiled
  program.

  Raises:
    UserError: an unknown topology, no libtpu, a mesh that does not fit, a batch that does not divide.
  """
  topology.prepare(name)  # before the builder starts a backend
  settings = builders.settings(config, builders.mesh_sizes(mesh) if mesh else None)
  target = topology.find(name)
  run = Run(builders.build(config, paths), settings, target.devices)
  facts = {key: config.model[key] for key in ('dtype', 'remat') if key in config.model}
  return plan.make(run, target, model_flops(config, paths), facts, save)


def model_flops(config: Config, paths: list[str]) -> int:
  """FLOPs of a step on which all phases are due with nothing computed twice, counted as one CPU would compute it.

  There no kernel hides what it recomputes, and no device repeats what another one does.
  """
  plain = config_lib.from_plain(config_lib.plain(config))
  if plain.model.get('remat', 'none') != 'none':
    config_lib.override(plain, 'model.remat=none')
  run = Run(builders.build(plain, paths), builders.settings(plain, {'data': 1}), jax.devices('cpu')[:1])
  return run.step_flops(tuple(phase.name for phase in run.phases))
