"""Runs of public models: conversion of folders in the layout of `transformers` to runs, and back."""

from collections.abc import Callable, Mapping
import contextlib
import copy
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from genjax import config as config_lib
from genjax import interop
from genjax.config import Config
from genjax.experiments import (
  bert,
  classifier,
  diffusion,
  imported,
  kl,
  language,
  pipeline_export,
  pipelines,
  public_configs,
  seq2seq,
  speech,
  vq,
)
from genjax.interop import conversion, files, lora_files, original_folder, peft, weights
from genjax.interop import pipelines as index
from genjax.nn import lora
from genjax.runs import assets, checkpoints
from genjax.training import averages
from genjax.training.monitoring import logs
from genjax.types import Params, Tree, UserError, strict_json


class Imported(NamedTuple):
  """An imported run.

  Attributes:
    config: its config.
    params: group -> parameters; or a function that reads them, once the parts of the run were read and let go.
    mutable: see `Variables`.
    files: its files.
  """

  config: Config
  params: Params | Callable[[], Params]
  mutable: Tree
  files: dict[str, bytes]


def read(folder: pathlib.Path, dtype: str | None, variant: str = '') -> Imported:
  """Makes a run from a public model.

  Its config has no training steps and no data. Its optimizer has no state, so that the run is as large as the model.

  Args:
    folder: see `genjax.interop.load`; or that of a pipeline, see `genjax.experiments.pipelines`.
    dtype: of the parameters; None for that of the files.
    variant: which files are read, see `genjax.interop.files.open_folder`; of a pipeline, in
      the components that have such.

  Raises:
    UserError: see `genjax.interop.load`, `genjax.experiments.public_configs.make` and
      `genjax.experiments.pipelines.configured`.
  """
  if index.is_pipeline(folder):
    return _read_pipeline(folder, dtype, variant)
  model = interop.load(folder, dtype, variant)
  config = public_configs.make(model, folder)
  told = {'architecture': model.architecture, 'config': dict(model.source)}
  kept = {**imported.given(folder, imported.CARRIED), imported.PUBLIC: (strict_json(told, indent=2) + '\n').encode()}
  return Imported(config, {'net': model.params}, _mutable(config, model), kept)


def _read_pipeline(folder: pathlib.Path, dtype: str | None, variant: str) -> Imported:
  pipeline, family = pipelines.open_folder(folder, variant)
  config = pipelines.configured(pipeline, family)
  pipelines.say_skipped(pipeline)
  denoiser, own = pipeline.path(family.denoiser), pipeline.variant_of(family.denoiser)
  told = pipelines.facts(pipeline, family, interop.describe(denoiser, own).source)
  kept = {imported.PUBLIC: (strict_json(told, indent=2) + '\n').encode()}
  return Imported(config, lambda: {'net': interop.load(denoiser, dtype, own).params}, {}, kept)


def describe(folder: pathlib.Path, variant: str = '') -> tuple[Config, dict[str, Tree]]:
  """A public model as a part of runs: the config of its builder, and its variables as shapes.

  A model without the head that a run would train, such as a bare encoder, will do.

  Args:
    folder, variant: see `genjax.interop.load`.

  Raises:
    UserError: see `genjax.interop.load` and `genjax.experiments.public_configs.make`.
  """
  model = interop.describe(folder, variant).model()
  config = public_configs.make(model, folder, trains=False)
  return config, {'params': {'net': model.params}, 'mutable': _mutable(config, model)}


def variables(folder: pathlib.Path, variant: str = '') -> tuple[Params, Tree]:
  """The parameters of a public model by group, and its mutable variables.

  Raises:
    UserError: see `genjax.interop.load`.
  """
  model = interop.load(folder, variant=variant)
  return {'net': model.params}, model.mutable


def _mutable(config: Config, model: interop.Model) -> Tree:
  """The mutable variables as the objective of the builder has them."""
  return {'net': model.mutable} if config.experiment == classifier.__name__ else model.mutable


def convert(source: pathlib.Path, kind: str, folder: pathlib.Path) -> tuple[int, str]:
  """Converts a published file of a feature network to a folder, see `genjax.interop.conversion.convert`."""
  return conversion.convert(source, kind, folder)


def is_original(source: pathlib.Path) -> bool:
  """Whether a path is an original file, see `genjax.interop.original_folder.recognised`."""
  return original_folder.recognised(source)


def write_original(folder: pathlib.Path, source: pathlib.Path, more: Mapping[str, Any]) -> list[str]:
  """Writes a folder that stands for an original file, see `genjax.interop.original_folder.write`."""
  return original_folder.write(folder, source, original_folder.Options(**more))


def write(folder: pathlib.Path, config: Config, params: Params, kept: Mapping[str, bytes], dtype: str | None,
          mutable: Tree = None) -> None:
  """Writes the model of a run, with its tokenizer, as a folder that `transformers` loads. Writing is atomic.

  Args:
    folder: a new folder.
    config: of the run.
    params: group -> parameters.
    kept: the files that the run keeps.
    dtype: of the tensors; None for that of the parameters.
    mutable: the variables of the run that are no parameters.

  Raises:
    UserError: see `genjax.interop.save`; or the run is not of a family with public architectures.
  """
  if pipeline_export.family_of(config, kept):
    pipeline_export.write(folder, config, params['net'], kept, dtype, _write_run)
    return
  options, model = _model(config, params, kept)
  with files.new_folder(folder) as partial:
    net = {name: tree for name, tree in params['net'].items() if name not in kl.NO_NETWORK}
    net = vq.exported(config, net, mutable or {}) if config.experiment == vq.__name__ else net
    interop.save(partial, model or options, net, mutable=mutable, dtype=dtype)
    stop = list(config.sampler.get('stop', ()))
    if stop and model is None:  # public models have stop tokens in their own files
      files.write_json(partial / 'generation_config.json', {'eos_token_id': stop[0] if len(stop) == 1 else stop})
    for name, data in kept.items():
      if name != imported.PUBLIC:
        (partial / name).write_bytes(data)


def _write_run(folder: pathlib.Path, workdir: pathlib.Path, step: int | None, dtype: str | None) -> None:
  """Writes the model of a run that is a part of another one."""
  config = assets.read_config(workdir)
  with contextlib.closing(checkpoints.of_run(workdir, config)) as saved:
    _, trees = saved.load(logs.say, step, ('params', 'ema', 'mutable'))
  params = {**trees['params'], **averages.evaluated(trees.get('ema') or {})}
  write(folder, config, params, assets.contents(workdir, config), dtype, trees.get('mutable'))


def read_adapter(source: pathlib.Path, base: Config, params: Params, kept: Mapping[str, bytes],
                 component: str = '') -> Imported:
  """Makes a run with adapters from a folder of PEFT, or a file for an image model; its config names no base yet.

  Args:
    source: see `genjax.interop.peft.load` and `genjax.interop.lora_files.load`.
    base, params, kept: config, parameters and files of the base run.
    component: 'unet' or 'transformer' leaves adapters of text encoders out.

  Raises:
    UserError: see `source`; or the base has no public architecture.
  """
  model = _public(base, params, kept)
  if base.experiment == diffusion.__name__:
    adapter = lora_files.load(source, model, lora_files.only(component, model))
  else:
    adapter = peft.load(source.parent if source.is_file() else source, model)
  config = copy.deepcopy(base)
  with config.unlocked():
    config.steps = 0
    config.lora = {**dataclasses.asdict(adapter.options), 'groups': ('net',), 'dtype': ''}
  return Imported(config, {'lora': adapter.params}, {}, {})


def write_adapter(folder: pathlib.Path, config: Config, params: Params, frozen: Params, kept: Mapping[str, bytes],
                  layout: str = '') -> None:
  """Writes the adapters of a run as a folder that PEFT loads, or diffusers if they are of an image model.

  Args:
    folder: a new folder.
    config: of the run.
    params: its adapters.
    frozen: the parameters that they adapt.
    kept: the files that the run keeps.
    layout: 'kohya' writes a file of kohya.

  Raises:
    UserError: see `genjax.interop.peft.save` and `genjax.interop.lora_files.save`.
  """
  given = config_lib.plain(config.lora)
  names = {field.name for field in dataclasses.fields(lora.Options)}
  options = {name: value for name, value in given.items() if name in names}
  options = config_lib.build(lora.Options, options, 'config.lora')
  model, adapter = _public(config, frozen, kept), peft.Adapter(options, params['lora'])
  if config.experiment == diffusion.__name__:
    lora_files.save(folder, model, adapter, 'kohya' if layout == 'kohya' else 'diffusers')
  elif layout == 'kohya':
    raise UserError(f'kohya has files for adapters of image models, and this run is one of {config.experiment}')
  else:
    peft.save(folder, model, adapter, config.init_from)


def check(config: Config, kept: Mapping[str, bytes]) -> None:
  """Checks that a run has a public architecture, before its parameters are read.

  Args:
    config: of the run.
    kept: the files that the run keeps.

  Raises:
    UserError: it has none.
  """
  if config.experiment not in OPTIONS:
    raise UserError(f'runs of {config.experiment} have no public architecture; supported are {", ".join(OPTIONS)}')
  if config.experiment == diffusion.__name__ and not pipeline_export.family_of(config, kept):
    try:
      interop.architecture_of(diffusion.model_options(config))
    except UserError as error:
      raise UserError(f'the options of this run of {config.experiment} have no public architecture: {error}') from error
  if config.experiment in OWN_VOCABULARY and imported.PUBLIC not in kept:
    raise UserError(
      f'a run of {config.experiment} that does not start from a public model has its own vocabulary, which no public '
      'architecture supports')


def _model(config: Config, params: Params, kept: Mapping[str, bytes]) -> tuple[Any, interop.Model | None]:
  """The options of a run's model, and the public model that it was imported from, or None."""
  check(config, kept)
  options = OPTIONS[config.experiment](config, params['net'])
  if imported.PUBLIC not in kept:
    return options, None
  told = json.loads(kept[imported.PUBLIC])
  return options, _named(told['architecture'], options, params['net'], told['config'])


def _public(config: Config, params: Params, kept: Mapping[str, bytes]) -> interop.Model:
  """The model of a run as a public model."""
  options, model = _model(config, params, kept)
  return model or _named(interop.architecture_of(options), options, params['net'], {})


def _named(architecture: str, options: Any, net: Tree, source: Mapping[str, Any]) -> interop.Model:
  return interop.Model(architecture, options, weights.ARCHITECTURES[architecture].network(options), net, {}, source)


# Experiment -> (config, parameters of the network) -> the options of its model.
OPTIONS: dict[str, Callable[[Config, Tree], Any]] = {
  language.__name__: lambda config, net: language.model_options(config, len(net['embedding']['token']['embedding'])),
  bert.__name__: bert.exported_options, seq2seq.__name__: seq2seq.exported_options,
  speech.__name__: speech.exported_options, classifier.__name__: classifier.model_options,
  kl.__name__: lambda config, net: kl.model_options(config), vq.__name__: vq.exported_options,
  diffusion.__name__: lambda config, net: diffusion.model_options(config)}
# runs of these that were not imported use words or characters as tokens
OWN_VOCABULARY = (seq2seq.__name__, speech.__name__)
