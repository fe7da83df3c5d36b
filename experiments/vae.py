"""Builder of variational autoencoders on images."""

import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, measures, render, sections
from genjax.experiments.measuring import chosen
from genjax.models.autoencoders import vae
from genjax.objectives.vae import Vae
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Experiment
from genjax.training.optimization import optimizers

MODELS: Table = Table('autoencoder', {'mlp': (vae.MlpConfig, vae.MLP_AXES), 'conv': (vae.ConvConfig, vae.CONV_AXES)})
PICTURE_ROWS = 8  # pairs of images in a picture of reconstructions, and rows in one of interpolations
INTERPOLATION_STEPS = 9  # images in a row of interpolations


def build(config: Config) -> Experiment:
  """A VAE. config.data: see `genjax.experiments.images.Data`. config.model: 'mlp' or 'conv' with options of
  `genjax.models.autoencoders.vae`. config.objective: options of `Vae`."""
  images.check(config.data)
  kind, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape))
  encoder, decoder = vae.networks(model)
  objective = config_lib.build(Vae, config.objective, 'config.objective', encoder=encoder, decoder=decoder,
                               latent=model.latent)

  def preview(params, context, batch):
    image = batch['image'][:2 * PICTURE_ROWS]
    half = image.shape[0] // 2
    return {'original': image, 'reconstruction': objective.reconstruct(params, context, image),
            'interpolation': objective.interpolate(params, context, image[:half], image[half:2 * half],
                                                  INTERPOLATION_STEPS)}

  return Experiment(
    objective=objective,
    train=images.batches(config, config.data.train),
    heldout=images.batches(config, config.data.heldout, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=images.example(config),
    assets=images.assets(config),
    ema=dict(config.ema),
    axes={'net': axes},
    preview=preview,
    render=_render,
    metrics=chosen.of_autoencoder(config, objective.reconstruct, generates=True),
  )


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={'shape': sections.MADE['shape']}),
    'objective': Section((Vae,), {'encoder': '', 'decoder': '', 'latent': 'config.model.latent'}),
    'evaluation': measures.CHOSEN,
    **sections.training(config)}


def _render(columns: Columns) -> dict[str, np.ndarray]:
  """Grids of samples; of originals beside reconstructions; and of interpolations, one pair per row."""
  pictures = {}
  if 'image' in columns:
    pictures['samples'] = render.grid(columns['image'])
  if 'reconstruction' in columns:
    pictures['reconstructions'] = render.pairs(columns['original'], columns['reconstruction'], PICTURE_ROWS)
    rows = columns['interpolation']
    pictures['interpolations'] = render.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
  return pictures
