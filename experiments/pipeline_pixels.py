"""Pipelines with a U-Net on pixels, without text and autoencoder: DDPM and kin."""

from typing import Any

from genjax.experiments.pipeline_interface import Family, Found, Sections
from genjax.types import UserError


def _pixels(steps: int) -> Any:
  """A family that `diffusers` samples in so many steps."""

  def sections(found: Found) -> Sections:
    if found.options.image_channels:
      raise UserError(f'{found.pipeline.folder}: the U-Net of a {found.pipeline.kind} must read as many channels as it '
                      f'gives, and this one reads {found.options.image_channels} more')
    classes = found.options.num_classes
    told = {'label': dict(kind='classes', num_classes=classes, dropout=0.0)} if classes else {}
    return Sections(told, dict(steps=steps), dict(label_dropout=0.0))

  return sections


def _fits(config: Any) -> bool:
  """Whether a run diffuses pixels without conditions, by whole steps."""
  return not config.get('parts') and not config.get('conditions') and config.objective.process.get('steps', 0) > 0


# A run that was not imported is written as the first.
FAMILIES = {
  'DDPMPipeline': Family('unet', 'UNet2DModel', 'unet', _pixels(1000), _fits, autoencoder=False),
  'DDIMPipeline': Family('unet', 'UNet2DModel', 'unet', _pixels(50), _fits, autoencoder=False)}
