"""Builder of autoencoders with quantized latents: VQ-VAE, VQGAN and finite scalar quantization.

Runs that stand on one get the kind `autoencoder`, whose latents are quantized where they are decoded, or `codes`, the
numbers of the codes.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import config as config_lib
from genjax import sharding
from genjax.config import Config
from genjax.experiments import images, judges, measures, reconstruction, sections
from genjax.models.autoencoders import vq
from genjax.nn import quantizers
from genjax.objectives import kinds
from genjax.objectives.judges import Judges
from genjax.objectives.vq import VqAutoencoder
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training import stopping
from genjax.training.experiment import Columns, Data, Experiment, Metric
from genjax.types import Tree, UserError

MODELS: Table = Table('quantized autoencoder', {
  'vqvae': (vq.VqVae, vq.networks, vq.AXES), 'vqgan': (vq.VqGan, vq.gan_networks, vq.GAN_AXES)})
QUANTIZERS: Table = Table('quantizer', {
  'vector': quantizers.VectorQuantizer, 'finite_scalar': quantizers.FiniteScalarQuantizer})
READS = ('params/net/(encoder|decoder|codebook)/.*', 'mutable/(codebook/(embedding|offset)|moments/.*)')


def build(config: Config) -> Experiment:
  """An autoencoder whose latents are codes.

  config.data: see `genjax.experiments.images.Data`. config.model: 'vqvae' with options of
  `genjax.models.autoencoders.vq.VqVae`, or 'vqgan' with those of `genjax.models.autoencoders.vq.VqGan`.
  config.quantizer: 'vector' or 'finite_scalar' with options of `genjax.nn.quantizers`. config.objective: options of
  `VqAutoencoder` and of `Judges`. config.critic and config.parts.perceptual: see `genjax.experiments.judges`.

  Raises:
    UserError: an unknown name or option, or data that is not pixels.
  """
  reconstruction.check(config)
  opened = judges.open(config)
  objective = _objective(config, opened.judges, opened.own)
  axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')[2]
  experiment = reconstruction.experiment(config, objective, axes, opened)
  return dataclasses.replace(experiment, metrics=(_codes(objective, experiment.heldout), *experiment.metrics))


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  made = {'encoder': '', 'decoder': '', 'quantizer': 'config.quantizer', 'latent': 'config.model', 'judges': '',
          **judges.COMPUTED}
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={'shape': sections.MADE['shape'], 'width': 'config.quantizer'}),
    'quantizer': named(dict(QUANTIZERS.items()), config.get('quantizer')),
    'objective': Section((VqAutoencoder, Judges), made),
    'evaluation': measures.CHOSEN,
    **judges.options(config)}


def quantizer_of(config: Config) -> quantizers.Quantizer:
  """The quantizer of a config."""
  given = config.get('quantizer') or {}
  kind = config_lib.choose(QUANTIZERS, given.get('name', 'vector'), 'config.quantizer.name')
  return config_lib.build(kind, given, 'config.quantizer')


def model_options(config: Config) -> Any:
  """The options of the networks of a config."""
  kind, _, _ = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  return config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape),
                          width=quantizer_of(config).width)


def _objective(config: Config, judging: Judges, own: Any) -> VqAutoencoder:
  _, make, _ = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = model_options(config)
  encoder, decoder = make(model)
  return config_lib.build(VqAutoencoder, own, 'config.objective', encoder=encoder, decoder=decoder,
                          quantizer=quantizer_of(config), latent=model.latent_shape, judges=judging)


def autoencoder(config: Config, experiment: Experiment) -> kinds.Autoencoder:
  """The kind `autoencoder` of such a run; see `genjax.experiments.parts`. Latents are quantized where they are
  decoded."""
  return reconstruction.autoencoder(config, _of(experiment), model_options(config).factor, READS)


def codes(config: Config, experiment: Experiment) -> kinds.Codes:
  """The kind `codes` of such a run: images <-> numbers of codes."""
  objective = _of(experiment)
  height, width, _ = objective.latent
  return kinds.Codes(
    shape=tuple(config.data.shape), latent=(height, width), size=objective.quantizer.size,
    encode_indices=lambda group, image_BHWC: objective.encode_indices(group['params'], group['mutable'], image_BHWC),
    decode_indices=lambda group, index_BHW: objective.decode_indices(group['params'], group['mutable'], index_BHW),
    factor=model_options(config).factor, reads=READS)


def exported_options(config: Config, net: Tree) -> vq.Whole:
  """The options of the public architecture of a run.

  Raises:
    UserError: it has none.
  """
  model, quantizer = model_options(config), quantizer_of(config)
  if not isinstance(model, vq.VqGan) or not isinstance(quantizer, quantizers.VectorQuantizer):
    raise UserError(f'the public layout of quantized autoencoders is that of config.model.name=vqgan with '
                    f'config.quantizer.name=vector, got {config.model.name} and {config.quantizer.name}')
  # There the codebook is a parameter, however it was learned.
  return vq.Whole(model, dataclasses.replace(quantizer, learned='gradient', revive=0.0))


def exported(config: Config, net: Tree, mutable: Tree) -> Tree:
  """The parameters of the networks with the codebook, however that was learned."""
  quantizer = quantizer_of(config)
  assert isinstance(quantizer, quantizers.VectorQuantizer)  # `exported_options` asked for it
  return {**net, 'codebook': {'embedding': quantizer.codebook(net.get('codebook', {}), mutable.get('codebook', {}))}}


def _of(experiment: Experiment) -> VqAutoencoder:
  objective = experiment.objective
  assert isinstance(objective, VqAutoencoder)
  return objective


def _codes(objective: VqAutoencoder, heldout: Data) -> Metric:
  """The measure 'codes': 'used', how many codes occur in all of the held-out images, 'used_share', and 'perplexity'.

  A batch has fewer: both grow with the number of images.
  """
  size = objective.quantizer.size
  card = {'codes': size, 'of': 'all held-out images'}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    samples: Any = sample  # `genjax.training.drawing.Samples`
    run = samples.run
    count = run.program.on_mesh(lambda params, context, batch: objective.counts(params, context, batch))
    count = jax.jit(count, out_shardings=sharding.replicated(run.mesh))
    params, context = run.params(samples.averaged), run.state.context(run.frozen)
    total_K = np.zeros(size)
    for columns in heldout.epoch(run.rows(heldout.batch_size)):
      stopping.check()
      batch = sharding.put_batch({name: columns[name] for name in ('image', 'mask')}, run.mesh)
      total_K += jax.device_get(count(params, context, batch))
      run.clock.beat()
    share_K = total_K[total_K > 0] / total_K.sum()
    perplexity = float(np.exp(-(share_K * np.log(share_K)).sum()))
    return {'used': float(len(share_K)), 'used_share': len(share_K) / size, 'perplexity': perplexity}

  return Metric('codes', compute, card)
