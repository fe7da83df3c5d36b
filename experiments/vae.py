"""Builder of variational autoencoders on images."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks, sharding
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Pipeline
from genjax.experiments import conditions, images, render, sections
from genjax.experiments.measuring import anomaly, chosen
from genjax.models.autoencoders import ladder, vae
from genjax.objectives import kinds
from genjax.objectives.base import Context
from genjax.objectives.ladder import LadderVae
from genjax.objectives.vae import Vae
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training import keys, stopping
from genjax.training.experiment import Columns, Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.types import Tree, UserError

MODELS: Table = Table('autoencoder', {'mlp': (vae.MlpConfig, vae.MLP_AXES), 'conv': (vae.ConvConfig, vae.CONV_AXES),
                                      'ladder': (ladder.LadderConfig, ladder.AXES)})
SCORES = ('negative_elbo', 'distortion', 'kl')  # of `Vae.evaluate`, as scores of anomalies
PICTURE_ROWS = 8  # in a picture of interpolations; twice as many images are reconstructed
INTERPOLATION_STEPS = 9  # images in a row of interpolations


@dataclasses.dataclass(frozen=True)
class Evaluation(anomaly.Options):
  """config.evaluation: what `genjax.experiments.measuring.anomaly.Options` has, and

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
  `genjax.models.autoencoders.vae`, or 'ladder' with those of `genjax.models.autoencoders.ladder`. config.objective:
  options of `Vae`. config.evaluation: see `Evaluation`. config.conditions: see `genjax.experiments.conditions`; without
  it the model is told nothing, whatever the data has.

  Raises:
    UserError: an unknown name or option, or a condition that training leaves out at times.
  """
  images.check(config.data)
  told = _told(config)
  kind, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape),
                           **(told.of_network(kind) if told else {}))
  objective = _objective(config, model, told)
  reads, mirrored = (told.reads, told.mirrored) if told else ((), ())
  heldout = images.batches(config, config.data.heldout, False, reads, mirrored)
  columns = tuple(told.example) if told else ()

  def preview(params, context, batch):
    batch = {name: value[:2 * PICTURE_ROWS] for name, value in batch.items()}
    image, half = batch['image'], batch['image'].shape[0] // 2
    given = objective.told(context, batch)
    return {'original': image, 'reconstruction': objective.reconstruct(params, context, image, given),
            'interpolation': objective.interpolate(params, context, image[:half], image[half:2 * half],
                                                  INTERPOLATION_STEPS,
                                                  {name: value[:half] for name, value in given.items()})}

  def reconstruct(params, context, image, *more):
    return objective.reconstruct(params, context, image, objective.told(context, dict(zip(columns, more))))

  experiment = Experiment(
    objective=objective,
    train=images.batches(config, config.data.train, True, reads, mirrored),
    heldout=heldout,
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=images.example(config),
    assets=images.assets(config),
    ema=dict(config.ema),
    axes={'net': axes},
    preview=preview,
    render=_render)
  experiment = told.complete(experiment) if told else experiment
  scored: Any = experiment.heldout  # a `Pipeline`
  return dataclasses.replace(experiment, metrics=(
    *_likelihood(config, objective, scored),
    *anomaly.metrics(config, _evaluation(config), _scores(objective), 'negative_elbo'),
    *chosen.of_autoencoder(config, reconstruct, generates=True, kind=Evaluation, more=columns)))


def _objective(config: Config, model: Any, told: conditions.Conditions | None) -> Vae:
  common = {'latent': model.latent, 'conditioners': told.conditioners if told else {}}
  if isinstance(model, ladder.LadderConfig):
    encoder, decoder, prior = ladder.networks(model)
    return config_lib.build(LadderVae, config.objective, 'config.objective', encoder=encoder, decoder=decoder,
                            prior=prior, upper=model.upper, **common)
  encoder, decoder = vae.networks(model)
  return config_lib.build(Vae, config.objective, 'config.objective', encoder=encoder, decoder=decoder, **common)


def _told(config: Config) -> conditions.Conditions | None:
  """The conditions of config.conditions; None if there are none."""
  if not config.get('conditions'):
    return None
  told = conditions.of(config, tuple(config.data.shape), functools.partial(images.open_data, config), 0.0)
  if dropped := [name for name, condition in told.conditioners.items() if condition.dropout]:
    raise UserError(f'config.conditions.{dropped[0]}.dropout={told.conditioners[dropped[0]].dropout} is for guidance, '
                    'which a VAE does not have; set it to 0.0')
  return told


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  of_conditions = {name: section for name, section in conditions.options(config).items() if 'sampler' not in name}
  made = {'encoder': '', 'decoder': '', 'prior': '', 'latent': 'config.model.latent', 'upper': 'config.model.upper',
          'conditioners': 'config.conditions'}
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={**dict.fromkeys(conditions.NETWORK, 'config.conditions'),
                             'shape': sections.MADE['shape']}),
    'objective': Section((Vae,), made),
    'evaluation': Section((Evaluation,)),
    **of_conditions,
    **sections.training(config)}


def autoencoder(config: Config, experiment: Experiment) -> kinds.Autoencoder:
  """The kind `autoencoder` of such a run: its latents are vectors, for `genjax interpolate`.

  Raises:
    UserError: the model has conditions, which the functions of this kind are not told.
  """
  objective = experiment.objective
  assert isinstance(objective, Vae)
  if objective.conditioners:
    raise UserError('a VAE with conditions (config.conditions) encodes and decodes with them, which an autoencoder '
                    'that others stand on is not told; take one without')

  def context(group: Tree) -> Context:
    return Context(step=jnp.int32(0), mutable=group['mutable'], ema={}, frozen={})

  return kinds.Autoencoder(
    shape=tuple(config.data.shape),
    latent=(objective.latent,),
    encode=lambda group, image_BHWC: objective.posterior(group['params'], context(group), image_BHWC),
    decode=lambda group, z_BZ: objective.decode(group['params'], context(group), z_BZ),
    moments=lambda group: (jnp.zeros(()), jnp.ones(())))  # the prior's


def _evaluation(config: Config) -> Evaluation:
  return config_lib.build(Evaluation, config.get('evaluation') or {}, 'config.evaluation')


def _scores(objective: Vae) -> dict[str, str]:
  """Scores of anomalies -> values of `Vae.evaluate`."""
  return {**{name: name for name in SCORES}, 'negative_bound': f'negative_bound_{objective.importance_samples}'}


def _likelihood(config: Config, objective: Vae, heldout: Pipeline) -> tuple[Metric, ...]:
  """The measure 'likelihood', if config.evaluation asks for it: 'nll', the mean of -log p(x) in nats, estimated by
  importance sampling from q(z | x), and 'nll_error', the standard error of the mean over images."""
  options = _evaluation(config)
  if not options.likelihood_samples:
    return ()
  chunk = min(options.likelihood_chunk, options.likelihood_samples)
  card = {'importance_samples': options.likelihood_samples, 'examples': options.likelihood_examples or 'all',
          'binarize': config.data.get('binarize', 'none')}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    samples: Any = sample  # `genjax.training.drawing.Samples`
    run = samples.run
    estimate = run.program.on_mesh(lambda params, context, batch, key: objective.log_evidence(
      params, context, batch, key, options.likelihood_samples, chunk))
    estimate = jax.jit(estimate, out_shardings=sharding.replicated(run.mesh))
    params, context = run.params(samples.averaged), run.state.context(run.frozen)
    key, nats, wanted = keys.of(seed, 'evaluation'), [], options.likelihood_examples or len(heldout.source)
    for index, columns in enumerate(heldout.epoch(run.rows(heldout.batch_size))):
      if index * heldout.batch_size >= wanted:
        break
      stopping.check()
      batch = sharding.put_batch(columns, run.mesh)
      nats.append(-jax.device_get(estimate(params, context, batch, jax.random.fold_in(key, index))))
      run.clock.beat()
    nats_N = np.concatenate(nats)[:min(wanted, len(heldout.source))].astype(np.float64)
    return {'nll': float(nats_N.mean()), 'nll_error': float(nats_N.std(ddof=1) / np.sqrt(len(nats_N)))}

  return (Metric('likelihood', compute, card),)


def _render(columns: Columns) -> dict[str, np.ndarray]:
  """Grids of samples; of originals beside reconstructions; and of interpolations, one pair per row."""
  pictures = render.autoencoded(columns)
  if 'interpolation' in columns:
    rows = columns['interpolation']
    pictures['interpolations'] = render.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
  return pictures
