"""The diffusion builder: what a config may say, and the message when it says something else."""

import importlib

import jax
import numpy as np
import pytest

from genjax.experiments import diffusion
from genjax.objectives.base import Context
from genjax.types import UserError


def _config(name='quickstart', **changes):
  config = importlib.import_module(f'genjax.configs.{name}').get_config('smoke')
  for path, value in changes.items():
    node, leaf = config, path.split('__')
    for part in leaf[:-1]:
      node = node[part]
    node[leaf[-1]] = value
  return config.lock()


def test_options_reach_the_objective():
  experiment = diffusion.build(_config(objective__label_dropout=0.3, sampler__steps=5, sampler__guidance=2.0))
  objective = experiment.objective
  label = objective.conditioners['label']
  assert label.dropout == 0.3 and label.null['label'] == 10 and objective.shape == (8, 8, 1)
  assert len(objective.sampler.times) == 6 and objective.sampler.guidance == 2.0
  assert set(experiment.conditions) == {'label'} and set(experiment.example) == {'image', 'label'}


def test_options_of_a_sampler_are_bound():
  config = _config(sampler=dict(name='ddim', steps=2, spacing='quadratic', guidance=1.0, clip=1.0, options=dict(
    eta=0.5)))
  sampler = diffusion.build(config).objective.sampler
  assert sampler.method.keywords == {'eta': 0.5} and sampler.clip == 1.0
  assert sampler.times == pytest.approx((1.0, 0.25, 0.0))


def test_latents_are_diffused_as_they_are():
  experiment = diffusion.build(_config('diffusion.dit_imagenet'))
  assert experiment.example['image'].dtype == np.float32 and set(experiment.conditions) == {'label'}
  latents = np.linspace(-4, 4, 2 * 8 * 8 * 4, dtype=np.float32).reshape(2, 8, 8, 4)
  assert experiment.objective.codec.encode({}, {'image': latents}, None) is latents
  picture = experiment.render({'image': latents})['samples']
  assert picture.dtype == np.uint8 and picture.shape[-1] == 3 and (picture == 0).any()
  with pytest.raises(UserError, match="config.data.content must be one of .*got 'latent'"):
    diffusion.build(_config('diffusion.dit_imagenet', data__content='latent'))
  with pytest.raises(UserError, match='the split of random_latents must be one of'):
    diffusion.build(_config('diffusion.dit_imagenet', data__train='test')).train.fingerprint()


def test_sampler_options_reach_the_grid_and_the_guidance():
  sampler = diffusion.build(_config(sampler__shift=3.0, sampler__interval=(0.2, 5), sampler__steps=4)).objective.sampler
  assert sampler.interval == (0.2, 5.0) and sampler.times == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))
  options = dict(sampler__rho=5.0, sampler__sigma_min=0.01, sampler__sigma_max=20.0, sampler__steps=3)
  sampler = diffusion.build(_config('diffusion.digits_edm', **options)).objective.sampler
  middle = ((20 ** 0.2 + 0.01 ** 0.2) / 2) ** 5
  assert sampler.times == pytest.approx((20.0, middle, 0.01, 0.0), rel=1e-5) and sampler.interval is None


def test_configs_of_before_these_options_build_the_same():
  config = _config()
  old = importlib.import_module('genjax.configs.quickstart').get_config('smoke')
  old.sampler = dict(name='dpmpp_2m', steps=2, spacing='', guidance=1.3, clip=0.0, options=dict())
  del old.objective.weighting
  new, old = (diffusion.build(each).objective for each in (config, old))
  for name in ('times', 'guidance', 'interval', 'clip', 'learned'):
    assert getattr(new.sampler, name) == getattr(old.sampler, name)


def test_process_options_and_weighting_reach_the_objective():
  process = dict(name='vp_cosine', steps=1000, beta_max=1.0)
  objective = diffusion.build(_config(
    objective__process=process, objective__parameterization=dict(name='v'),
    objective__weighting=dict(name='min_snr', gamma=3.0))).objective
  t = np.float32([1.0, 1000.0])
  assert objective.process.alpha(t[1]) == 0
  weights = objective.weighting(objective.process, objective.parameterization, t)
  snr = (objective.process.alpha(t[0]) / objective.process.sigma(t[0])) ** 2
  np.testing.assert_allclose(weights, [3.0 / (snr + 1), 0.0], rtol=1e-5)


def test_flow_times_by_name():
  for name, middle in (('mode', 0.5), ('cosmap', 0.5), ('logit_normal', 0.5)):
    assert diffusion.build(_config(objective__times=dict(name=name))).objective.quantile(0.5) == pytest.approx(middle)


def test_the_dit_of_the_paper_learns_its_variances():
  config = importlib.import_module('genjax.configs.diffusion.dit_imagenet').get_config('learn_sigma,smoke')
  objective = diffusion.build(config).objective
  assert objective.learned_variance and objective.sampler.learned and objective.process.steps == 1000
  batch = {'image': np.ones((2, 8, 8, 4), np.float32), 'label': np.arange(2)}
  context = Context(step=jax.numpy.int32(0), mutable={}, ema={}, frozen={})
  params = objective.init(jax.random.key(0), {}).params
  output = jax.jit(lambda params: objective.loss(params, context, batch, jax.random.key(0)))(params)
  assert output.metrics['bound'] > 0 and output.loss > output.metrics['error']


def test_without_classes_there_is_no_condition():
  experiment = diffusion.build(_config('diffusion.cifar10_ddpm'))
  assert not experiment.conditions and set(experiment.example) == {'image'}


@pytest.mark.parametrize('changes, match', [
    (dict(model__name='unett'), "config.model.name must be one of .*Did you mean 'unet'"),
    (dict(model__widht=3), 'config.model.widht'),
    (dict(sampler__name='heunn'), "config.sampler.name must be one of .*Did you mean 'heun'"),
    (dict(sampler__steps=0), 'sampler.steps'),
    (dict(sampler__spacing='karras'), 'karras'),
    (dict(sampler__options=dict(eta=1.0)), 'config.sampler.options.eta'),
    (dict(objective__process=dict(name='vp')), 'config.objective.process.name'),
    (dict(objective__process=dict(name='flow', beta=1)), 'config.objective.process.beta'),
    (dict(objective__parameterization=dict(name='noise')), 'config.objective.parameterization.name'),
    (dict(objective__times=dict(name='lognormal')), "log_normal"),
    (dict(objective__label_drop=0.1), 'config.objective.label_drop'),
    (dict(objective__label_dropout=0.0), 'guidance'),
    (dict(objective__process=dict(name='vp_linear'), objective__times=dict(name='logit_normal')), 'whole steps'),
    (dict(model__patch=3), 'patch'),
    (dict(model__learn_sigma=True), "learn_sigma=True .* no whole steps"),
    (dict(model=dict(name='unet', learn_sigma=True)), 'config.model.learn_sigma is not an option of UNet'),
    (dict(objective__parameterization=dict(name='epsilon')), "'epsilon' gives no estimate of the data at t=1"),
    (dict(sampler__interval=(0.5,)), 'config.sampler.interval must be'),
    (dict(sampler__interval=(0.5, 0.2)), 'config.sampler.interval must be'),
    (dict(sampler__intervall=(0.2, 0.5)), "config.sampler.intervall .*Did you mean 'interval'"),
    (dict(sampler__clip=-1.0), 'config.sampler.clip'),
    (dict(sampler__rho=5.0), 'sampler.rho'),
    (dict(sampler=dict(name='ancestral', steps=2, options=dict(variance='medium'))), 'options.variance'),
    (dict(sampler=dict(name='ancestral', steps=2, options=dict(variance='learned'))), 'learn_sigma'),
    (dict(objective__weighting=dict(name='min_snr', gama=1.0)), 'config.objective.weighting.gama'),
    (dict(objective__weighting=dict(name='minsnr')), "Did you mean 'min_snr'"),
    (dict(objective__times=dict(name='log_normal')), 'one of .*cosmap.* for a process with times from 0 to 1'),
    (dict(objective__process=dict(name='edm'), objective__times=dict(name='mode')), 'one of .*log_normal'),
])
def test_bad_configs_are_user_errors(changes, match):
  with pytest.raises(UserError, match=match):
    diffusion.build(_config(**changes))
