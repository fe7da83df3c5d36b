"""Folders of whole pipelines in the layout of `diffusers`: model_index.json, and a folder for each component."""

from collections.abc import Mapping
import dataclasses
import math
import os
import pathlib
from typing import Any

from genjax.interop import files
from genjax.interop.entries import read_json
from genjax.types import UserError, expanded

INDEX = 'model_index.json'
SCHEDULER = 'scheduler/scheduler_config.json'
CLASS = '_class_name'
TEXTS = ('text_encoder', 'text_encoder_2', 'text_encoder_3')  # components, in the order in which they are joined


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """A pipeline in a folder.

  Attributes:
    folder: of model_index.json.
    kind: the class in `diffusers`, such as 'StableDiffusionPipeline'.
    components: name -> [library, class] of those that are there.
    source: model_index.json.
    scheduler: scheduler_config.json.
    skipped: components that are there and that no run reads.
    variant: which files of weights are read, in the components that have such.
  """

  folder: pathlib.Path
  kind: str
  components: Mapping[str, list[str]]
  source: Mapping[str, Any]
  scheduler: Mapping[str, Any]
  skipped: tuple[str, ...] = ()
  variant: str = ''

  def path(self, name: str) -> pathlib.Path:
    """The folder of a component.

    Raises:
      UserError: the pipeline has none of that name, or its folder is missing.
    """
    if name not in self.components:
      raise UserError(f'{self.folder / INDEX}: a {self.kind} needs the component {name!r}, and there are '
                      f'{sorted(self.components)}')
    if not (self.folder / name).is_dir():
      raise UserError(f'{self.folder / INDEX} names the component {name!r}, and the folder {self.folder / name} is not '
                      'there; copy the whole pipeline')
    return self.folder / name

  def variant_of(self, name: str) -> str:
    """The variant of the files that are read of a component: '' where it has none of `variant`."""
    return self.variant if self.variant and files.has_variant(self.path(name), self.variant) else ''

  @property
  def texts(self) -> tuple[str, ...]:
    """The text encoders, in order."""
    return tuple(name for name in TEXTS if name in self.components)


def is_pipeline(folder: pathlib.Path) -> bool:
  """Whether a folder holds a pipeline."""
  return (folder / INDEX).is_file()


def open_folder(folder: str | os.PathLike[str], reads: tuple[str, ...], variant: str = '') -> Pipeline:
  """Reads what a folder says of its pipeline, and none of its weights.

  Args:
    folder: of model_index.json.
    reads: the components that can be read.
    variant: such as 'fp16', see `genjax.interop.files.open_folder`.

  Raises:
    UserError: a file is missing or is no JSON, names no class, or describes a component otherwise than diffusers does;
      or no component has files of the variant.
  """
  folder = expanded(folder)
  source = read_json(folder / INDEX, 'the index of a pipeline of diffusers')
  kind = source.get(CLASS)
  if not isinstance(kind, str):
    raise UserError(f'{folder / INDEX} must name the class of the pipeline in {CLASS}, got {kind!r}')
  found = {name: value for name, value in source.items() if isinstance(value, list) or name in reads}
  if wrong := [name for name, value in found.items() if not _is_component(value)]:
    raise UserError(f'{folder / INDEX}: a component is a library and a class, got {wrong[0]}={found[wrong[0]]!r}')
  there = {name: value for name, value in found.items() if value[1] is not None}
  components = {name: value for name, value in there.items() if name in reads}
  scheduler = read_json(folder / SCHEDULER, 'the scheduler of a pipeline') if 'scheduler' in components else {}
  if variant and not any(files.has_variant(folder / name, variant) for name in components):
    raise UserError(f'{folder}: no component has files of the variant {variant!r}, such as unet/'
                    f'diffusion_pytorch_model.{variant}.safetensors; leave --variant out')
  return Pipeline(folder, kind, components, source, scheduler, tuple(name for name in there if name not in reads),
                  variant)


def _is_component(value: Any) -> bool:
  return isinstance(value, list) and len(value) == 2 and all(part is None or isinstance(part, str) for part in value)


def write_index(folder: pathlib.Path, kind: str, components: Mapping[str, Any], settings: Mapping[str, Any],
                scheduler: Mapping[str, Any]) -> None:
  """Writes model_index.json and scheduler_config.json.

  Args:
    folder: of the pipeline, which exists.
    kind: the class in `diffusers`.
    components: name -> [library, class]; [None, None] of one that is left out.
    settings: further entries of model_index.json.
    scheduler: what scheduler_config.json holds, with its class.
  """
  files.write_json(folder / INDEX, {**settings, **components, CLASS: kind})
  (folder / SCHEDULER).parent.mkdir(exist_ok=True)
  files.write_json(folder / SCHEDULER, finite(scheduler))


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
  """Entries without infinite numbers, which JSON does not have; in diffusers they are defaults, such as the bound
  `lambda_min_clipped` of DPM-Solver."""
  return {name: value for name, value in values.items() if not isinstance(value, float) or math.isfinite(value)}
