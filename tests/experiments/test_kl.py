"""The builder of autoencoders for latent diffusion, and the kind that it offers."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.experiments import kl, render
from genjax.runs import builders
from genjax.types import UserError


def config_of(arg='smoke', **changes):
  config = importlib.import_module('genjax.configs.autoencoders.kl').get_config(arg)
  for path, value in changes.items():
    section, key = path.split('__')
    config[section][key] = value
  return config.lock()


def test_the_kind_has_the_functions_of_the_run():
  config = config_of(objective__reconstruction='gaussian')
  experiment = builders.build(config)
  part = kl.autoencoder(config, experiment)
  assert part.shape == (8, 8, 1) and part.latent == (4, 4, 3) and part.column == 'image'

  def both(key, image):
    variables = experiment.objective.init(key, {})
    # Without empty trees and without what is not read, as a part has them
    net = {name: variables.params['net'][name] for name in ('encoder', 'decoder')}
    group = {'params': {'net': net}, 'mutable': {'moments': variables.mutable['moments']}}
    mean, log_variance = part.encode(group, image)
    return mean, log_variance, part.decode(group, mean), part.moments(group), variables.params

  image = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.uint8)
  mean, log_variance, decoded, moments, params = jax.eval_shape(both, jax.random.key(0), image)
  assert mean.shape == log_variance.shape == (2, 4, 4, 3) and mean.dtype == jnp.float32
  assert decoded.shape == (2, 8, 8, 1) and decoded.dtype == jnp.uint8
  assert [leaf.shape for leaf in moments] == [(3,), (3,)] and 'log_scale' in params['net']


@pytest.mark.parametrize(('arg', 'latent'), [
  ('model=f8,data=FOLDER,pixels=256', (32, 32, 4)), ('model=f16,data=FOLDER,pixels=256', (16, 16, 16)),
  ('model=f4-small,data=mnist', (7, 7, 4)), ('model=f2-small,data=digits', (4, 4, 4))])
def test_configs_of_any_pictures(arg, latent):
  config = config_of(arg)
  model = kl.MODELS[config.model.name][0](**{key: value for key, value in config.model.items() if key != 'name'},
                                          shape=tuple(config.data.shape))
  assert model.latent_shape == latent
  assert bool(config.data.resize) == ('pixels' in arg)


@pytest.mark.parametrize(('arg', 'match'), [('model=f9', 'model must be one of'), ('data=FOLDER', 'pixels is needed')])
def test_bad_arguments(arg, match):
  with pytest.raises(ValueError, match=match):
    config_of(arg)


def test_latents_are_no_data_of_an_autoencoder():
  with pytest.raises(UserError, match='an autoencoder learns from pixels'):
    kl.build(config_of(data__content='latents'))


def test_pictures_of_reconstructions():
  image = np.zeros((4, 8, 8, 1), np.uint8)
  shown = render.autoencoded({'image': image, 'original': image, 'reconstruction': image + 255})
  assert set(shown) == {'samples', 'reconstructions'}
  row = shown['reconstructions'][28]  # pixels of the first row: an original, then its reconstruction
  assert row[20] == 0 and row[20 + 57] == 255
