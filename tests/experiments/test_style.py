"""Style-based generators in the builder of GANs: checks at the start, options, codes and ways between them."""

import json

import numpy as np
import pytest

from genjax import config as config_lib
from genjax.cli import interpolate
from genjax.configs import quickstart
from genjax.configs.gans import cifar10_biggan, digits_gan, grid_gan, sprites_stylegan2, stylegan2, stylegan3
from genjax.experiments import gan, generators
from genjax.objectives.style import StyleGan
from genjax.options import known
from genjax.runs import builders, codes
from genjax.runs import workdir as workdir_lib
from genjax.training.run import Run
from genjax.types import UserError


def test_groups_and_shares_are_checked_against_batches():
  config = stylegan2.get_config('smoke')
  config.batch_size = 6
  with pytest.raises(UserError, match=r'config.model.group=4 examples, so that batches need a multiple of that, got 6'):
    gan.build(config)
  config.batch_size, config.microbatches = 16, 8
  with pytest.raises(UserError, match='microbatches need a multiple of that, got 2'):
    gan.build(config)
  config.batch_size, config.microbatches, config.objective.path_shrink = 8, 1, 3
  with pytest.raises(UserError, match='a share of 1 / 3 of the batches, which have 8'):
    gan.build(config)


def test_pictures_and_truncation_that_cannot_be():
  config = stylegan3.get_config('smoke')
  config.data.shape = (24, 24, 3)
  with pytest.raises(UserError, match='a power of two and at least 16, got 24'):
    gan.build(config)
  config = stylegan2.get_config('smoke')
  config.model.average, config.objective.truncation = 0.0, 0.7
  with pytest.raises(UserError, match=r'config.model.average=0'):
    gan.build(config)
  options = known(gan.options(digits_gan.get_config('smoke')))
  with pytest.raises(UserError, match='objective.truncation.* is an option only with model.name=.*stylegan2'):
    options.find('objective.truncation')
  assert 'objective.path_weight' in known(gan.options(stylegan2.get_config('smoke'))).options


def test_a_style_based_objective_of_ones_own_takes_what_the_model_says(monkeypatch):
  class Mine(StyleGan):
    pass

  monkeypatch.setitem(gan.GOALS, 'stylegan2', Mine)
  config = stylegan2.get_config('smoke')
  objective = gan.build(config).objective
  assert type(objective) is Mine and objective.style == config.model.style and objective.group == config.model.group
  assert 'objective.style' not in known(gan.options(config)).options


def test_settings_of_the_original():
  """--cfg of NVlabs/stylegan2-ada-pytorch."""
  config = stylegan2.get_config('pixels=1024,batch=32')
  assert (config.model.width, config.optimizers.generator.lr, config.model.group) == (32_768, 2e-3, 4)
  assert config.objective.r1_gamma == pytest.approx(2e-4 * 1024**2 / 32) and config.ema.generator.half_life == 10_000
  config = stylegan2.get_config('model=cifar')
  assert config.objective.path_weight == config.objective.mixing == 0 and config.model.group == 32
  assert config.steps * config.batch_size == 100_000_000 and config.ema.generator.half_life == 500_000
  for argument, message in {'batch=128': 'batch from 1 to 64', 'model=cifar,pixels=64': 'has its own pixels'}.items():
    with pytest.raises(ValueError, match=message):
      stylegan2.get_config(argument)
  # The lazy phase of path lengths has no weight there, and its correction is made all the same
  generator, discriminator = (config.optimizers[group] for group in ('generator', 'discriminator'))
  assert (generator.lr, generator.b2) == (pytest.approx(0.002), pytest.approx(0.99**0.8))
  assert (discriminator.lr, discriminator.b2) == (0.0025, 0.99)
  ramps = {model: stylegan2.get_config(f'model={model}').ema.generator.ramp_up
           for model in ('auto', 'cifar', 'stylegan2', 'paper256', 'paper512', 'paper1024')}
  assert ramps == {'auto': 0.05, 'cifar': 0.05, 'stylegan2': 0.0, 'paper256': 0.0, 'paper512': 0.0, 'paper1024': 0.0}
  config = stylegan2.get_config('model=stylegan2,pixels=512')
  assert (config.objective.r1_gamma, config.model.mapping, config.data.shape[0]) == (10.0, 8, 512)
  assert stylegan2.get_config('model=paper512').objective.r1_gamma == 0.5
  # StyleGAN3-R: 10 pixels, over 200,000 images in batches of 32
  blurs = [stylegan3.get_config(f'rotation={rotation}').objective for rotation in (True, False)]
  assert [blur.blur for blur in blurs] == [10.0, 0.0] and blurs[0].blur_steps * 32 == 200_000
  settings = sprites_stylegan2.sweep()
  assert [setting['arg.ada'] for setting in settings] == [False, True]
  names = [sprites_stylegan2.get_config(f'ada={ada}').objective.augment.name for ada in (False, True)]
  assert names == ['none', 'ada']


def test_codes_of_a_generator(monkeypatch):
  monkeypatch.setattr(generators, 'STEPS', 3)
  monkeypatch.setattr(generators, 'DRAWS', 16)
  config = stylegan2.get_config('smoke')
  run = Run(builders.build(config), builders.settings(config))
  run.initialise()
  made = codes.of(config, run)
  drawn = made.draw(4, seed=1)
  assert drawn.shape == (4, 8)
  np.testing.assert_allclose(made.draw(2, seed=1), drawn[:2], atol=1e-5)
  stops = drawn.reshape(2, 2, 8)
  open_, closed = made.through(stops, 4), made.through(stops, 4, closed=True)
  assert open_.shape == (2, 4, 8, 8, 3) and closed.shape == (2, 6, 8, 8, 3)
  np.testing.assert_allclose(open_.astype(int), closed[:, :4], atol=1)  # rounded to grey levels
  np.testing.assert_allclose(made.decode(drawn)[::2].astype(int), open_[:, 0], atol=1)
  assert made.encode(open_[:, 0]).shape == (2, 8) and made.path == 'line'
  clip = codes.clip(closed, 25.0, scale=2)
  assert clip.frames_THWC.shape == (6, 16, 32, 3)
  np.testing.assert_array_equal(clip.frames_THWC[3, ::2, 16::2], closed[1, 3])


def test_random_styles_are_truncated_and_projected_ones_are_not(monkeypatch):
  monkeypatch.setattr(generators, 'STEPS', 3)
  monkeypatch.setattr(generators, 'DRAWS', 16)
  image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
  found = {}
  for name, truncation, layers in (('whole', 1.0, 0), ('truncated', 0.5, 0), ('in part', 0.5, 1)):
    config = stylegan2.get_config('smoke')
    config.objective.update(truncation=truncation, truncation_layers=layers)
    run = Run(builders.build(config), builders.settings(config))
    run.initialise()
    made = codes.of(config, run)
    style = made.encode(image)
    drawn = made.draw(2)
    np.testing.assert_array_equal(made.decode(drawn), run.sample(2, 0, averaged=True)['image'])
    found[name] = style, made.decode(style), drawn
  style, pictures, drawn = found['whole']
  np.testing.assert_allclose(found['truncated'][0], style, atol=1e-5)
  np.testing.assert_allclose(found['in part'][0], np.repeat(style[:, None], 4, axis=1), atol=1e-5)
  for name in ('truncated', 'in part'):
    np.testing.assert_allclose(found[name][1].astype(int), pictures.astype(int), atol=1)
  np.testing.assert_allclose(found['truncated'][2], 0.5 * drawn, atol=1e-5)  # the mean style begins at 0
  np.testing.assert_allclose(found['in part'][2][:, 0], 0.5 * drawn, atol=1e-5)
  np.testing.assert_allclose(found['in part'][2][:, 1:], np.repeat(drawn[:, None], 3, axis=1), atol=1e-5)


def test_ways_of_a_truncated_gan_are_made_of_its_samples():
  """The same latents, and the same batch statistics: a code is decoded to the sample of its key."""
  config = cifar10_biggan.get_config('smoke')
  config.objective.update(conditional=False, truncation=0.5)
  config.model.update(shared=0, chunks=False)
  run = Run(builders.build(config), builders.settings(config))
  run.initialise()
  made = codes.of(config, run)
  drawn = made.draw(4)
  assert abs(drawn).max() <= 0.5 and made.path == 'sphere'
  np.testing.assert_allclose(made.decode(drawn).astype(int), run.sample(4, 0)['image'].astype(int), atol=1)


def test_generators_without_codes_are_refused():
  config = digits_gan.get_config('smoke')
  with pytest.raises(UserError, match='reads classes beside its latent'):
    generators.of_images(config, gan.build(config).objective)
  config = grid_gan.get_config('smoke')
  with pytest.raises(UserError, match='makes points'):
    generators.of_images(config, gan.build(config).objective)


@pytest.mark.parametrize(('flag', 'message'), [
  ('--stops=1', '--stops is at least 2'), ('--rate=0', '--rate, frames a second, above 0'),
  ('--scale=0', '--scale at least 1'), ('--out=way.avi', r'ends in .png, .mp4, .webp, .gif')])
def test_bad_flags_of_ways(flag, message):
  with pytest.raises(UserError, match=message):
    interpolate.main(['--workdir=nowhere', '--out=way.png', flag])


def test_truncation_may_change_when_a_run_is_sampled(tmp_path):
  config = stylegan2.get_config('smoke')
  (tmp_path / 'config.json').write_text(json.dumps(config_lib.plain(config)))
  (tmp_path / 'run.json').write_text(json.dumps({'paths': [], 'data': {}}))
  changed, experiment = workdir_lib.load(str(tmp_path), ['objective.truncation=0.5', 'objective.truncation_layers=2'])
  assert changed.objective.truncation == experiment.objective.truncation == 0.5
  assert experiment.objective.truncation_layers == 2
  with pytest.raises(UserError, match='--set changes how a run is sampled'):
    workdir_lib.load(str(tmp_path), ['objective.path_weight=1.0'])


def test_the_card_of_a_measure_tells_the_truncation():
  config = stylegan2.get_config('smoke')
  assert builders.sampling(config) == {'objective.truncation': 1.0, 'objective.truncation_layers': 0}
  config_lib.override(config, 'objective.truncation=0.5')
  assert builders.sampling(config)['objective.truncation'] == 0.5
  assert builders.sampling(quickstart.get_config('smoke')) == {}
