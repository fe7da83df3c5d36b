"""Builder of pictures from pictures of other domains, in the style of a latent or of a picture: StarGAN v2.

    genjax sample --workdir=runs/animals --conditions='image=FOLDER;label=2' --out=drawn/
    genjax sample --workdir=runs/animals --conditions='image=FOLDER;label=2;reference=FILE' --out=drawn/
"""

import functools

import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, lazy, measures, sections, translation, translation_data
from genjax.models.adversarial import stargan2
from genjax.objectives.stargan import IMAGE, REFERENCE, SOURCE, StarGan
from genjax.options import Section, named
from genjax.training.experiment import Condition, Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

MODELS = {'stargan2': stargan2.StarGan2}
COMPUTED = {'size': 'config.data.shape', 'channels': 'config.data.shape', 'domains': 'config.data.num_classes'}
MADE = {**dict.fromkeys(stargan2.NETWORKS, 'config.model'), 'latent': 'config.model.latent',
        'domains': 'config.data.num_classes'}


def build(config: Config) -> Experiment:
  """An experiment with several domains, which are the classes of the data.

  config.data: see `genjax.experiments.images.Data`. config.model: name 'stargan2' and options of
  `genjax.models.adversarial.stargan2.StarGan2`. config.objective: options of `genjax.objectives.stargan.StarGan`.

  Raises:
    UserError: unknown names or options, pictures that are no squares, or fewer than two domains.
  """
  images.check(config.data)
  height, width, channels = config.data.shape
  domains = config.data.num_classes
  if domains < 2:
    raise UserError(f'config.data.num_classes, the number of domains, must be at least 2, got {domains}; give data '
                    'with classes, such as a folder with a folder of pictures for each domain')
  if height != width:
    raise UserError(f'config.data.shape must be square images for StarGAN v2, got {tuple(config.data.shape)}')
  if config.batch_size // config.microbatches < 2:
    raise UserError('references are other pictures of a batch, so that microbatches need two at least; got '
                    f'{config.batch_size // config.microbatches}; change config.batch_size or config.microbatches')
  kind = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = config_lib.build(kind, config.model, 'config.model', size=height, channels=channels, domains=domains)
  objective = config_lib.build(
    StarGan, config.objective, 'config.objective', latent=model.latent, domains=domains,
    **{name: getattr(model, name)() for name in stargan2.NETWORKS})
  return Experiment(
    objective=objective, train=images.batches(config, config.data.train),
    heldout=images.batches(config, config.data.heldout, shuffle=False),
    # Two updates a step of generator and discriminator
    optimizers=optimizers.from_config(config.optimizers, lazy.updates(objective.phases(), config.steps)),
    ema=dict(config.ema),
    example=images.example(config), axes=stargan2.AXES, assets=images.assets(config), conditions=_conditions(config),
    render=translation.shown, metrics=measures.image_metrics(config))


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named(MODELS, config.model, computed=COMPUTED),
    'objective': Section((StarGan,), MADE),
    'evaluation': measures.EVALUATION,
    **sections.training(config)}


def _conditions(config: Config) -> dict[str, Condition]:
  """The picture that is drawn anew, the domain, and a picture whose style it gets."""
  data = config.data

  @functools.cache
  def heldout():
    return images.open_data(config, data.heldout)

  def row(index: int) -> np.ndarray:
    return heldout().get(np.asarray([index % len(heldout())]))['image'][0]

  make = functools.partial(translation_data.picture, shape=tuple(data.shape), filter=data.get('resize', ''),
                           crop=data.get('crop', False), default=row)
  return {IMAGE: make(IMAGE, column=SOURCE), 'label': Condition.label(data.num_classes),
          REFERENCE: make(REFERENCE, column=REFERENCE, optional=True)}
