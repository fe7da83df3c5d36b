"""Builder of variational autoencoders on images."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import checks, sharding
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Pipeline
from genjax.experiments import images, render, sections
from genjax.experiments.measuring import chosen
from genjax.experiments.measuring import options as measuring
from genjax.models.autoencoders import vae
from genjax.objectives.vae import Vae
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training import keys, stopping
from genjax.training.experiment import Columns, Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.types import UserError

MODELS: Table = Table('autoencoder', {'mlp': (vae.MlpConfig, vae.MLP_AXES), 'conv': (vae.ConvConfig, vae.CONV_AXES)})
PICTURE_ROWS = 8  # pairs of images in a picture of reconstructions, and rows in one of interpolations
INTERPOLATION_STEPS = 9  # images in a row of interpolations


@dataclasses.dataclass(frozen=True)
class Evaluation(measuring.Options):
  """config.evaluation: what `genjax.experiments.measuring.options.Options` has, and

  Attributes:
    likelihood_samples: importance samples for an image in the estimate of its log-likelihood by `genjax evaluate`; 0
      leaves it out. Papers take 5,000.
    likelihood_chunk: how many of them are decoded at once; more need memory, and change no value.
    likelihood_examples: of how many held-out images, the first ones; 0 is all.
  """

  likelihood_samples: int = 0
  likelihood_chunk: int = 10
  likelihood_examples: int = 0

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'likelihood_samples', 'likelihood_examples')
    if self.likelihood_examples == 1:
      raise UserError('config.evaluation.likelihood_examples must be 0, for all, or at least 2: one image has no '
                      'standard error of the mean; got 1')
    checks.whole(self, 1, 'likelihood_chunk')


def build(config: Config) -> Experiment:
  """A VAE. config.data: see `genjax.experiments.images.Data`. config.model: 'mlp' or 'conv' with options of
  `genjax.models.autoencoders.vae`. config.objective: options of `Vae`. config.evaluation: see `Evaluation`."""
  images.check(config.data)
  kind, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape))
  encoder, decoder = vae.networks(model)
  objective = config_lib.build(Vae, config.objective, 'config.objective', encoder=encoder, decoder=decoder,
                               latent=model.latent)

  heldout = images.batches(config, config.data.heldout, shuffle=False)

  def preview(params, context, batch):
    image = batch['image'][:2 * PICTURE_ROWS]
    half = image.shape[0] // 2
    return {'original': image, 'reconstruction': objective.reconstruct(params, context, image),
            'interpolation': objective.interpolate(params, context, image[:half], image[half:2 * half],
                                                  INTERPOLATION_STEPS)}

  return Experiment(
    objective=objective,
    train=images.batches(config, config.data.train),
    heldout=heldout,
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=images.example(config),
    assets=images.assets(config),
    ema=dict(config.ema),
    axes={'net': axes},
    preview=preview,
    render=_render,
    metrics=(*_likelihood(config, objective, heldout),
             *chosen.of_autoencoder(config, objective.reconstruct, generates=True, kind=Evaluation)),
  )


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={'shape': sections.MADE['shape']}),
    'objective': Section((Vae,), {'encoder': '', 'decoder': '', 'latent': 'config.model.latent'}),
    'evaluation': Section((Evaluation,)),
    **sections.training(config)}


def _likelihood(config: Config, objective: Vae, heldout: Pipeline) -> tuple[Metric, ...]:
  """The measure 'likelihood', if config.evaluation asks for it: 'nll', the mean of -log p(x) in nats, estimated by
  importance sampling from q(z | x), and 'nll_error', the standard error of the mean over images."""
  options = config_lib.build(Evaluation, config.get('evaluation') or {}, 'config.evaluation')
  if not options.likelihood_samples:
    return ()
  chunk = min(options.likelihood_chunk, options.likelihood_samples)
  card = {'importance_samples': options.likelihood_samples, 'examples': options.likelihood_examples or 'all',
          'binarize': config.data.get('binarize', 'none')}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    samples: Any = sample  # `genjax.training.drawing.Samples`
    run = samples.run
    estimate = run.program.on_mesh(lambda params, context, image_BHWC, key: objective.log_evidence(
      params, context, image_BHWC, key, options.likelihood_samples, chunk))
    estimate = jax.jit(estimate, out_shardings=sharding.replicated(run.mesh))
    params, context = run.params(samples.averaged), run.state.context(run.frozen)
    key, nats, wanted = keys.of(seed, 'evaluation'), [], options.likelihood_examples or len(heldout.source)
    for index, columns in enumerate(heldout.epoch(run.rows(heldout.batch_size))):
      if index * heldout.batch_size >= wanted:
        break
      stopping.check()
      batch = sharding.put_batch(columns, run.mesh)
      nats.append(-jax.device_get(estimate(params, context, batch['image'], jax.random.fold_in(key, index))))
      run.clock.beat()
    nats_N = np.concatenate(nats)[:min(wanted, len(heldout.source))].astype(np.float64)
    return {'nll': float(nats_N.mean()), 'nll_error': float(nats_N.std(ddof=1) / np.sqrt(len(nats_N)))}

  return (Metric('likelihood', compute, card),)


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
