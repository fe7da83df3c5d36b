"""Pipelines with the U-Net of latent diffusion: Stable Diffusion 1 and 2, SDXL, and their kin that see a picture."""

from collections.abc import Callable
from typing import Any

from genjax import config as config_lib
from genjax import interop
from genjax.experiments.pipeline_interface import AUTOENCODER, Family, Found, Sections
from genjax.types import UserError

DROPOUT = 0.1  # of the text, as these models were trained
# steps and guidance by which `diffusers` samples them
SD, XL, EDIT = dict(steps=50, guidance=7.5), dict(steps=50, guidance=5.0), dict(steps=100)
AESTHETIC, POOR = 6.0, 2.5  # scores that the refiner is told of a picture, and in the place of nothing
SIZES = ('original_size', 'crop_offset')  # columns with heights and widths, tops and lefts: the numbers of SDXL


def stable_diffusion(found: Found) -> Sections:
  """Stable Diffusion 1 and 2: the tokens of one CLIP; the empty text stands for none."""
  return Sections({'text': _text(found, 'one')}, SD)


def xl(found: Found) -> Sections:
  """SDXL and its refiner: the last two of CLIP-L and CLIP-bigG, and six or five numbers (Podell et al. 2023)."""
  zeros = bool(found.pipeline.source.get('force_zeros_for_empty_prompt', True))
  return Sections({'text': {**_text(found, 'sdxl'), 'zeros': zeros}, 'size': numbers(found)}, XL)


def numbers(found: Found) -> dict[str, Any]:
  """Height and width before resizing, top and left of the crop, and the height and width that are asked for; or, of a
  refiner, a score of beauty in their place, which is lower where guidance leads away from."""
  height, width = found.shape[:2]
  options, pipeline = found.options, found.pipeline
  last = pipeline.texts[-1]
  pooled = interop.describe(pipeline.path(last), pipeline.variant_of(last)).config.width
  # config.json of the U-Net tells the channels of the vector and of all numbers together
  count, rest = divmod(options.vector_width + options.numbers * options.number_features - pooled,
                       options.number_features)
  if rest or count not in (5, 6):
    raise UserError(f'{pipeline.folder}: the U-Net of a {pipeline.kind} reads six numbers, or five of a refiner, of '
                    f'{options.number_features} features each beside the {pooled} channels of {last}; its '
                    f'projection_class_embeddings_input_dim leaves {count + rest / options.number_features:g}')
  if count == 6:
    return dict(kind='numbers', column=(*SIZES, 'target_size'), count=6, dropout=0.0,
                default=(f'{height},{width},0,0,{height},{width}',))
  return dict(kind='numbers', column=(*SIZES, 'score'), count=5, dropout=DROPOUT,
              default=(f'{height},{width},0,0,{AESTHETIC}',), absent=(float(height), float(width), 0.0, 0.0, POOR))


def inpainting(of: Callable[[Found], Sections]) -> Callable[[Found], Sections]:
  """A family whose U-Net also sees the mask of the holes and the rest of the picture: nine channels."""

  def sections(found: Found) -> Sections:
    base = of(found)
    if not found.options.image_channels:
      raise UserError(f'{found.pipeline.folder}: the U-Net of this {found.pipeline.kind} reads latents alone, and '
                      'fills holes by what is put back in each step, which genjax does not do; name the same pipeline '
                      'as a StableDiffusionPipeline or StableDiffusionXLPipeline in its model_index.json')
    hole = dict(kind='inpainting', column='image', mask='mask', part=AUTOENCODER, dropout=0.0)
    return Sections({**base.conditions, 'hole': hole}, base.sampler)

  return sections


def instructions(of: Callable[[Found], Sections], scales: dict[str, float]) -> Callable[[Found], Sections]:
  """A family whose U-Net also sees the picture to change, with a scale of guidance for it (Brooks et al. 2023)."""

  def sections(found: Found) -> Sections:
    base = of(found)
    before = dict(kind='latent', column='source', part=AUTOENCODER, dropout=0.05)
    return Sections({**base.conditions, 'before': before}, {**EDIT, 'guidances': scales})

  return sections


def depth(found: Found) -> Sections:
  """Stable Diffusion 2 with the depth of each pixel beside the latent: white is near."""
  seen = dict(kind='image', column='depth', channels=1, dropout=0.0)
  return Sections({**stable_diffusion(found).conditions, 'depth': seen}, SD)


def _text(found: Found, join: str) -> dict[str, Any]:
  return dict(kind='prompt', join=join, parts=found.pipeline.texts, dropout=DROPOUT)


def _told(*kinds: str, join: str) -> Callable[[Any], bool]:
  """Whether the conditions of a run are of these kinds, and its text encoders joined so."""

  def fits(config: Any) -> bool:
    given = config_lib.plain(config.get('conditions') or {}).values()
    joins = [options.get('join', 'one') for options in given if options['kind'] in ('prompt', 'text')]
    told = sorted('prompt' if options['kind'] == 'text' and options.get('part') else options['kind']
                  for options in given)
    return told == sorted((*kinds, 'prompt')) and joins == [join]

  return fits


def _unet(sections: Callable[[Found], Sections], *kinds: str, join: str = 'one', **settings: Any) -> Family:
  return Family('unet', 'UNet2DConditionModel', 'latent_unet', sections, _told(*kinds, join=join),
                {'feature_extractor': [None, None], **settings})


_SAFETY = dict(safety_checker=[None, None], image_encoder=[None, None], requires_safety_checker=False)
_XL = dict(image_encoder=[None, None], force_zeros_for_empty_prompt=True)
FAMILIES = {
  'StableDiffusionPipeline': _unet(stable_diffusion, **_SAFETY),
  'StableDiffusionImg2ImgPipeline': _unet(stable_diffusion, **_SAFETY),
  'StableDiffusionInpaintPipeline': _unet(inpainting(stable_diffusion), 'inpainting', **_SAFETY),
  'StableDiffusionInstructPix2PixPipeline': _unet(
    instructions(stable_diffusion, {'before': 1.5, 'text': 7.5}), 'latent', **_SAFETY),
  'StableDiffusionDepth2ImgPipeline': _unet(depth, 'image', depth_estimator=[None, None]),
  'StableDiffusionXLPipeline': _unet(xl, 'numbers', join='sdxl', **_XL),
  'StableDiffusionXLImg2ImgPipeline': _unet(xl, 'numbers', join='sdxl', requires_aesthetics_score=True, **_XL),
  'StableDiffusionXLInpaintPipeline': _unet(inpainting(xl), 'inpainting', 'numbers', join='sdxl', **_XL),
}
