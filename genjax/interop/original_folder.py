"""Folders of `diffusers` that stand for an original file: small descriptions, and the tensors stay in the file."""

from collections.abc import Sequence
import dataclasses
import pathlib
import shutil
from typing import Any

from genjax.interop import files, original
from genjax.interop.entries import read_json
from genjax.interop.original import POINTER, Original
from genjax.types import UserError

# Of a folder of a tokenizer
TOKENIZER = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'vocab.json', 'merges.txt',
             'spiece.model')
_BETAS = {'beta_schedule': 'scaled_linear', 'beta_start': 0.00085, 'beta_end': 0.012, 'num_train_timesteps': 1000,
          'steps_offset': 1, 'clip_sample': False}
_EULER = {'_class_name': 'EulerDiscreteScheduler', **_BETAS, 'timestep_spacing': 'leading',
          'interpolation_type': 'linear', 'prediction_type': 'epsilon'}
_PNDM = {'_class_name': 'PNDMScheduler', **_BETAS, 'skip_prk_steps': True, 'set_alpha_to_one': False,
         'prediction_type': 'epsilon'}
_FLOW = {'_class_name': 'FlowMatchEulerDiscreteScheduler', 'num_train_timesteps': 1000}
_DDIM = {'_class_name': 'DDIMScheduler', **_BETAS, 'set_alpha_to_one': False, 'prediction_type': 'v_prediction'}
# Family -> the schedule of the published model
SCHEDULERS: dict[str, dict[str, Any]] = {
  'sd1': _PNDM, 'sd2': _PNDM, 'sdxl': _EULER, 'refiner': _EULER,
  'x4': {**_DDIM, 'beta_start': 0.0001, 'beta_end': 0.02}, 'sd3': {**_FLOW, 'shift': 3.0},
  'flux': {**_FLOW, 'shift': 3.0, 'use_dynamic_shifting': True, 'base_shift': 0.5, 'max_shift': 1.15,
           'base_image_seq_len': 256, 'max_image_seq_len': 4096}}
_PIPELINES = {'sd1': 'StableDiffusion', 'sd2': 'StableDiffusion', 'sdxl': 'StableDiffusionXL',
              'refiner': 'StableDiffusionXLImg2Img', 'x4': 'StableDiffusionUpscale', 'sd3': 'StableDiffusion3',
              'flux': 'Flux'}
# Family -> the text encoders that its pipeline needs
_TEXTS = {'sd1': ('text_encoder',), 'sd2': ('text_encoder',), 'x4': ('text_encoder',),
          'sdxl': ('text_encoder', 'text_encoder_2'), 'refiner': ('text_encoder_2',),
          'sd3': ('text_encoder', 'text_encoder_2'), 'flux': ('text_encoder', 'text_encoder_2')}
PREDICTIONS = ('epsilon', 'v_prediction')


@dataclasses.dataclass(frozen=True)
class Options:
  """What a file does not hold.

  Attributes:
    component: import this component alone, such as 'vae'; '' for the whole pipeline, or the only component.
    tokenizers: folders of the tokenizers, one for all text encoders or one for each.
    scheduler: a scheduler_config.json, or a folder that has one; None for that of the published model.
    prediction: what the network predicts, one of `PREDICTIONS`; '' for what the scheduler says.
    scaling: scale and shift of the latents; None for those of the published model.
    size: latents along a side; 0 for those of the published model.

  Raises:
    UserError: an unknown prediction, or a negative size.
  """

  component: str = ''
  tokenizers: Sequence[pathlib.Path] = ()
  scheduler: pathlib.Path | None = None
  prediction: str = ''
  scaling: tuple[float, float | None] | None = None
  size: int = 0

  def __post_init__(self):
    if self.prediction not in ('', *PREDICTIONS):
      raise UserError(f'--prediction must be one of {PREDICTIONS}, got {self.prediction!r}')
    if self.size < 0:
      raise UserError(f'--size must be a number of latents along a side, got {self.size}')


def write(folder: pathlib.Path, path: pathlib.Path, options: Options) -> list[str]:
  """Writes a folder that stands for a file, or for one of its components.

  Args:
    folder: an empty folder.
    path: the original file.
    options: what the file does not hold.

  Returns:
    What was assumed, in words.

  Raises:
    UserError: see `genjax.interop.original.open_file`; or something is needed that neither the file nor `options` has.
  """
  found = original.open_file(path, options.scaling, options.size)
  whole = is_pipeline(found)
  alone = options.component or (next(iter(found.components)) if len(found.components) == 1 else '')
  if options.component and options.component not in found.components:
    raise UserError(f'--component={options.component}: {path} has {", ".join(found.components)}')
  if alone:
    _component(folder, path, alone, found)
    told = [f'component {alone} of {path}, of the family {found.family or "unknown"}']
    return told + _scale(found, alone, options)
  if not whole:
    lacking = [name for name in ('vae', *_TEXTS.get(found.family, ())) if name not in found.components]
    raise UserError(f'{path} has {", ".join(found.components)}, and a pipeline of it lacks {", ".join(lacking)}; '
                    'import one of them by --component=NAME')
  return _pipeline(folder, path, found, options)


def is_pipeline(found: Original) -> bool:
  """Whether a file has all networks of a pipeline."""
  needed = {'vae', *_TEXTS.get(found.family, ())}
  return bool({'unet', 'transformer'} & set(found.components)) and needed <= set(found.components)


def _pipeline(folder: pathlib.Path, path: pathlib.Path, found: Original, options: Options) -> list[str]:
  schedule, told = _schedule(path, found, options)
  tokenizers = _tokenizers(path, found, options)
  if found.family == 'sd2' and schedule['prediction_type'] == 'v_prediction' and not options.size:
    found = original.open_file(path, options.scaling, 96)  # of images of 768 pixels
  channels = found.components['unet'].entries['in_channels'] if 'unet' in found.components else 0
  name = _PIPELINES[found.family] + {9: 'Inpaint', 8: 'InstructPix2Pix', 5: 'Depth2Img'}.get(channels, '')
  index: dict[str, Any] = {'_class_name': f'{name}Pipeline', 'scheduler': ['diffusers', schedule['_class_name']]}
  for component, held in found.components.items():
    (folder / component).mkdir()
    _component(folder / component, path, component, found)
    library = 'diffusers' if '_class_name' in held.entries else 'transformers'
    index[component] = [library, held.entries.get('_class_name') or held.entries['architectures'][0]]
  for tokenizer, source in tokenizers.items():
    index[tokenizer] = _copy(source, folder / tokenizer, found.family)
  if found.family in ('sdxl', 'refiner'):
    index |= {'force_zeros_for_empty_prompt': found.family == 'sdxl'}
  if found.family == 'refiner':
    index |= {'requires_aesthetics_score': True, 'text_encoder': [None, None], 'tokenizer': [None, None]}
  (folder / 'scheduler').mkdir()
  files.write_json(folder / 'scheduler' / 'scheduler_config.json', schedule)
  files.write_json(folder / 'model_index.json', index)
  return [f'{name} with {", ".join(found.components)}', *told, *_scale(found, 'vae', options)]


def _component(folder: pathlib.Path, path: pathlib.Path, name: str, found: Original) -> None:
  files.write_json(folder / 'config.json', found.components[name].entries)
  files.write_json(folder / POINTER, {'file': str(path.absolute()), 'component': name})


def _scale(found: Original, name: str, options: Options) -> list[str]:
  if name != 'vae' or options.scaling:
    return []
  entries = found.components[name].entries
  return [f'latents are scaled by {entries["scaling_factor"]}'
          + (f' after a shift by {entries["shift_factor"]}' if entries['shift_factor'] else '')
          + ', as in the published model; another scale is --scaling=SCALE or --scaling=SCALE,SHIFT']


def _schedule(path: pathlib.Path, found: Original, options: Options) -> tuple[dict[str, Any], list[str]]:
  """The entries of scheduler_config.json, and what was assumed."""
  told = []
  if options.scheduler is None:
    schedule = dict(SCHEDULERS[found.family])
    if found.family == 'flux' and not found.components['transformer'].entries['guidance_embeds']:
      schedule = {**_FLOW, 'shift': 1.0}  # schnell
    told.append(f'{schedule["_class_name"]}, as of the published model; another one is --scheduler=FILE')
  else:
    file = options.scheduler
    schedule = read_json(file / 'scheduler_config.json' if file.is_dir() else file, 'the schedule')
    if '_class_name' not in schedule:
      raise UserError(f'--scheduler={file} lacks _class_name, the name of the scheduler in diffusers')
  if schedule['_class_name'].startswith('FlowMatch'):
    if options.prediction:
      raise UserError(f'--prediction={options.prediction}: a {schedule["_class_name"]} predicts velocities; leave the '
                      'flag out')
    return schedule, told
  marked = 'v_prediction' if 'v_pred' in found.marks else ''
  prediction = options.prediction or marked
  if not prediction and found.family == 'sd2' and options.scheduler is None:
    raise UserError(f'{path}: no tensor tells what this Stable Diffusion 2 predicts: give --prediction=epsilon (its '
                    'base models, for images of 512 pixels) or --prediction=v_prediction (for 768 pixels)')
  schedule['prediction_type'] = prediction or schedule.get('prediction_type', 'epsilon')
  if marked:
    told.append('the file is marked as predicting v')
  if 'ztsnr' in found.marks:
    schedule['rescale_betas_zero_snr'] = True
    told.append('the file is marked as having a schedule that ends in noise alone (rescale_betas_zero_snr)')
  return schedule, told


def _tokenizers(path: pathlib.Path, found: Original, options: Options) -> dict[str, pathlib.Path]:
  """Name of a tokenizer -> the folder that was given for it."""
  texts = [name for name in found.components if name.startswith('text_encoder')]
  given = list(options.tokenizers)
  if len(given) == 1:  # one for all CLIPs
    given *= len([text for text in texts if text != 'text_encoder_3'])
  if len(given) != len(texts):
    raise UserError(f'{path} has {len(texts)} text encoders ({", ".join(texts)}) and no tokenizer: give --tokenizer='
                    'FOLDER, with tokenizer.json or with vocab.json and merges.txt, or FOLDERs joined by commas, one '
                    f'for each; got {len(options.tokenizers)}')
  if lacking := [folder for folder in given if not any((folder / name).is_file() for name in TOKENIZER)]:
    raise UserError(f'--tokenizer={lacking[0]} has none of {", ".join(TOKENIZER)}')
  return {text.replace('text_encoder', 'tokenizer'): folder for text, folder in zip(texts, given)}


def _copy(source: pathlib.Path, folder: pathlib.Path, family: str) -> list[str]:
  """Copies a tokenizer; returns its library and class."""
  folder.mkdir()
  for name in TOKENIZER:
    if (source / name).is_file():
      shutil.copy(source / name, folder / name)
  # All but OpenAI's own CLIP pad texts with the first token.
  if family == 'sd2' or folder.name == 'tokenizer_2' and family != 'flux':
    _pad(folder, '!')
  return ['transformers', 'T5TokenizerFast' if folder.name == 'tokenizer_3' else 'CLIPTokenizer']


def _pad(folder: pathlib.Path, token: str) -> None:
  for name in ('tokenizer_config.json', 'special_tokens_map.json'):
    known = read_json(folder / name, 'a part of the tokenizer') if (folder / name).is_file() else {}
    files.write_json(folder / name, {**known, 'pad_token': token})


def recognised(source: pathlib.Path) -> bool:
  """Whether a file is an original, and not the file of a folder with a config.json."""
  if not source.is_file() or source.suffix != '.safetensors':
    return False
  stems = tuple(stem for stem, _ in files.LAYOUTS.values())
  beside = (source.parent / 'config.json').is_file() and source.name.startswith(stems)
  return not beside and (original.recognises(source) or not (source.parent / 'config.json').is_file())


