"""Published networks by name: their options, and their parameters as shapes, without memory.

    genjax inspect --variant=sdxl
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax

from genjax import config as config_lib
from genjax.experiments import gan_variants
from genjax.interop import weights
from genjax.models.adversarial import enlarger, patch, resnet_generator, unet_generator
from genjax.models.autoencoders import dc, kl, tiny, vq
from genjax.models.denoisers import dit, latent_unet, mmdit, pixart, unet
from genjax.models.transformers import clip, seq2seq, t5
from genjax.nn.functional import Network
from genjax.nn.quantizers import VectorQuantizer
from genjax.types import UserError, named_leaves


@dataclasses.dataclass(frozen=True)
class Variant:
  """A published network.

  Attributes:
    name: its name here.
    options: function without arguments -> its options.
    make: options -> network.
  """

  name: str
  options: Callable[[], Any]
  make: Callable[[Any], Network]

  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape of its parameters."""
    return named_leaves(jax.eval_shape(self.make(self.options()).init, jax.random.key(0))[0])

  @property
  def public(self) -> str:
    """The class in `diffusers`, or the `model_type` in `transformers`, in whose layout it is read; '' for none."""
    try:
      return weights.architecture_of(self.options())
    except UserError:
      return ''


def choose(name: str) -> Variant:
  """The variant of a name.

  Raises:
    UserError: it is unknown.
  """
  return config_lib.choose(VARIANTS, name, '--variant')


def _of(variants: Mapping[str, Mapping[str, Any]], kind: type, make: Callable[[Any], Network]) -> dict[str, Variant]:
  """The variants of a model file: name -> options over the defaults of their class."""
  return {name: Variant(name, lambda options=options: kind(**options), make) for name, options in variants.items()}


def _each(make: Callable[[Any], Network], **options: Callable[[], Any]) -> dict[str, Variant]:
  return {name: Variant(name, of, make) for name, of in options.items()}


def _vq(codes: int, **options: Any) -> Callable[[], vq.Whole]:
  """An autoencoder of latent diffusion with so many codes (Rombach et al. 2022, table 8)."""
  return lambda: vq.Whole(vq.VqGan((256, 256, 3), **options), VectorQuantizer(
    codes, options['latent'], learned='gradient'))


def _tower(size: str, side: str, projected: bool, **options: Any) -> Callable[[], clip.ClipConfig]:
  """A tower of a CLIP alone, with or without its projection."""

  def make() -> clip.ClipConfig:
    whole = clip.clip(size)
    tower = dataclasses.replace(getattr(whole, side), **options)
    return clip.ClipConfig(**{'text': None, 'image': None, side: tower}, width=whole.width if projected else 0)

  return make


def _generator(options: Any) -> Network:
  return options.generator()


VARIANTS: dict[str, Variant] = {
  **_of(unet_generator.VARIANTS, unet_generator.UNetGenerator, _generator),
  **_of(resnet_generator.VARIANTS, resnet_generator.ResnetGenerator, _generator),
  **_of(enlarger.VARIANTS, enlarger.Enlarger, _generator), **_of(patch.VARIANTS, patch.Patch, patch.critic),
  **_of(kl.VARIANTS, kl.Kl, kl.autoencoder), **_of(tiny.VARIANTS, tiny.Tiny, tiny.autoencoder),
  **_of(dc.VARIANTS, dc.DcAe, dc.autoencoder),
  **_each(vq.autoencoder, vq_f4=_vq(8192, latent=3, multipliers=(1, 2, 4)),
          vq_f8=_vq(16384, latent=4, multipliers=(1, 2, 2, 4), attention=(8,)),
          vq_f8_256=_vq(256, latent=4, multipliers=(1, 2, 2, 4), attention=(8,)),
          vq_f16=_vq(16384, latent=8, multipliers=(1, 1, 2, 2, 4), attention=(16,))),
  **_of(unet.VARIANTS, unet.UNet, unet.network),
  **_of(latent_unet.VARIANTS, latent_unet.LatentUNet, latent_unet.network_of),
  **_each(dit.network, **dict.fromkeys(('dit_xl_2', 'sit_xl_2'), lambda: dit.DiT(
    (32, 32, 4), patch=2, width=1152, depth=28, heads=16, num_classes=1000, learn_sigma=True))),
  **_of(pixart.VARIANTS, pixart.PixArt, pixart.network), **_of(mmdit.VARIANTS, mmdit.MmDit, mmdit.network_of),
  **_each(clip.encoder, **{f'clip_{name}': lambda size=size: clip.clip(size) for name, size in (
    ('b_32', 'B/32'), ('b_16', 'B/16'), ('l_14', 'L/14'))}),
  **_each(clip.encoder, clip_l_text=_tower('L/14', 'text', False),
          clip_l_text_projection=_tower('L/14', 'text', True),
          clip_h_text=_tower('H/14', 'text', False, layers=23),  # Stable Diffusion 2 leaves the last one out
          clip_bigg_text=_tower('bigG/14', 'text', True),
          clip_l_image=_tower('L/14', 'image', True), clip_h_image=_tower('H/14', 'image', True)),
  **_each(seq2seq.seq2seq, t5_base_encoder=lambda: t5.t5('base', decoder_layers=0),
          t5_xxl_encoder=lambda: t5.t5_1_1('xxl', decoder_layers=0)),
  **{name: Variant(name, *row) for name, row in gan_variants.ROWS.items()}}
