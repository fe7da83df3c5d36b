"""Configs of public denoisers alone: without an autoencoder they generate latents, and without a text encoder they are
told vectors, as columns of the data or files of numbers. U-Nets of DDPM see pixels."""

from typing import Any

from genjax import interop
from genjax.config import Config
from genjax.configs import common
from genjax.experiments import diffusion
from genjax.experiments.conditions import NETWORK
from genjax.models.denoisers.dit import DiT
from genjax.models.denoisers.latent_unet import LatentUNet
from genjax.models.denoisers.mmdit import MmDit
from genjax.models.denoisers.pixart import PixArt
from genjax.models.denoisers.unet import UNet
from genjax.types import UserError

LENGTH = 77  # vectors of a text, those of a CLIP
DROPOUT = 0.1
# Options of a denoiser -> its name, process, what it predicts and how it is sampled, as its kin was trained
KNOWN: dict[type, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
  LatentUNet: ('latent_unet', dict(name='vp_scaled_linear', steps=1000, beta_start=0.00085, beta_end=0.012), 'epsilon',
               dict(name='ddim', steps=50, guidance=7.5)),
  UNet: ('unet', dict(name='vp_linear', steps=1000, rescale=False), 'epsilon',
         dict(name='ancestral', steps=1000, clip=1.0, options=dict(variance='large'))),
  MmDit: ('mmdit', dict(name='flow'), 'velocity', dict(name='euler', steps=28, guidance=7.0, shift=3.0)),
  DiT: ('dit', dict(name='vp_linear', steps=1000), 'epsilon', dict(name='ddim', steps=50, guidance=4.0)),
  PixArt: ('pixart', dict(name='vp_linear', steps=1000), 'epsilon', dict(name='dpmpp_2m', steps=20, guidance=4.5)),
}


def configure(config: Config, model: interop.Model, where: str) -> None:
  """Sets what a run of a denoiser alone has.

  Args:
    config: with the options of every run.
    model: the denoiser.
    where: it comes from, for messages.

  Raises:
    UserError: it sees a picture behind an autoencoder, which it does not have.
  """
  options = model.config
  name, process, prediction, sampler = KNOWN[type(options)]
  config.experiment = diffusion.__name__
  config.data = {**common.IMAGES, 'name': '', 'train': 'train', 'heldout': 'train', 'shape': options.shape,
                 'num_classes': 0, 'content': 'pixels' if isinstance(options, UNet) else 'latents', 'flip': False}
  config.conditions = _conditions(options, where)
  own = {field: getattr(options, field) for field in vars(options) if field not in ('shape', *NETWORK)}
  config.model = dict(own, name=name)
  config.objective = dict(process=process, parameterization=dict(name=prediction), times=dict(name='default'),
                          weighting=dict(name='uniform'), stratified=True)
  config.sampler = dict({'options': {}, 'spacing': ''}, **sampler)


def _conditions(options: Any, where: str) -> dict[str, Any]:
  """What the denoiser reads, as columns."""
  if options.image_channels not in (0, 1, 3):
    raise UserError(f'{where}: this denoiser sees a picture behind an autoencoder ({options.image_channels} channels '
                    'beside the latent): import the whole pipeline, the folder with model_index.json')
  made: dict[str, Any] = {}
  if options.token_width:
    made['text'] = dict(kind='tokens', column='text_tokens', width=options.token_width, length=LENGTH, dropout=DROPOUT)
  if options.vector_width:
    made['pooled'] = dict(kind='vector', column='text_pooled', width=options.vector_width, dropout=DROPOUT)
  if options.numbers:
    made['size'] = dict(kind='numbers', column='size', count=options.numbers, dropout=0.0)
  if options.num_classes:
    made['label'] = dict(kind='classes', num_classes=options.num_classes,
                         dropout=DROPOUT if isinstance(options, DiT) else 0.0)  # its table has a row for none
  if options.image_channels:
    made['picture'] = dict(kind='image', column='picture', channels=options.image_channels, dropout=0.0)
  if getattr(options, 'guidance', False) or getattr(options, 'guidance_features', 0):
    made['guidance'] = dict(kind='guidance')
  return made
