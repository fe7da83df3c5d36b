"""Builder of autoencoders for latent diffusion, with the kind `autoencoder` for runs that stand on one."""

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, judges, measures, reconstruction, sections
from genjax.models.autoencoders import dc, kl, tiny
from genjax.objectives import kinds
from genjax.objectives.autoencoder import KlAutoencoder
from genjax.objectives.judges import Judges
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment

MODELS: Table = Table('latent autoencoder', {
  'kl': (kl.Kl, kl.networks, kl.AXES), 'tiny': (tiny.Tiny, tiny.networks, tiny.AXES),
  'dc': (dc.DcAe, dc.networks, dc.AXES)})
NO_NETWORK = ('log_scale',)  # parameters that are of the objective
READS = ('params/net/(encoder|decoder)/.*', 'mutable/.*')  # the learned scale of the error is no part of the maps


def build(config: Config) -> Experiment:
  """A convolutional autoencoder. config.data: see `genjax.experiments.images.Data`. config.model: name and options
  of `MODELS`; the latents of 'tiny' and 'dc' have no variance. config.objective: options of `KlAutoencoder` and of
  `Judges`. config.critic and config.parts.perceptual: see `genjax.experiments.judges`.

  Raises:
    UserError: an unknown name or option, or data that is not pixels.
  """
  reconstruction.check(config)
  _, make, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = model_options(config)
  encoder, decoder = make(model)
  opened = judges.open(config)
  objective = config_lib.build(KlAutoencoder, opened.own, 'config.objective', encoder=encoder, decoder=decoder,
                               latent=model.latent_shape, judges=opened.judges)
  return reconstruction.experiment(config, objective, axes, opened)


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={'shape': sections.MADE['shape']}),
    'objective': Section((KlAutoencoder, Judges), {'encoder': '', 'decoder': '', 'latent': 'config.model', 'judges': '',
                                                   **judges.COMPUTED}),
    'evaluation': measures.CHOSEN,
    **judges.options(config)}


def model_options(config: Config) -> kl.Kl | tiny.Tiny | dc.DcAe:
  """The options of the model of a config."""
  kind, _, _ = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  return config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape))


def autoencoder(config: Config, experiment: Experiment) -> kinds.Autoencoder:
  """The kind `autoencoder` of such a run; see `genjax.experiments.parts`."""
  objective = experiment.objective
  assert isinstance(objective, KlAutoencoder)
  return reconstruction.autoencoder(
    config, objective, model_options(config).factor, READS,
    pixels=lambda group, z_BX: objective.pixels(group['params'], group['mutable'], z_BX))
