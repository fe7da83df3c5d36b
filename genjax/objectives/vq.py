"""Autoencoders with quantized latents: VQ-VAE (van den Oord et al. 2017), VQGAN (Esser et al. 2021), finite scalar
quantization (Mentzer et al. 2023)."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.nn.quantizers import Quantized, Quantizer, count, usage
from genjax.objectives.autoencoder import (
  NORMALISATIONS,
  LatentAutoencoder,
  averaged_moments,
  first_moments,
  pixel_errors,
)
from genjax.objectives.base import Context, Output, Variables
from genjax.objectives.judges import Judges
from genjax.objectives.pixels import as_image, centred
from genjax.types import Array, Batch, Key, Params, Tree, UserError

RECONSTRUCTIONS = ('l1', 'l2')
NO_NOISE = -30.0  # the log variance of latents that are no draws
_RANGE = 4.0  # variance of pixels in [-1, 1] over that of pixels in [0, 1]


class Forward(NamedTuple):
  """What one pass gives: the images in [-1, 1], the decoder's output, what was quantized, the new mutable trees, and
  what the last layer of the decoder read, see `Judges.decode`."""

  x_BHWC: Array
  out_BHWC: Array
  quantized: Quantized
  mutable: dict[str, Tree]
  hidden_BHWC: Array | None


@dataclasses.dataclass(frozen=True)
class VqAutoencoder(LatentAutoencoder):
  """Reconstruction plus what trains the codebook. Group 'net', phase 'autoencoder'; with a critic also the group and
  the phase 'critic'.

  Latents, for a run that stands on this one, are the vectors before they are quantized; `decode` quantizes them. Their
  moments are averaged in `mutable` while it trains, see `genjax.objectives.autoencoder.KlAutoencoder`.

  Attributes:
    encoder: images B H W C in [-1, 1] -> vectors B h w D.
    decoder: codes B h w D -> images B H W C.
    quantizer: vectors -> codes.
    latent: (h, w, D).
    reconstruction: 'l1' or 'l2', the mean absolute or squared error.
    variance: of the training data's pixel values in [0, 1]; a squared error is divided by it, and held-out errors are
      also given so, as 'relative_error'. 0 for neither.
    normalisation: 'channels' measures shift and scale of each channel of the latent, 'all' of all together.
    decay: of the averages of the latent's moments, per step.
    judges: what judges reconstructions beside their pixels.

  Batches: 'image' uint8 B H W C.

  Raises:
    UserError: an unknown name or a number outside its range.
  """

  encoder: Network
  decoder: Network
  quantizer: Quantizer
  latent: tuple[int, ...]
  reconstruction: str = 'l2'
  variance: float = 0.0
  normalisation: str = 'channels'
  decay: float = 0.99
  judges: Judges = Judges()

  def __post_init__(self):
    for name, known in (('reconstruction', RECONSTRUCTIONS), ('normalisation', NORMALISATIONS)):
      if getattr(self, name) not in known:
        raise UserError(f'config.objective.{name} must be one of {known}, got {getattr(self, name)!r}')
    checks.whole(self, 1, 'latent')
    checks.between(self, ('variance',), at_least=0)
    checks.rates(self, 'decay')
    if self.latent[-1] != self.quantizer.width:
      raise UserError(f'the encoder gives vectors of {self.latent[-1]} numbers, and codes have {self.quantizer.width}')

  def init(self, key: Key, frozen: Params) -> Variables:
    encoder_key, decoder_key, codebook_key = jax.random.split(key, 3)
    encoder, encoder_mutable = self.encoder.init(encoder_key)
    decoder, decoder_mutable = self.decoder.init(decoder_key)
    codebook, codebook_mutable = self.quantizer.init(codebook_key)
    judging, judging_mutable = self.judges.init(key)
    learned = {'codebook': codebook} if codebook else {}
    return Variables(
      {'net': {'encoder': encoder, 'decoder': decoder, **learned}, **judging},
      {'encoder': encoder_mutable, 'decoder': decoder_mutable, 'codebook': codebook_mutable,
       'moments': first_moments(self.latent), **judging_mutable})

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean over images of the error, plus what trains codes and encoder."""
    made = self.forward(params, context, batch, key)
    judged = self.judges.loss(
      params, context, self.decoder, made.hidden_BHWC, made.out_BHWC, made.x_BHWC,
      lambda out_BHWC, distance_B: jnp.mean(self.error(out_BHWC, made.x_BHWC, distance_B)), key)
    metrics = {'error': judged.error, 'quantization': made.quantized.loss, **made.quantized.metrics, **judged.metrics}
    return Output(judged.loss + made.quantized.loss, metrics, made.mutable, weight=float(made.x_BHWC.shape[0]))

  def forward(self, params: Params, context: Context, batch: Batch, key: Key) -> Forward:
    """Encodes, quantizes, decodes."""
    x_BHWC, mutable = centred(batch['image']), context.mutable
    encoder_key, codebook_key, decoder_key = jax.random.split(key, 3)
    z_BX, encoder = self.encoder.apply(params['net']['encoder'], mutable['encoder'], x_BHWC, key=encoder_key)
    quantized, codebook = self.quantizer.apply(params['net'].get('codebook', {}), mutable['codebook'], z_BX,
                                               key=codebook_key)
    out_BHWC, hidden_BHWC, decoder = self.judges.decode(self.decoder, params, context, quantized.z_XD, decoder_key)
    moments = averaged_moments(context, z_BX, jnp.full_like(z_BX, NO_NOISE), self.decay)
    changed = {'encoder': encoder, 'decoder': decoder, 'codebook': codebook, 'moments': moments}
    return Forward(x_BHWC, out_BHWC, quantized, {**mutable, **changed}, hidden_BHWC)

  def error(self, out_BHWC: Array, x_BHWC: Array, distance_B: Array | None = None) -> Array:
    """The error of reconstructions and, if given, their distance from the originals; shape B."""
    difference_BHWC = jnp.abs(x_BHWC - out_BHWC)
    if self.reconstruction == 'l2':
      difference_BHWC = jnp.square(difference_BHWC) / (_RANGE * self.variance or 1.0)
    error_B = jnp.mean(difference_BHWC, axis=(1, 2, 3))
    return error_B if distance_B is None else error_B + distance_B

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Of reconstructions: 'loss' as in training, without a critic's term; 'l1' and 'mse' in units of pixels in [-1, 1];
    'relative_error', the mean squared error over the variance of the data, if that is known; 'psnr' in dB of uint8
    images; 'perceptual', if there is such a distance; 'quantization', what trains the codebook; 'batch_perplexity' and
    'batch_used', of the codes of the batch. The latter grow with the batch: `genjax evaluate` counts over all of the
    data."""
    x_BHWC, net = centred(batch['image']), params['net']
    z_BX = self.encoder.apply(net['encoder'], context.mutable['encoder'], x_BHWC)[0]
    quantized, _ = self.quantizer.apply(net.get('codebook', {}), context.mutable['codebook'], z_BX)
    out_BHWC = self.decoder.apply(net['decoder'], context.mutable['decoder'], quantized.z_XD)[0]
    distance_B = self.judges.distance(context, out_BHWC, x_BHWC)
    size = x_BHWC.shape[0]
    mask_B = jnp.ones(size) if batch.get('mask') is None else batch['mask']
    weight_N = jnp.repeat(mask_B, quantized.index_X.size // size)
    used = usage(jnp.zeros(self.quantizer.size).at[quantized.index_X.reshape(-1)].add(weight_N))
    everyone = {'quantization': quantized.loss, **{f'batch_{name}': value for name, value in used.items()}}
    errors = pixel_errors(out_BHWC, batch['image'])
    relative = {'relative_error': errors['mse'] / (_RANGE * self.variance)} if self.variance else {}
    return {'loss': self.error(out_BHWC, x_BHWC, distance_B) + quantized.loss, **errors, **relative,
            **self.judges.named(distance_B), **{name: jnp.full(size, value) for name, value in everyone.items()}}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """'image' uint8 N H W C of codes that are drawn one by one, as often as each was used lately: what the decoder
    makes of a model that knows nothing but this."""
    logit_K = jnp.log(jnp.maximum(self.quantizer.frequencies(context.mutable['codebook']), 1e-30))
    index_NHW = jax.vmap(lambda key: jax.random.categorical(key, logit_K, shape=self.latent[:-1]))(keys)
    return {'image': self.decode_indices(params, context.mutable, index_NHW)}

  def encode(self, params: Params, mutable: Tree, image_BHWC: Array) -> tuple[Array, Array]:
    """Images uint8 -> vectors before they are quantized, float32, neither shifted nor scaled; and a log variance, as
    low as that of a posterior may be."""
    z_BX = self.encoder.apply(params['net']['encoder'], mutable.get('encoder', {}), centred(image_BHWC))[0]
    return z_BX, jnp.full_like(z_BX, NO_NOISE)

  def decode(self, params: Params, mutable: Tree, z_BX: Array) -> Array:
    """Vectors as the encoder gives them, quantized here -> images uint8."""
    return self._image(params, mutable, self._quantized(params, mutable, z_BX).z_XD)

  def encode_indices(self, params: Params, mutable: Tree, image_BHWC: Array) -> Array:
    """Images uint8 B H W C -> the indices of their codes, int32 B h w."""
    return self._quantized(params, mutable, self.encode(params, mutable, image_BHWC)[0]).index_X

  def decode_indices(self, params: Params, mutable: Tree, index_BHW: Array) -> Array:
    """Images uint8 B H W C of indices of codes, int32 B h w."""
    codebook = params['net'].get('codebook', {})
    return self._image(params, mutable, self.quantizer.lookup(codebook, mutable.get('codebook', {}), index_BHW))

  def counts(self, params: Params, context: Context, batch: Batch) -> Array:
    """How often each code occurs in a batch, float32 K, without rows whose 'mask' is 0."""
    index_BHW = self.encode_indices(params, context.mutable, batch['image'])
    # rows of padding count as code K, which is none
    index_BHW = jnp.where(batch['mask'][:, None, None] > 0, index_BHW, self.quantizer.size)
    return count(index_BHW.reshape(-1), self.quantizer.size + 1)[:-1]

  def _quantized(self, params: Params, mutable: Tree, z_BX: Array) -> Quantized:
    return self.quantizer.apply(params['net'].get('codebook', {}), mutable.get('codebook', {}), z_BX)[0]

  def _image(self, params: Params, mutable: Tree, code_BX: Array) -> Array:
    out: Any = self.decoder.apply(params['net']['decoder'], mutable.get('decoder', {}), code_BX)[0]
    return as_image(out)
