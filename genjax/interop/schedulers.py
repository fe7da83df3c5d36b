"""scheduler_config.json of `diffusers` and the sections of a config: process, parameterization and sampler."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from genjax.types import UserError, listed

VERSION = '0.42.1'  # of diffusers, whose defaults these are

_BETAS = {'num_train_timesteps': 1000, 'beta_start': 1e-4, 'beta_end': 0.02, 'beta_schedule': 'linear',
          'trained_betas': None, 'prediction_type': 'epsilon'}
_LATENT = {**_BETAS, 'beta_start': 0.00085, 'beta_end': 0.012}
_TIMES = {'timestep_spacing': 'leading', 'steps_offset': 0}
_ZERO_SNR = {'rescale_betas_zero_snr': False}
_CLIP = {'clip_sample': True, 'clip_sample_range': 1.0}
_THRESHOLD = {'thresholding': False, 'dynamic_thresholding_ratio': 0.995, 'sample_max_value': 1.0}
_SIGMAS = {'use_karras_sigmas': False, 'use_exponential_sigmas': False, 'use_beta_sigmas': False}
_LEVELS = {**_SIGMAS, 'timestep_spacing': 'linspace', 'steps_offset': 0}
_FLOW = {'use_flow_sigmas': False, 'flow_shift': 1.0, 'use_dynamic_shifting': False, 'time_shift_type': 'exponential'}
_SOLVER = {**_BETAS, **_SIGMAS, **_THRESHOLD, **_FLOW, 'solver_order': 2, 'solver_type': 'midpoint'}
_DPM = {**_SOLVER, 'final_sigmas_type': 'zero', 'algorithm_type': 'dpmsolver++',
        'lambda_min_clipped': float('-inf'), 'variance_type': None}
_FEW = {**_LATENT, **_THRESHOLD, **_ZERO_SNR, **_CLIP, 'clip_sample': False, 'beta_schedule': 'scaled_linear',
        'original_inference_steps': 50, 'set_alpha_to_one': True, 'timestep_scaling': 10.0, **_TIMES}


@dataclasses.dataclass(frozen=True)
class Scheduler:
  """A class of `diffusers`.

  Attributes:
    sampler: name of the sampler, see `genjax.diffusion.samplers.SAMPLERS`.
    steps: usual number of steps; the file tells none.
    defaults: every key of the class, with its default.
    idle: keys without effect here: their values are not read.
  """

  sampler: str
  steps: int
  defaults: Mapping[str, Any]
  idle: tuple[str, ...] = ()


# Class of diffusers -> what it is here
SCHEDULERS: dict[str, Scheduler] = {
  'DDPMScheduler': Scheduler('ddpm', 1000, {
    **_BETAS, **_CLIP, **_THRESHOLD, **_TIMES, **_ZERO_SNR, 'variance_type': 'fixed_small'}),
  'DDIMScheduler': Scheduler('ddim', 50, {
    **_BETAS, **_CLIP, **_THRESHOLD, **_TIMES, **_ZERO_SNR, 'set_alpha_to_one': True}),
  'PNDMScheduler': Scheduler('pndm', 50, {**_BETAS, **_TIMES, 'set_alpha_to_one': False, 'skip_prk_steps': False}),
  'EulerDiscreteScheduler': Scheduler('euler_discrete', 50, {
    **_BETAS, **_LEVELS, **_ZERO_SNR, 'final_sigmas_type': 'zero', 'interpolation_type': 'linear', 'sigma_min': None,
    'sigma_max': None, 'timestep_type': 'discrete'}),
  'EulerAncestralDiscreteScheduler': Scheduler('euler_ancestral', 50, {
    **_BETAS, **_ZERO_SNR, 'timestep_spacing': 'linspace', 'steps_offset': 0}),
  'HeunDiscreteScheduler': Scheduler('heun_discrete', 25, {**_LATENT, **_LEVELS, **_CLIP, 'clip_sample': False}),
  'DPMSolverMultistepScheduler': Scheduler('dpmpp_2m', 20, {
    **_DPM, **_LEVELS, **_ZERO_SNR, 'lower_order_final': True, 'euler_at_final': False, 'use_lu_lambdas': False}),
  'DPMSolverSinglestepScheduler': Scheduler('dpmpp_2s', 20, {**_DPM, 'lower_order_final': False}, (
    'lower_order_final',)),
  'DPMSolverSDEScheduler': Scheduler('dpmpp_sde', 25, {**_LATENT, **_LEVELS, 'noise_sampler_seed': None}, (
    'noise_sampler_seed',)),
  'UniPCMultistepScheduler': Scheduler('unipc', 20, {
    **_SOLVER, **_LEVELS, **_ZERO_SNR, 'solver_type': 'bh2', 'final_sigmas_type': 'zero', 'predict_x0': True,
    'disable_corrector': [], 'solver_p': None, 'lower_order_final': True, 'sigma_min': None, 'sigma_max': None,
    'shift_terminal': None}),
  'DEISMultistepScheduler': Scheduler('deis', 20, {
    **_SOLVER, **_LEVELS, 'solver_type': 'logrho', 'algorithm_type': 'deis', 'lower_order_final': True}),
  'LMSDiscreteScheduler': Scheduler('lms', 50, {**_BETAS, **_LEVELS}),
  'KDPM2DiscreteScheduler': Scheduler('dpm2', 25, {**_LATENT, **_LEVELS}),
  'KDPM2AncestralDiscreteScheduler': Scheduler('dpm2_ancestral', 25, {**_LATENT, **_LEVELS}),
  'LCMScheduler': Scheduler('lcm', 4, _FEW, ('set_alpha_to_one', 'timestep_spacing', 'steps_offset')),
  'TCDScheduler': Scheduler('tcd', 4, _FEW, (
    'set_alpha_to_one', 'timestep_spacing', 'steps_offset', 'timestep_scaling', 'clip_sample', 'clip_sample_range',
    *_THRESHOLD)),
  'FlowMatchEulerDiscreteScheduler': Scheduler('flow_euler', 28, {
    **_SIGMAS, 'num_train_timesteps': 1000, 'shift': 1.0, 'use_dynamic_shifting': False, 'base_shift': 0.5,
    'max_shift': 1.15, 'base_image_seq_len': 256, 'max_image_seq_len': 4096, 'invert_sigmas': False,
    'shift_terminal': None, 'time_shift_type': 'exponential', 'stochastic_sampling': False})}

_PREDICTIONS = {'epsilon': 'epsilon', 'v_prediction': 'v', 'sample': 'x0', 'flow_prediction': 'velocity'}
_PROCESSES = {'linear': 'vp_linear', 'scaled_linear': 'vp_scaled_linear', 'squaredcos_cap_v2': 'vp_cosine',
              'sigmoid': 'vp_sigmoid'}
_VARIANCES = {'fixed_small': 'small', 'fixed_small_log': 'small', 'fixed_large': 'large', 'learned_range': 'learned'}
_SPACED = {'use_karras_sigmas': 'karras', 'use_exponential_sigmas': 'exponential', 'use_beta_sigmas': 'beta',
           'use_lu_lambdas': 'lu'}
_ELSEWHERE = {  # keys that files have beside those of the classes above
  'algorithm_type', 'eta', 'num_inference_steps', 'tensor_format',
  *(key for row in SCHEDULERS.values() for key in row.defaults)}
_HARMLESS = {'predict_epsilon': True}  # keys of old files with the value that changes nothing; of others false does


def _fits(value: Any, default: Any, key: str) -> bool:
  """Whether a value has the kind of its default; a text such as 'false' would count as true."""
  if key == 'trained_betas':
    return isinstance(value, (list, tuple)) and all(_is_number(beta) for beta in value)
  if isinstance(default, bool):
    return isinstance(value, bool)
  if isinstance(default, (int, float)):
    return _is_number(value) or value == default  # the usual lambda_min_clipped is infinite
  return True


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class _Keys:
  """The keys of a file, which are taken one after the other."""

  def __init__(self, values: Mapping[str, Any], where: str):
    self.where, name = where, values.get('_class_name')
    if not isinstance(name, str) or name not in SCHEDULERS:
      raise UserError(f'{where}: _class_name is {name!r}; genjax reads {sorted(SCHEDULERS)}')
    self.name, self.row = name, SCHEDULERS[name]
    given = {key: value for key, value in values.items() if not key.startswith('_')}
    unknown = sorted(key for key, value in given.items() if not (
      key in _ELSEWHERE or value is None or value == _HARMLESS.get(key, False)))
    if unknown:
      raise UserError(f'{where}: genjax does not know {listed(unknown)}')
    own = {key: value for key, value in given.items() if key in self.row.defaults and value is not None}
    if wrong := [key for key, value in own.items() if not _fits(value, self.row.defaults[key], key)]:
      told = ', '.join(f'{key}={own[key]!r}' for key in wrong)
      raise UserError(f'{where}: expected true or false for switches, finite numbers, and a list of numbers for '
                      f'trained_betas, got {told}; take the file of the published pipeline')
    self.values = {**self.row.defaults, **own}
    for key in self.row.idle:
      del self.values[key]

  def take(self, key: str, default: Any = None) -> Any:
    """The value of a key; `default` for a class without it."""
    return self.values.pop(key, default)

  def choose(self, key: str, known: Mapping[str, Any]) -> Any:
    """What `known` has for the value of a key."""
    value = self.take(key)
    if not isinstance(value, str) or value not in known:
      raise UserError(f'{self.where}: {key} is {value!r}; genjax reads {sorted(known)}')
    return known[value]

  def finish(self) -> None:
    """Refuses what is left and changes what the scheduler does."""
    wrong = {key: value for key, value in self.values.items() if value != self.row.defaults[key]}
    if wrong:
      told = ', '.join(f'{key}={value!r} (it reads {self.row.defaults[key]!r})' for key, value in wrong.items())
      raise UserError(f'{self.where}: genjax has no {self.name} with {told}')


def read(values: Mapping[str, Any], where: str, pipeline: str = '') -> dict[str, dict[str, Any]]:
  """The sections of a config for a scheduler_config.json.

  Args:
    values: the object in the file.
    where: its name in messages.
    pipeline: class of the pipeline, `_class_name` of model_index.json. Many pipelines of flows, Flux's among them, list
      times of their own, evenly from 1 to 1 / steps; a scheduler alone, as in SD3's, lists others.

  Returns:
    'process', 'parameterization' and 'sampler': options with their names.

  Raises:
    UserError: an unknown class, or a key with a value that changes what the scheduler does and has no counterpart.
  """
  keys = _Keys(values, where)
  flow = keys.name == 'FlowMatchEulerDiscreteScheduler' or keys.take('use_flow_sigmas', False)
  prediction = 'velocity' if 'prediction_type' not in keys.values else keys.choose('prediction_type', _PREDICTIONS)
  if flow != (prediction == 'velocity'):
    raise UserError(f"{where}: flows go with prediction_type='flow_prediction', and use_flow_sigmas=true with it; got "
                    f'use_flow_sigmas={flow} and a network that predicts {prediction!r}')
  process = _flow(keys) if flow else _process(keys)
  if prediction == 'epsilon' and process.get('rescale'):
    raise UserError(f'{where}: rescale_betas_zero_snr=true begins at pure noise, where the noise that the network '
                    "predicts tells nothing of the data; such a model needs prediction_type='v_prediction'")
  sampler = {'name': keys.row.sampler, 'steps': keys.row.steps, 'options': {}}
  sampler |= _shift(keys, pipeline) if flow else _spacing(keys, keys.name)
  sampler |= _bounds(keys)
  _method(keys, sampler, prediction)
  keys.finish()
  return {'process': process, 'parameterization': {'name': prediction}, 'sampler': sampler}


def _process(keys: _Keys) -> dict[str, Any]:
  steps, start, end = (keys.take(key) for key in ('num_train_timesteps', 'beta_start', 'beta_end'))
  rescale = {'rescale': True} if keys.take('rescale_betas_zero_snr', False) else {}
  betas = keys.take('trained_betas')
  name = keys.choose('beta_schedule', _PROCESSES)
  if betas is not None:
    return {'name': 'vp_betas', 'betas': tuple(betas), **rescale}
  if name == 'vp_cosine':
    return {'name': name, 'steps': steps, **rescale}
  return {'name': name, 'steps': steps, 'beta_start': start, 'beta_end': end, **rescale}


def _flow(keys: _Keys) -> dict[str, Any]:
  for key in ('beta_start', 'beta_end', 'beta_schedule', 'timestep_spacing', 'steps_offset'):
    keys.take(key)  # without effect on flows
  return {'name': 'flow'}


def _shift(keys: _Keys, pipeline: str) -> dict[str, Any]:
  """Times of a flow."""
  line = tuple(keys.take(key) for key in ('base_image_seq_len', 'base_shift', 'max_image_seq_len', 'max_shift'))
  shift = float(keys.take('shift', 1.0) if 'shift' in keys.row.defaults else keys.take('flow_shift', 1.0))
  own = keys.row.sampler == 'flow_euler' and any(name in pipeline for name in EVEN)
  if 'Flux2' in pipeline:
    raise UserError(f'{keys.where}: genjax does not know how {pipeline} shifts its times')
  spacing = {'spacing': 'uniform' if own else 'linspace'}
  if not keys.take('use_dynamic_shifting', False):
    keys.take('time_shift_type')
    return {**spacing, 'shift': shift}
  if None in line:
    raise UserError(f'{keys.where}: use_dynamic_shifting=true, but the file does not tell how the shift follows from '
                    'the number of tokens; set use_dynamic_shifting to false and flow_shift to a number')
  return {**spacing, 'shift_by_tokens': line}


# Parts of the names of pipelines that list the times of a flow themselves, evenly from 1 to 1 / steps
EVEN = ('Flux', 'Lumina2', 'QwenImage', 'Chroma', 'AuraFlow', 'Bria', 'OvisImage', 'VisualCloze', 'LTX')


def _spacing(keys: _Keys, name: str) -> dict[str, Any]:
  """Times of a discrete process."""
  for key in ('flow_shift', 'use_dynamic_shifting', 'time_shift_type'):
    keys.take(key)  # without effect here
  if keys.row.sampler in ('lcm', 'tcd'):
    final = 'first' if keys.row.sampler == 'tcd' else 'data'
    return {'spacing': 'distilled', 'original_steps': keys.take('original_inference_steps'), 'final': final}
  spacing = keys.take('timestep_spacing', 'linspace')
  if spacing not in ('leading', 'linspace', 'trailing'):
    raise UserError(f"{keys.where}: timestep_spacing must be 'leading', 'linspace' or 'trailing', got {spacing!r}")
  offset = keys.take('steps_offset', 0) if spacing == 'leading' else keys.take('steps_offset', 0) * 0
  chosen = [sigmas for key, sigmas in _SPACED.items() if keys.take(key, False)]
  if len(chosen) > 1:
    raise UserError(f'{keys.where}: the noise levels can be spaced in one way, got {chosen}')
  first = not keys.take('set_alpha_to_one', True) or keys.take('final_sigmas_type', 'zero') == 'sigma_min'
  first = first or keys.row.sampler == 'deis'  # which always ends there
  return {'spacing': spacing, 'offset': offset, 'sigmas': chosen[0] if chosen else '',
          'final': 'first' if first else 'data'}


def _bounds(keys: _Keys) -> dict[str, Any]:
  """Bounds on the estimate of the data; thresholding comes before clipping in diffusers."""
  ratio, largest = keys.take('dynamic_thresholding_ratio'), keys.take('sample_max_value')
  clip, bound = keys.take('clip_sample', False), keys.take('clip_sample_range', 1.0)
  if keys.take('thresholding', False):
    if keys.name == 'DDIMScheduler':
      raise UserError(f'{keys.where}: genjax has no DDIMScheduler with thresholding=true; DDPMScheduler and '
                      'DPMSolverMultistepScheduler have it')
    return {'threshold': ratio, 'threshold_max': largest}
  return {'clip': bound} if clip else {}


def _method(keys: _Keys, sampler: dict[str, Any], prediction: str) -> None:
  """Names the variant of a sampler, in place."""
  name, options = sampler['name'], sampler['options']
  if name == 'ddpm':
    options['variance'] = keys.choose('variance_type', _VARIANCES)
  elif name == 'ddim' and 'clip' in sampler:  # the noise is not that of the clipped estimate
    options['clip'] = sampler.pop('clip')
  elif name == 'pndm':
    if prediction not in ('epsilon', 'v'):
      raise UserError(f'{keys.where}: PNDMScheduler goes with networks that predict epsilon or v, got {prediction!r}')
    options |= {'predicts': prediction, 'runge_kutta': not keys.take('skip_prk_steps')}
  elif name == 'lcm':
    options['timestep_scaling'] = keys.take('timestep_scaling')
  elif name == 'unipc':
    options['order'] = keys.take('solver_order')
  elif name in ('dpmpp_2m', 'dpmpp_2s'):
    _dpm(keys, sampler)


def _dpm(keys: _Keys, sampler: dict[str, Any]) -> None:
  """The variants of DPM-Solver++, in place."""
  known = {'dpmsolver++': sampler['name']}
  if sampler['name'] == 'dpmpp_2m':
    known['sde-dpmsolver++'] = 'dpmpp_2m_sde'
  sampler['name'] = keys.choose('algorithm_type', known)
  variance = keys.take('variance_type')
  if variance not in (None, 'learned', 'learned_range'):  # the second half of the channels is not read
    raise UserError(f'{keys.where}: variance_type is {variance!r}; genjax reads null, learned and learned_range')
  if sampler.get('final') != 'first':  # the last step is of order 1 without them, too
    for key in ('lower_order_final', 'euler_at_final'):
      keys.take(key)
  elif sampler['name'] == 'dpmpp_2s':
    raise UserError(f"{keys.where}: genjax has no DPMSolverSinglestepScheduler with final_sigmas_type='sigma_min'")


def write(process: Mapping[str, Any], parameterization: Mapping[str, Any],
          sampler: Mapping[str, Any]) -> dict[str, Any]:
  """The object of scheduler_config.json for the sections of a config, the way back from `read`.

  Args:
    process: config.objective.process.
    parameterization: config.objective.parameterization.
    sampler: config.sampler; guidance and the number of steps have no place in the file.

  Raises:
    UserError: `diffusers` has no scheduler that samples so.
  """
  flow = process['name'] == 'flow'
  name = SCHEDULERS[sampler['name']].sampler if sampler['name'] in SCHEDULERS else sampler['name']
  name = {'ancestral': 'ddpm', 'dpmpp_2m_sde': 'dpmpp_2m'}.get(name, name)
  if flow and name in ('euler', 'ddim', 'euler_discrete'):
    name = 'flow_euler'  # the same method on straight paths
  known = {row.sampler: kind for kind, row in SCHEDULERS.items()}
  predictions = {own: theirs for theirs, own in _PREDICTIONS.items()}
  if name not in known or (flow and name not in ('flow_euler', 'dpmpp_2m', 'unipc', 'dpmpp_2s')):
    raise UserError(f'diffusers has no scheduler for config.sampler.name={sampler["name"]!r} on the process '
                    f'{process["name"]!r}; set one of {sorted({"flow_euler", "dpmpp_2m", "unipc"} if flow else known)}')
  if parameterization['name'] not in predictions or flow != (parameterization['name'] == 'velocity'):
    raise UserError(f'diffusers has no scheduler for parameterization {parameterization["name"]!r} on the process '
                    f'{process["name"]!r}')
  row = SCHEDULERS[known[name]]
  values = {**row.defaults, **(_written_flow(row, sampler) if flow else _written(row, process, sampler))}
  if 'prediction_type' in row.defaults:
    values['prediction_type'] = predictions[parameterization['name']]
  values |= _written_bounds(row, name, sampler) | _written_method(row, name, sampler)
  if 'lambda_min_clipped' in values:
    del values['lambda_min_clipped']  # -inf is no JSON
  return {'_class_name': known[name], '_diffusers_version': VERSION, **values}


def _written(row: Scheduler, process: Mapping[str, Any], sampler: Mapping[str, Any]) -> dict[str, Any]:
  """Process and times of a discrete process."""
  names = {own: theirs for theirs, own in _PROCESSES.items()}
  if process['name'] not in (*names, 'vp_betas'):
    raise UserError(f'diffusers has no scheduler for the process {process["name"]!r}')
  if process.get('offset', 0.008) != 0.008 or process.get('beta_max', 0.999) != 0.999:
    raise UserError('diffusers has vp_cosine with offset 0.008 and beta_max 0.999 only')
  if row.sampler == 'deis' and sampler.get('final') != 'first':
    raise UserError("DEISMultistepScheduler ends at the first whole time; set config.sampler.final='first'")
  found: dict[str, Any] = {}
  if process['name'] == 'vp_betas':
    found |= {'trained_betas': list(process['betas']), 'num_train_timesteps': len(process['betas'])}
  else:
    start, end = (0.00085, 0.012) if process['name'] == 'vp_scaled_linear' else (1e-4, 0.02)
    found |= {'beta_schedule': names[process['name']], 'num_train_timesteps': process.get('steps', 1000),
              'beta_start': process.get('beta_start', start), 'beta_end': process.get('beta_end', end)}
  if process.get('rescale'):
    found |= {'rescale_betas_zero_snr': _has(row, 'rescale_betas_zero_snr', 'process.rescale', True)}
  named = sampler['name'] in SCHEDULERS  # by the class, whose default an empty spacing is
  own = 'uniform' if row.sampler in ('ddim', 'ddpm', 'dpmpp_2m') else 'leading' if row.sampler == 'pndm' else 'linspace'
  spacing = sampler.get('spacing') or (row.defaults.get('timestep_spacing', 'linspace') if named else own)
  spacing = 'trailing' if spacing == 'uniform' else spacing  # these are the same times
  if row.sampler in ('lcm', 'tcd'):
    return found | {'original_inference_steps': sampler.get('original_steps', 50)}
  if spacing not in ('leading', 'linspace', 'trailing') or (
      'timestep_spacing' not in row.defaults and spacing != 'linspace'):
    raise UserError(f'diffusers has no config.sampler.spacing={spacing!r} for {sampler["name"]!r}; use leading, '
                    'linspace or trailing')
  if 'timestep_spacing' in row.defaults:
    found |= {'timestep_spacing': spacing, 'steps_offset': sampler.get('offset', 0)}
  for key, sigmas in _SPACED.items():
    if sampler.get('sigmas') == sigmas:
      found[key] = _has(row, key, f'sigmas={sigmas!r}', True)
  return found | _written_final(row, sampler.get('final', 'data') == 'first')


def _written_final(row: Scheduler, first: bool) -> dict[str, Any]:
  if row.sampler == 'deis':
    return {}
  if 'set_alpha_to_one' in row.defaults:
    return {'set_alpha_to_one': not first}
  if 'final_sigmas_type' in row.defaults:
    return {'final_sigmas_type': 'sigma_min' if first else 'zero'}
  return {'': _has(row, 'final_sigmas_type', "final='first'", True)} if first else {}


def _written_flow(row: Scheduler, sampler: Mapping[str, Any]) -> dict[str, Any]:
  line = tuple(sampler.get('shift_by_tokens', ()))
  if row.sampler == 'flow_euler':
    dynamic = dict(zip(('base_image_seq_len', 'base_shift', 'max_image_seq_len', 'max_shift'), line))
    return {'shift': sampler.get('shift', 1.0), 'use_dynamic_shifting': bool(line), **dynamic}
  if line:
    raise UserError('diffusers has config.sampler.shift_by_tokens in files of flow_euler only; set shift')
  return {'use_flow_sigmas': True, 'flow_shift': sampler.get('shift', 1.0)}


def _written_bounds(row: Scheduler, name: str, sampler: Mapping[str, Any]) -> dict[str, Any]:
  options = sampler.get('options') or {}
  clip = options.get('clip', 0.0) if name == 'ddim' else sampler.get('clip', 0.0)
  if name == 'ddim' and sampler.get('clip'):
    raise UserError('DDIMScheduler keeps the noise of the estimate before clipping: set config.sampler.options.clip in '
                    f'place of config.sampler.clip={sampler["clip"]}, or clip to 0')
  found: dict[str, Any] = {}
  if 'clip_sample' in row.defaults or clip:
    found['clip_sample'] = _has(row, 'clip_sample', f'clip={clip}', bool(clip))
    found |= {'clip_sample_range': float(clip)} if clip else {}
  if sampler.get('threshold'):
    found |= {'thresholding': _has(row, 'thresholding', f'threshold={sampler["threshold"]}', True),
              'dynamic_thresholding_ratio': sampler['threshold'],
              'sample_max_value': sampler.get('threshold_max', 1.0)}
  return found


def _written_method(row: Scheduler, name: str, sampler: Mapping[str, Any]) -> dict[str, Any]:
  options = sampler.get('options') or {}
  if name == 'ddpm':
    variances = {'small': 'fixed_small', 'large': 'fixed_large', 'learned': 'learned_range'}
    return {'variance_type': variances[options.get('variance', 'small')]}
  if name == 'pndm':
    return {'skip_prk_steps': not options.get('runge_kutta', False)}
  if name == 'lcm':
    return {'timestep_scaling': options.get('timestep_scaling', 10.0)}
  if name == 'unipc':
    return {'solver_order': options.get('order', 2)}
  if sampler['name'] == 'dpmpp_2m_sde':
    return {'algorithm_type': 'sde-dpmsolver++'}
  return {}


def _has(row: Scheduler, key: str, option: str, value: Any) -> Any:
  """`value`, if the class has the key."""
  if key not in row.defaults:
    raise UserError(f'the scheduler of diffusers for {row.sampler!r} has no config.sampler.{option}; leave it out')
  return value
