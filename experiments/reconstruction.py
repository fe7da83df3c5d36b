"""What builders of autoencoders whose latents are for other models have in common."""

from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, judges, render
from genjax.experiments.measuring import chosen
from genjax.objectives import kinds
from genjax.training.experiment import Experiment
from genjax.types import UserError

PICTURES = 32  # images in a picture of reconstructions


def check(config: Config) -> None:
  """Checks the data of a config.

  Raises:
    UserError: it is no data of images, or holds no pixels.
  """
  images.check(config.data)
  if images.content(config) != 'pixels':
    raise UserError(f"an autoencoder learns from pixels; config.data.content is {images.content(config)!r}, set it to "
                    "'pixels'")


def experiment(config: Config, objective: Any, axes: Any, opened: judges.Opened) -> Experiment:
  """The experiment of an objective.

  Args:
    config: of the run.
    objective: a `genjax.objectives.autoencoder.LatentAutoencoder`.
    axes: logical axes of the parameters of its group 'net'.
    opened: the judges of the config.
  """

  def preview(params, context, batch):
    image = batch['image'][:PICTURES]
    return {'original': image, 'reconstruction': objective.reconstruct(params, context, image)}

  return opened.attach(Experiment(
    objective=objective,
    train=images.batches(config, config.data.train),
    heldout=images.batches(config, config.data.heldout, shuffle=False),
    optimizers=judges.optimizers_of(config, opened.judges),
    example=images.example(config),
    ema=config_lib.plain(config.ema),
    axes={'net': axes, **opened.axes},
    preview=preview,
    render=render.autoencoded,
    metrics=chosen.of_autoencoder(config, objective.reconstruct)))


def autoencoder(config: Config, objective: Any, factor: int, reads: tuple[str, ...], **more: Any) -> kinds.Autoencoder:
  """The kind `autoencoder` of such a run; see `genjax.experiments.parts`.

  Args:
    config, objective: see `experiment`.
    factor, reads: see `kinds.Autoencoder`.
    **more: further attributes of it.
  """
  return kinds.Autoencoder(
    shape=tuple(config.data.shape),
    latent=objective.latent,
    encode=lambda group, image_BHWC: objective.encode(group['params'], group['mutable'], image_BHWC),
    decode=lambda group, z_BX: objective.decode(group['params'], group['mutable'], z_BX),
    moments=lambda group: objective.moments(group['mutable']),
    factor=factor, reads=reads, **more)
