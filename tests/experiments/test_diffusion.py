"""The diffusion builder: what a config may say, and the message when it says something else."""

import importlib

import numpy as np
import pytest

from experiments import diffusion
from genjax.types import UserError


def _config(name='quickstart', **changes):
  config = importlib.import_module(f'configs.{name}').get_config('smoke')
  for path, value in changes.items():
    node, leaf = config, path.split('__')
    for part in leaf[:-1]:
      node = node[part]
    node[leaf[-1]] = value
  return config.lock()


def test_options_reach_the_objective():
  experiment = diffusion.build(_config(objective__label_dropout=0.3, sampler__steps=5, sampler__guidance=2.0))
  objective = experiment.objective
  assert objective.label_dropout == 0.3 and objective.num_classes == 10 and objective.shape == (8, 8, 1)
  assert len(objective.sampler.times) == 6 and objective.sampler.guidance == 2.0
  assert set(experiment.conditions) == {'label'} and set(experiment.example) == {'image', 'label'}


def test_options_of_a_sampler_are_bound():
  config = _config(sampler=dict(name='ddim', steps=2, spacing='quadratic', guidance=1.0, clip=1.0, options=dict(eta=0.5)))
  sampler = diffusion.build(config).objective.sampler
  assert sampler.method.keywords == {'eta': 0.5} and sampler.clip == 1.0
  assert sampler.times == pytest.approx((1.0, 0.25, 0.0))


def test_latents_are_diffused_as_they_are():
  experiment = diffusion.build(_config('dit_imagenet'))
  assert experiment.example['image'].dtype == np.float32 and set(experiment.conditions) == {'label'}
  latents = np.linspace(-4, 4, 2 * 8 * 8 * 4, dtype=np.float32).reshape(2, 8, 8, 4)
  assert experiment.objective.codec.encode({}, latents) is latents
  picture = experiment.render({'image': latents})['samples']
  assert picture.dtype == np.uint8 and picture.shape[-1] == 3 and (picture == 0).any()
  with pytest.raises(UserError, match="config.data.content must be one of .*got 'latent'"):
    diffusion.build(_config('dit_imagenet', data__content='latent'))
  with pytest.raises(UserError, match='the split of random_latents must be one of'):
    diffusion.build(_config('dit_imagenet', data__train='test')).train.fingerprint()


def test_without_classes_there_is_no_condition():
  experiment = diffusion.build(_config('cifar10_ddpm'))
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
])
def test_bad_configs_are_user_errors(changes, match):
  with pytest.raises(UserError, match=match):
    diffusion.build(_config(**changes))
