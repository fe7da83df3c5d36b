"""Runs of whole pipelines of `diffusers`: a denoiser with its autoencoder and text encoders as parts, and back.

A class of pipelines is a `genjax.experiments.pipeline_interface.Family` in `FAMILIES`.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax import interop
from genjax.config import Config
from genjax.configs import common
from genjax.experiments import (
  conditions,
  diffusion,
  pipeline_pixels,
  pipeline_transformers,
  pipeline_unets,
  public_configs,
)
from genjax.experiments.pipeline_interface import AUTOENCODER, Family, Found
from genjax.interop import pipelines, schedulers
from genjax.interop.pipelines import Pipeline
from genjax.training.monitoring import logs
from genjax.types import UserError

# Class of a pipeline in diffusers -> how it becomes a run
FAMILIES: dict[str, Family] = {**pipeline_unets.FAMILIES, **pipeline_transformers.FAMILIES, **pipeline_pixels.FAMILIES}
READS = ('unet', 'transformer', 'vae', *pipelines.TEXTS, 'tokenizer', 'tokenizer_2', 'tokenizer_3', 'scheduler')


def open_folder(folder: pathlib.Path, variant: str = '') -> tuple[Pipeline, Family]:
  """The pipeline in a folder, and its family.

  Raises:
    UserError: it is none, or one of a class that genjax has no network for.
  """
  pipeline = pipelines.open_folder(folder, READS, variant)
  return pipeline, config_lib.choose(FAMILIES, pipeline.kind, f'{folder / pipelines.INDEX}: {pipelines.CLASS}')


def configured(pipeline: Pipeline, family: Family) -> Config:
  """The locked config of a run of a pipeline, without data and training steps. The parts are folders of the pipeline.

  Raises:
    UserError: a component is missing, or one that genjax does not read; see `genjax.interop.describe` and
      `genjax.interop.schedulers.read`.
  """
  denoiser = interop.describe(pipeline.path(family.denoiser), pipeline.variant_of(family.denoiser))
  if denoiser.architecture != family.architecture:
    raise UserError(f'{pipeline.folder}: the {family.denoiser} of a {pipeline.kind} must be a {family.architecture}, '
                    f'got a {denoiser.architecture}')
  found = Found(pipeline, denoiser.config, _pictures(pipeline, family, denoiser.config.shape))
  sections = family.sections(found)
  told = schedulers.read(pipeline.scheduler, str(pipeline.folder / pipelines.SCHEDULER), pipeline.kind)
  config = common.base(steps=0, batch_size=8)
  config.experiment = diffusion.__name__
  config.data = {**common.IMAGES, 'name': '', 'train': 'train', 'heldout': 'train', 'shape': found.shape,
                 'num_classes': 0, 'flip': False, 'resize': 'bicubic', 'crop': True}
  parts = {**({AUTOENCODER: 'vae'} if family.autoencoder else {}), **{name: name for name in pipeline.texts}}
  config.parts = {part: _part(pipeline, name) for part, name in parts.items()}
  config.conditions = dict(sections.conditions)
  config.model = dict(name=family.model, **{
    name: value for name, value in dataclasses.asdict(denoiser.config).items()
    if name not in ('shape', *conditions.NETWORK)})
  config.objective = dict(process=told['process'], parameterization=told['parameterization'],
                          times=dict(name='default'), weighting=dict(name='uniform'), stratified=True,
                          **sections.objective)
  config.sampler = {'options': {}, **told['sampler'], **sections.sampler}
  config.optimizers.net = dict(public_configs.OPTIMIZER)
  return config.lock()


def _pictures(pipeline: Pipeline, family: Family, latent: tuple[int, int, int]) -> tuple[int, int, int]:
  """The shape (H, W, C) of the pictures, whose latents have the shape that the denoiser sees."""
  if not family.autoencoder:
    return latent
  autoencoder = interop.describe(pipeline.path('vae'), pipeline.variant_of('vae')).config
  return latent[0] * autoencoder.factor, latent[1] * autoencoder.factor, autoencoder.shape[2]


def _part(pipeline: Pipeline, name: str) -> Any:
  """An entry of config.parts."""
  path, variant = str(pipeline.path(name).absolute()), pipeline.variant_of(name)
  return dict(path=path, variant=variant) if variant else path


def facts(pipeline: Pipeline, family: Family, denoiser: Mapping[str, Any]) -> dict[str, Any]:
  """What a run keeps of the pipeline that it was imported from, as JSON has it."""
  return {'pipeline': dict(pipeline.source), 'scheduler': pipelines.finite(pipeline.scheduler),
          'architecture': family.architecture, 'config': dict(denoiser)}


def say_skipped(pipeline: Pipeline) -> None:
  """Says which components are not read."""
  if pipeline.skipped:
    logs.say(f'{pipeline.folder}: {", ".join(pipeline.skipped)} '
             f'{"is" if len(pipeline.skipped) == 1 else "are"} not read: samples need nothing of '
             f'{"it" if len(pipeline.skipped) == 1 else "them"}')
