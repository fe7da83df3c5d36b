"""scheduler_config.json to the sections of a config and back, without `diffusers`."""

import pytest

from genjax.interop import schedulers
from genjax.types import UserError

SD15 = {  # as published with Stable Diffusion 1.5, with a key that PNDM does not have
  '_class_name': 'PNDMScheduler', '_diffusers_version': '0.6.0', 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
  'beta_start': 0.00085, 'num_train_timesteps': 1000, 'set_alpha_to_one': False, 'skip_prk_steps': True,
  'steps_offset': 1, 'trained_betas': None, 'clip_sample': False}


def test_file_of_stable_diffusion():
  found = schedulers.read(SD15, 'file')
  assert found == {
    'process': {'name': 'vp_scaled_linear', 'steps': 1000, 'beta_start': 0.00085, 'beta_end': 0.012},
    'parameterization': {'name': 'epsilon'},
    'sampler': {'name': 'pndm', 'steps': 50, 'spacing': 'leading', 'offset': 1, 'sigmas': '', 'final': 'first',
                'options': {'predicts': 'epsilon', 'runge_kutta': False}}}
  written = schedulers.write(**found)
  assert schedulers.read(written, 'written') == found
  assert {key: written[key] for key in SD15 if key not in ('clip_sample', '_diffusers_version')} == {
    key: value for key, value in SD15.items() if key not in ('clip_sample', '_diffusers_version')}


@pytest.mark.parametrize('name', schedulers.SCHEDULERS)
def test_every_class_with_its_defaults_comes_back(name):
  found = schedulers.read({'_class_name': name}, 'file')
  written = schedulers.write(**found)
  assert written['_class_name'] == name and schedulers.read(written, 'file') == found


def test_keys_of_old_files_that_change_nothing_are_read():
  old = SD15 | {'predict_epsilon': True, 'tensor_format': 'pt', 'thresholding': None}
  assert schedulers.read(old, 'file') == schedulers.read(SD15, 'file')


def test_pipelines_of_flows_that_list_even_times():
  flux = schedulers.read({'_class_name': 'FlowMatchEulerDiscreteScheduler', 'use_dynamic_shifting': True}, 'file',
                         'FluxPipeline')
  assert flux['sampler']['spacing'] == 'uniform' and flux['sampler']['shift_by_tokens'] == (256, 0.5, 4096, 1.15)
  sd3 = schedulers.read({'_class_name': 'FlowMatchEulerDiscreteScheduler', 'shift': 3.0}, 'file',
                        'StableDiffusion3Pipeline')
  assert sd3['sampler']['spacing'] == 'linspace' and sd3['sampler']['shift'] == 3.0


@pytest.mark.parametrize('change, match', [
  (dict(_class_name='RePaintScheduler'), 'RePaintScheduler'),
  (dict(quantum=3), 'does not know quantum'),
  (dict(predict_epsilon=False), 'does not know predict_epsilon'),
  (dict(beta_schedule='laplace'), "beta_schedule is 'laplace'"),
  (dict(prediction_type='sample'), 'epsilon or v'),
  (dict(timestep_spacing='even'), 'timestep_spacing must be'),
  (dict(_class_name='EulerDiscreteScheduler', rescale_betas_zero_snr=True), 'begins at pure noise'),
  (dict(_class_name='EulerDiscreteScheduler', interpolation_type='log_linear'), 'interpolation_type'),
  (dict(_class_name='EulerDiscreteScheduler', use_karras_sigmas=True, use_beta_sigmas=True), 'spaced in one way'),
  (dict(_class_name='DPMSolverMultistepScheduler', solver_order=3), 'solver_order=3'),
  (dict(_class_name='DPMSolverMultistepScheduler', algorithm_type='dpmsolver'), 'algorithm_type'),
  (dict(_class_name='DPMSolverMultistepScheduler', prediction_type='flow_prediction'), 'use_flow_sigmas'),
  (dict(_class_name='DDIMScheduler', thresholding=True), 'thresholding'),
  (dict(_class_name='FlowMatchEulerDiscreteScheduler', use_karras_sigmas=True), 'use_karras_sigmas'),
  (dict(_class_name='FlowMatchEulerDiscreteScheduler', time_shift_type='linear', use_dynamic_shifting=True), 'linear')])
def test_what_has_no_counterpart_is_refused_by_name(change, match):
  with pytest.raises(UserError, match=match):
    schedulers.read(SD15 | change, 'file')


def test_samplers_of_ones_own_are_written_where_diffusers_has_them():
  process, sampler = {'name': 'vp_linear'}, {'name': 'ancestral', 'steps': 10, 'guidance': 2.0, 'clip': 1.0}
  written = schedulers.write(process, {'name': 'epsilon'}, sampler)
  assert written['_class_name'] == 'DDPMScheduler' and written['timestep_spacing'] == 'trailing'
  assert written['clip_sample'] and written['clip_sample_range'] == 1.0
  flow = schedulers.write({'name': 'flow'}, {'name': 'velocity'}, {'name': 'euler', 'steps': 10, 'shift': 2.0})
  assert flow['_class_name'] == 'FlowMatchEulerDiscreteScheduler' and flow['shift'] == 2.0


@pytest.mark.parametrize('process, parameterization, sampler, match', [
  ('vp_linear', 'epsilon', dict(name='euler'), "config.sampler.name='euler'"),
  ('flow', 'velocity', dict(name='heun'), "config.sampler.name='heun'"),
  ('vp_linear', 'edm', dict(name='ddim'), "parameterization 'edm'"),
  ('edm', 'epsilon', dict(name='ddim'), "process 'edm'"),
  ('vp_linear', 'epsilon', dict(name='ddim', spacing='quadratic'), 'quadratic'),
  ('vp_linear', 'epsilon', dict(name='ddim', clip=1.0), 'options.clip'),
  ('vp_linear', 'epsilon', dict(name='ddim', sigmas='karras'), 'sigmas'),
  ('vp_linear', 'epsilon', dict(name='unipc', clip=1.0), 'clip'),
  ('vp_linear', 'epsilon', dict(name='heun_discrete', final='first'), 'final')])
def test_what_diffusers_lacks_is_not_written(process, parameterization, sampler, match):
  with pytest.raises(UserError, match=match):
    schedulers.write({'name': process}, {'name': parameterization}, {'steps': 5, **sampler})


@pytest.mark.parametrize('values', [
  {**SD15, 'trained_betas': 5}, {**SD15, 'skip_prk_steps': 'false'}, {**SD15, 'beta_end': float('nan')},
  {'_class_name': 'FlowMatchEulerDiscreteScheduler', 'shift': 'x'},
  {'_class_name': 'EulerDiscreteScheduler', 'use_karras_sigmas': 'false'}])
def test_values_of_another_type_are_refused(values):
  with pytest.raises(UserError, match='file: expected true or false for switches, finite numbers'):
    schedulers.read(values, 'file')
