"""Pipelines with a transformer: DiT, PixArt, Stable Diffusion 3 and Flux."""

from typing import Any

from genjax.experiments.pipeline_interface import Family, Found, Sections

DROPOUT = 0.1  # of the text, as these models were trained
FLUX_GUIDANCE = 3.5  # which Flux dev is told
# Steps and guidance by which `diffusers`, or who published the model, samples it
DIT, PIXART, SD3 = (dict(steps=steps, guidance=scale) for steps, scale in ((50, 4.0), (20, 4.5), (28, 7.0)))
FLUX_STEPS = {True: 28, False: 4}  # of Flux dev, which is told the scale of guidance, and of schnell


def dit(found: Found) -> Sections:
  """DiT: a class; the number of classes stands for none."""
  classes = dict(kind='classes', num_classes=found.options.num_classes, dropout=DROPOUT)
  return Sections({'label': classes}, DIT)


def _pixart(tokens: int) -> Any:
  """PixArt with that many tokens of T5. The network of PixArt-alpha at 1024 pixels is told the size of the picture."""

  def sections(found: Found) -> Sections:
    height, width = found.shape[:2]
    size = dict(kind='numbers', column=('height', 'width', 'aspect'), dropout=0.0,
                default=(f'{height},{width},{height / width!r}',))
    text = _text(found, 'pixart', lengths=(tokens,))
    return Sections({'text': text, **({'size': size} if found.options.numbers else {})}, PIXART)

  return sections


def stable_diffusion_3(found: Found) -> Sections:
  """Stable Diffusion 3 and 3.5: two CLIPs and T5, which may be left out; zeros stand in its place then."""
  return Sections({'text': _text(found, 'sd3', join_options=dict(width=found.options.token_width))}, SD3)


def flux(found: Found) -> Sections:
  """Flux: T5, and the vector of CLIP. Guidance by a second prompt is config.sampler.guidance; dev is told another."""
  told = {'guidance': dict(kind='guidance', scale=FLUX_GUIDANCE)} if found.options.guidance else {}
  return Sections({'text': _text(found, 'flux'), **told},
                  dict(steps=FLUX_STEPS[found.options.guidance], guidance=1.0))


def _text(found: Found, join: str, **more: Any) -> dict[str, Any]:
  return dict(kind='prompt', join=join, parts=found.pipeline.texts, dropout=DROPOUT, **more)


def _told(join: str, *others: str) -> Any:
  """Whether a run's conditions are a prompt in such a join, and perhaps one of each of other kinds."""

  def fits(config: Any) -> bool:
    given = list((config.get('conditions') or {}).values())
    kinds = [options.get('kind') for options in given]
    joins = [options.get('join', 'one') for options in given if options.get('kind') == 'prompt']
    return joins == [join] and set(kinds) <= {'prompt', *others} and len(kinds) == len(set(kinds))

  return fits


def _of_tokens(most: int) -> Any:
  """Whether a run of PixArt reads at most that many tokens, and is Sigma where it reads more than alpha."""
  told = _told('pixart', 'numbers')

  def fits(config: Any) -> bool:
    lengths = [options.get('lengths') or (most,) for options in (config.get('conditions') or {}).values()
               if options.get('kind') == 'prompt']
    return told(config) and lengths[0][0] <= most

  return fits


def _transformer(architecture: str, model: str, sections: Any, **more: Any) -> Family:
  return Family('transformer', architecture, model, sections, **more)


ALPHA_TOKENS, SIGMA_TOKENS = 120, 300
_ADAPTERS = dict(image_encoder=[None, None], feature_extractor=[None, None])
FAMILIES = {
  'DiTPipeline': _transformer('DiTTransformer2DModel', 'dit', dit),
  'PixArtAlphaPipeline': _transformer('PixArtTransformer2DModel', 'pixart', _pixart(ALPHA_TOKENS),
                                      fits=_of_tokens(ALPHA_TOKENS)),
  'PixArtSigmaPipeline': _transformer('PixArtTransformer2DModel', 'pixart', _pixart(SIGMA_TOKENS),
                                      fits=_of_tokens(SIGMA_TOKENS)),
  'StableDiffusion3Pipeline': _transformer('SD3Transformer2DModel', 'mmdit', stable_diffusion_3, fits=_told('sd3'),
                                           settings=_ADAPTERS),
  'FluxPipeline': _transformer('FluxTransformer2DModel', 'mmdit', flux, fits=_told('flux', 'guidance'),
                               settings=_ADAPTERS)}
