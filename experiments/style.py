"""What the builder of GANs has for style-based generators: what their objective takes of a model, and checks."""

from typing import Any

from genjax.config import Config
from genjax.objectives.gan import Gan
from genjax.objectives.style import StyleGan
from genjax.types import UserError


def computed(goal: type[Gan]) -> dict[str, str]:
  """Options of the objective that no config sets -> what they follow from."""
  return {'layers': 'config.data.shape', 'style': 'config.model.style', 'group': 'config.model.group',
          'averaged': 'config.model.average'} if issubclass(goal, StyleGan) else {}


def of_model(model: Any, goal: type[Gan]) -> dict[str, Any]:
  """What the objective takes of a model."""
  if not issubclass(goal, StyleGan):
    return {}
  return {'layers': model.layers, 'style': model.style, 'group': model.group, 'averaged': model.average > 0}


def check(config: Config, goal: Gan) -> None:
  """Checks that batches have whole groups and whole shares.

  Raises:
    UserError: they have not.
  """
  if not isinstance(goal, StyleGan):
    return
  rows = config.batch_size // config.microbatches
  what = 'microbatches' if config.microbatches > 1 else 'batches'
  if rows % goal.group:
    raise UserError(f'the discriminator takes a deviation over config.model.group={goal.group} examples, so that '
                    f'{what} need a multiple of that, got {rows}; change config.batch_size or the group')
  if goal.path_weight and rows % goal.path_shrink:
    raise UserError(f'path lengths are taken on a share of 1 / {goal.path_shrink} of the {what}, which have {rows} '
                    'examples; change config.objective.path_shrink or config.batch_size')
