"""Names of low-rank adapters of image models in the files of `diffusers`, PEFT and kohya.

    unet.down_blocks.0.attentions.0...attn1.to_q.lora_A.weight        diffusers and PEFT ('transformer.' for an MM-DiT)
    unet.down_blocks.0...attn1.processor.to_q_lora.down.weight         diffusers before PEFT
    lora_unet_down_blocks_0...attn1_to_q.lora_down.weight, .alpha      kohya, by the names of diffusers
    lora_unet_input_blocks_4_1...attn1_to_q.lora_down.weight, .alpha   kohya, by the original names (SDXL, Flux, SD3)
    diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight         by the original names

A scale is alpha / rank where a file has alphas, and 1 where it has none.
"""

from collections.abc import Callable, Iterable, Mapping
import json
import math
import re
from typing import Any, NamedTuple

import numpy as np

from genjax.interop import original_names
from genjax.interop.original_names import SWAPPED, Found, Names
from genjax.interop.pipelines import TEXTS
from genjax.types import UserError, listed, strict_json

METADATA = 'lora_adapter_metadata'  # entry of the header of a file of `diffusers`
KOHYA = 'lora_unet_'
_OTHERS = {'text_encoder.': TEXTS[0], 'lora_te_': TEXTS[0], 'lora_te1_': TEXTS[0], 'text_encoder_2.': TEXTS[1],
           'lora_te2_': TEXTS[1], 'text_encoder_3.': TEXTS[2], 'lora_te3_': TEXTS[2]}
# Suffix of a name -> what it is
_PARTS = {'lora_A.weight': 'A', 'lora_B.weight': 'B', 'lora_A.default.weight': 'A', 'lora_B.default.weight': 'B',
          'lora_down.weight': 'A', 'lora_up.weight': 'B', 'lora.down.weight': 'A', 'lora.up.weight': 'B',
          'alpha': 'alpha'}
_PROCESSOR = re.compile(r'(?P<module>.*)\.processor\.(?P<name>to_[qkv]|to_out)_lora\.(?P<way>down|up)\.weight')
_FOREIGN = {'dora_scale': 'DoRA', 'lora_magnitude_vector': 'DoRA', 'lora_mid': 'LoCon in three factors',
            'hada_': 'LoHa', 'lokr_': 'LoKr', '.diff': 'differences of whole weights', 'oft_': 'OFT', 'lora_B.bias':
              'trained biases'}
# Entries of the metadata that are read, and those without effect on what an adapter computes
_READ = ('r', 'lora_alpha', 'rank_pattern', 'alpha_pattern', 'use_rslora', 'bias', 'peft_type', 'lora_dropout',
         'target_modules', 'exclude_modules', 'init_lora_weights')
_WITHOUT_EFFECT = ('auto_mapping', 'base_model_name_or_path', 'fan_in_fan_out', 'inference_mode', 'layers_pattern',
                   'layers_to_transform', 'loftq_config', 'eva_config', 'megatron_core', 'peft_version',
                   'qalora_group_size', 'revision', 'task_type', 'corda_config', 'arrow_config')


class Low(NamedTuple):
  """A module's adapter as torch has it: scale B A. a: R I, with height and width for a convolution. b: O R, likewise.
  scale: the factor."""

  a: np.ndarray
  b: np.ndarray
  scale: float


class Scales(NamedTuple):
  """What a header or adapter_config.json says of alphas. entries: its entries, without prefix; {} if it says none."""

  entries: Mapping[str, Any]

  def of(self, module: str, rank: int, alpha: float | None) -> float:
    """The scale of a module: of its own alpha in the file, else of the entries, else 1."""
    if alpha is None and 'lora_alpha' not in self.entries:
      return 1.0
    if alpha is None:
      alpha = float(_by_pattern(self.entries.get('alpha_pattern') or {}, module, self.entries['lora_alpha']))
    return alpha / (math.sqrt(rank) if self.entries.get('use_rslora') else rank)


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
  """PEFT's rule: a key is a regular expression of the end of a module's name, from a dot on."""
  return next((value for key, value in patterns.items() if re.match(rf'(.*\.)?({key})$', module)), default)


def scales(header: Mapping[str, str], prefix: str, where: str) -> Scales:
  """What the header of a file says of alphas.

  Args:
    header: the metadata of the file.
    prefix: of the component's entries, such as 'unet.'; '' for none.
    where: the file, for messages.

  Raises:
    UserError: it is no JSON, or has an option that changes what adapters compute.
  """
  try:
    told = json.loads(header.get(METADATA) or '{}')
  except ValueError as error:
    raise UserError(f'{where}: {METADATA} in its header cannot be read as JSON: {error}') from error
  return checked({name.removeprefix(prefix): value for name, value in told.items() if name.startswith(prefix)}, where)


def checked(entries: Mapping[str, Any], where: str) -> Scales:
  """`Scales` of entries that are all understood.

  Raises:
    UserError: an option changes what adapters compute.
  """
  foreign = {name: value for name, value in entries.items() if value and name not in (*_READ, *_WITHOUT_EFFECT)}
  foreign |= {name: entries[name] for name, value in (('bias', 'none'), ('peft_type', 'LORA'))
              if entries.get(name) not in (None, value)}
  if foreign:
    raise UserError(f'{where} has options of adapters that genjax does not support: '
                    + ', '.join(f'{name}={value!r}' for name, value in sorted(foreign.items())))
  return Scales(entries)


def component(name: str) -> tuple[str, str, str]:
  """Which component a tensor belongs to ('' for the denoiser), the prefix of its name, and the rest.

  The denoiser is called unet or transformer, and both 'lora_unet' by kohya.
  """
  for prefix, other in _OTHERS.items():
    if name.startswith(prefix):
      return other, prefix, name.removeprefix(prefix)
  prefix = next((prefix for prefix in ('unet.', 'transformer.', 'base_model.model.', 'diffusion_model.', KOHYA,
                                       'lora_transformer_') if name.startswith(prefix)), '')
  return '', prefix, name.removeprefix(prefix)


def _split(name: str) -> tuple[str, str] | None:
  """Module and part of a name without its prefix; None for another one."""
  if match := _PROCESSOR.fullmatch(name):
    inner = 'to_out.0' if match['name'] == 'to_out' else match['name']
    return f'{match["module"]}.{inner}', {'down': 'A', 'up': 'B'}[match['way']]
  return next(((name[:-len(suffix) - 1], part) for suffix, part in _PARTS.items() if name.endswith(f'.{suffix}')), None)


def read(tensors: Mapping[str, np.ndarray], modules: Iterable[str], names: Names, told: Callable[[str], Scales],
         where: str) -> dict[str, Low]:
  """The adapters of a denoiser, by the names that its modules have in `diffusers`.

  Args:
    tensors: name in the file -> tensor, of the denoiser alone.
    modules: its modules that can have an adapter.
    names: its table of original names.
    told: prefix of names -> what the file says of their alphas.
    where: the file, for messages.

  Raises:
    UserError: a tensor has no place, or an adapter lacks a part. The message names all.
  """
  places = _places(tuple(modules), names)
  found: dict[tuple[str, str], dict[str, Any]] = {}
  unread = []
  for name, tensor in tensors.items():
    _, prefix, rest = component(name)
    split = _split(rest)
    if split is None or split[0] not in places:
      unread.append(name)
    else:
      found.setdefault((prefix, split[0]), {})[split[1]] = tensor
  lacking = [f'{prefix}{module}' for (prefix, module), parts in found.items() if not {'A', 'B'} <= set(parts)]
  if unread or lacking or not found:
    kinds = sorted({kind for mark, kind in _FOREIGN.items() if any(mark in name for name in unread)})
    raise UserError(
      f'{where}: ' + '; '.join([
        *([f'{len(unread)} tensors have no place in the base: {listed(sorted(unread))}'] if unread else []),
        *([f'they are of {" and ".join(kinds)}, which genjax does not read'] if kinds else []),
        *([f'A or B is missing for {listed(lacking)}'] if lacking else []),
        *([] if unread or found else ['it has no adapters of the denoiser'])]))
  damaged = [f'{prefix}{module} ({problem})' for (prefix, module), parts in found.items()
             if (problem := _damage(parts))]
  if damaged:
    raise UserError(f'{where}: {len(damaged)} adapters are damaged: {listed(damaged)}; get the file again, or train '
                    'the adapters anew')
  lows: dict[str, Low] = {}
  for (prefix, module), parts in found.items():
    scale = told(prefix).of(module, len(parts['A']), float(parts['alpha'].reshape(())) if 'alpha' in parts else None)
    for place in places[module]:
      if place.name in lows:
        raise UserError(f'{where}: there are two adapters of {place.name}')
      lows[place.name] = Low(parts['A'], _rows(parts['B'], place), scale)
  return lows


def _damage(parts: Mapping[str, np.ndarray]) -> str:
  """What is wrong with the tensors of a module, whichever its sizes; '' if nothing is."""
  if any(parts[part].ndim < 2 or not parts[part].size for part in 'AB'):
    return f'A {parts["A"].shape} and B {parts["B"].shape} must be matrices or kernels of a rank of at least 1'
  if 'alpha' in parts and (parts['alpha'].size != 1 or not parts['alpha'].any()):
    return f'alpha must be one number other than 0, got {parts["alpha"].tolist()}'
  return '' if all(np.isfinite(tensor).all() for tensor in parts.values()) else 'it has NaN or infinity'


def _places(modules: tuple[str, ...], names: Names) -> dict[str, list[Found]]:
  """Module in a file, with dots or underscores -> what it adapts."""
  places: dict[str, list[Found]] = {module: [Found(module, 0, 1, 1, '')] for module in modules}
  for original, parts in originals(modules, names).items():
    places.setdefault(original, parts)
  return {**places, **{module.replace('.', '_'): parts for module, parts in places.items()}}


def originals(modules: Iterable[str], names: Names) -> dict[str, list[Found]]:
  """Module of the original -> its modules in `diffusers` that are among `modules`."""
  found: dict[str, list[Found]] = {}
  for module in modules:
    for original, part in names.originals(module):
      parts = found.setdefault(original, [])
      if all(part.name != other.name for other in parts):  # the first row of a name counts
        parts.append(part)
  return found


def _rows(b: np.ndarray, place: Found) -> np.ndarray:
  """The rows of B that adapt one of several fused modules."""
  b = b[place.rows(len(b))]
  return np.roll(b, len(b) // 2, axis=0) if place.form == SWAPPED else b


def of_diffusers(lows: Mapping[str, Low], prefix: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """The tensors of a file of `diffusers`, and its header.

  Args:
    lows: module -> adapter.
    prefix: 'unet.' or 'transformer.'.
  """
  tensors = {f'{prefix}{module}.lora_{part}.weight': array for module, low in lows.items()
             for part, array in (('A', low.a), ('B', low.b))}
  ranks = {module: len(low.a) for module, low in lows.items()}
  alphas = {module: low.scale * ranks[module] for module, low in lows.items()}
  rank, alpha = (max(set(values.values()), key=list(values.values()).count) for values in (ranks, alphas))
  told = {'r': rank, 'lora_alpha': _whole(alpha), 'target_modules': sorted(lows),
          'rank_pattern': {f'^{re.escape(name)}': own for name, own in ranks.items() if own != rank},
          'alpha_pattern': {f'^{re.escape(name)}': _whole(own) for name, own in alphas.items() if own != alpha}}
  return tensors, {METADATA: strict_json({f'{prefix}{name}': told[name] for name in sorted(told)})}


def of_kohya(lows: Mapping[str, Low], names: Names | None) -> dict[str, np.ndarray]:
  """The tensors of a file of kohya.

  Args:
    lows: module -> adapter.
    names: the table of original names, by which modules are called, so that adapters of fused modules are joined; None
      for the names of `diffusers`.
  """
  if names is None:
    joined = dict(lows)
  else:
    known = originals(lows, names)
    chosen = {part.name: original for original, parts in reversed(known.items()) for part in parts}
    if lost := sorted(set(lows) - set(chosen)):
      raise UserError(f'the original layout has no modules for {listed(lost)}; write the file of diffusers')
    joined = {original: _fused([(part, lows[part.name]) for part in known[original]]) for original in dict.fromkeys(
      chosen.values())}
  tensors: dict[str, np.ndarray] = {}
  for module, low in joined.items():
    key = KOHYA + module.replace('.', '_')
    tensors |= {f'{key}.lora_down.weight': low.a, f'{key}.lora_up.weight': low.b,
                f'{key}.alpha': np.asarray(low.scale * len(low.a), np.float32)}
  return tensors


def _fused(parts: list[tuple[Found, Low]]) -> Low:
  """One adapter for modules that the original has fused: their A below one another, and their B in blocks."""
  place, first = parts[0]
  if place.whole == 1:
    return first._replace(b=_rows(first.b, place))
  if len({low.scale for _, low in parts}) > 1:
    raise UserError(f'adapters of {[part.name for part, _ in parts]} have different scales, and the original layout '
                    'has one module for them; write the file of diffusers')
  same = all(np.array_equal(low.a, first.a) for _, low in parts)
  count = len(first.b) * place.whole // (place.stop - place.start)
  a = first.a if same else np.concatenate([low.a for _, low in parts])
  b = np.zeros((count, len(a)), first.b.dtype)
  offset = 0
  for part, low in parts:
    b[part.rows(count), offset:offset + len(low.a)] = low.b
    offset += 0 if same else len(low.a)
  return Low(a, b, first.scale)


def _whole(number: float) -> float:
  return int(number) if number == int(number) else number


def names_of(architecture: str, config: Any) -> Names:
  """The table of original names of a denoiser; an empty one if it has no original layout."""
  if architecture == 'UNet2DConditionModel':
    return original_names.unet(tuple(map(bool, config.depths)), config.blocks)
  if architecture == 'SD3Transformer2DModel':
    return original_names.stable_diffusion_3(config.layers)
  return original_names.FLUX if architecture == 'FluxTransformer2DModel' else Names(())
