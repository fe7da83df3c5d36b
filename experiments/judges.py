"""What judges reconstructions beside their pixels, for builders of autoencoders: config.critic and
config.parts.perceptual."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import parts as parts_lib
from genjax.experiments import sections
from genjax.models.adversarial import patch
from genjax.objectives.judges import CRITIC, PERCEPTUAL, Judges
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name -> its options, its network of them, and the logical axes of its parameters.
CRITICS: Table = Table('critic', {'patch': (patch.Patch, patch.critic, patch.AXES)})
COMPUTED = {'critic': 'config.critic', 'perceptual': 'config.parts.perceptual'}  # what no config sets of `Judges`
OPTIONS = tuple(field.name for field in dataclasses.fields(Judges) if field.name not in COMPUTED)


@dataclasses.dataclass(frozen=True)
class Opened:
  """The judges of a config.

  Attributes:
    judges: for the objective.
    own: config.objective without the options of the judges.
    parts: that they read.
    axes: logical axes of their groups.
  """

  judges: Judges
  own: Mapping[str, Any]
  parts: tuple[parts_lib.Part, ...]
  axes: Mapping[str, Any]

  def attach(self, experiment: Experiment) -> Experiment:
    """The experiment with the parts of the judges."""
    return parts_lib.attach(experiment, *self.parts)


def open(config: Config) -> Opened:
  """The judges that config.critic, config.parts.perceptual and config.objective name.

  Raises:
    UserError: an unknown name or option, images that are too small for a judge, or a distance without gradients.
  """
  given = dict(config.objective)
  options = {name: given.pop(name) for name in OPTIONS if name in given}
  made: dict[str, Any] = {}
  parts: tuple[parts_lib.Part, ...] = ()
  axes: dict[str, Any] = {}
  shape = tuple(config.data.shape)
  if config.get(CRITIC):
    kind, network, axes[CRITIC] = config_lib.choose(CRITICS, config.critic.name, 'config.critic.name')
    critic = config_lib.build(kind, config.critic, 'config.critic', channels=shape[-1])
    if critic.least > min(shape[:2]):
      raise UserError(f'a critic with config.critic.layers={critic.layers} needs images of at least {critic.least} '
                      f'pixels, got {shape[:2]}; use fewer layers')
    made[CRITIC] = network(critic)
    _check(config)
  if PERCEPTUAL in (config.get('parts') or {}):
    part = parts_lib.open(config, PERCEPTUAL, PERCEPTUAL)
    check_size(part, shape)
    made[PERCEPTUAL], parts = part.functions, (part,)
  return Opened(config_lib.build(Judges, options, 'config.objective', **made), given, parts, axes)


def optimizers_of(config: Config, judges: Judges) -> dict[str, Any]:
  """The optimizers of the config; the schedule of the critic ends with the run, though it begins later."""
  updates = {**dict.fromkeys(config.optimizers, config.steps), CRITIC: max(1, config.steps - judges.critic_start)}
  return optimizers.from_config(config.optimizers, updates)


def options(config: Config) -> dict[str, Section]:
  """The sections that an autoencoder with judges has beside its own."""
  critic = {CRITIC: named({name: row[0] for name, row in CRITICS.items()}, config[CRITIC],
                          computed={'channels': 'config.data.shape'})} if config.get(CRITIC) else {}
  return {**critic, **sections.training(config)}


def _check(config: Config) -> None:
  if CRITIC not in config.optimizers:
    raise UserError('config.critic needs an optimizer of its own, and config.optimizers has '
                    f'{sorted(config.optimizers)}; set config.optimizers.critic, as configs/autoencoders/vqgan.py does')
  start = config.objective.get('critic_start', 0)
  if isinstance(start, int) and start >= config.steps > 0:
    raise UserError(f'config.objective.critic_start={start} is not below config.steps={config.steps}, so that the '
                    'critic never begins; make it smaller, or leave the critic out: critic=False after --config=FILE:')


def check_size(part: parts_lib.Part, shape: tuple[int, ...]) -> None:
  """Checks that a perceptual distance reads images of a shape.

  Raises:
    UserError: it does not.
  """
  functions = part.functions
  if functions.shape is not None and tuple(functions.shape) != shape:
    raise UserError(f'config.parts.{PERCEPTUAL} {part.source.path} reads images of {tuple(functions.shape)}, and '
                    f'config.data.shape is {shape}')
  if min(shape[:2]) < functions.least:
    raise UserError(f'config.parts.{PERCEPTUAL} {part.source.path} needs images of at least {functions.least} pixels, '
                    f'got {shape[:2]}')
