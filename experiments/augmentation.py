"""Augmentations of GANs by name: config.objective.augment and config.objective.perturb."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.nn.augment import colour
from genjax.nn.augment.differentiable import DiffAugment, FlipAndShift
from genjax.nn.augment.pipeline import COLOUR, Transforms
from genjax.objectives.augmentation import Adaptive, Augmentation, Fixed, Growing
from genjax.options import Section
from genjax.types import UserError

WHERE = 'config.objective.augment'
# Name -> what takes its options
KINDS = {'none': (), 'ada': (Adaptive, Transforms), 'growing': (Growing, Transforms), 'diffaugment': (DiffAugment,)}


def make(options: Mapping[str, Any] | None, channels: int) -> Augmentation | None:
  """The augmentation of config.objective.augment.

  Args:
    options: 'name' is one of `KINDS`; 'ada' takes the options of `genjax.objectives.augmentation.Adaptive` and of
      `genjax.nn.augment.pipeline.Transforms`, 'growing' those of `genjax.objectives.augmentation.Growing` and the same
      transforms, 'diffaugment' those of `genjax.nn.augment.differentiable.DiffAugment`.
    channels: of the pictures.

  Raises:
    UserError: an unknown name or option; pictures whose colours cannot be changed.
  """
  given = config_lib.plain(options or {})
  name = given.pop('name', 'none' if not given else None)
  config_lib.choose(KINDS, name, f'{WHERE}.name')
  if name == 'none' and given:
    raise UserError(f"{WHERE}.name is 'none', which has no options, got {sorted(given)}; leave them out, or set name "
                    "to 'ada', 'growing' or 'diffaugment'")
  if name == 'none':
    return None
  if name == 'diffaugment':
    return Fixed(config_lib.build(DiffAugment, given, WHERE))
  takes = section({'name': name}).options(WHERE)
  for key in given:
    if f'{WHERE}.{key}' not in takes:
      allowed = sorted(option.rpartition('.')[2] for option in takes)
      raise UserError(f'{WHERE}.{key} is not an option of {name}; it takes {allowed}.'
                      f'{config_lib.suggestion(key, allowed)}')
  kind: Any = KINDS[name][0]
  fields = {field.name for field in dataclasses.fields(kind)}
  own = {key: given.pop(key) for key in list(given) if key in fields}
  transform = config_lib.build(Transforms, given, WHERE)
  if channels not in colour.CHANNELS and transform.uses(COLOUR):
    raise UserError(f'{WHERE} changes colours of pictures with {colour.CHANNELS} channels, and config.data.shape has '
                    f'{channels}; set {WHERE}.groups to "bg"')
  return config_lib.build(kind, own, WHERE, transform=transform)


def perturbation(objective: Mapping[str, Any]) -> FlipAndShift | None:
  """The change of consistency terms, where config.objective has one."""
  wanted = objective.get('consistency', 0) or objective.get('consistency_fake', 0)
  return FlipAndShift() if wanted else None


def section(options: Mapping[str, Any] | Config | None) -> Section:
  """What config.objective.augment takes, see `genjax.options`."""
  name = (options or {}).get('name', 'none')
  return Section(KINDS.get(name, ()) if isinstance(name, str) else (), {'transform': ''}, names=tuple(KINDS),
                 name='none', others=KINDS)
