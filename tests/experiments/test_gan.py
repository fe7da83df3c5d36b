"""The builder of GANs: networks and losses that fit each other, schedules that end with the run, the picture of
points."""

import numpy as np
import pytest

from genjax.configs.gans import cifar10_biggan, digits_gan, grid_gan, mnist_gan, r3gan
from genjax.experiments import gan
from genjax.types import UserError


def test_bad_combinations_are_refused():
  config = mnist_gan.get_config('smoke')
  config.objective.loss, config.model.discriminator_norm = 'wgan_gp', 'batch'
  with pytest.raises(UserError, match="set config.model.discriminator_norm to 'none'"):
    gan.build(config)
  config = grid_gan.get_config('smoke')
  config.objective.conditional = True
  with pytest.raises(UserError, match='points have no label'):
    gan.build(config)
  config = digits_gan.get_config('smoke')
  config.data.num_classes = 0
  with pytest.raises(UserError, match='config.data.num_classes is 0; set it to the number of classes, or cond'):
    gan.build(config)
  with pytest.raises(UserError, match=r'config.model.pack=3 .* batches of a multiple of that, got 8'):
    gan.build(grid_gan.get_config('smoke,pack=3'))
  config = grid_gan.get_config('smoke')
  config.model.widths = (3,)
  with pytest.raises(UserError, match='config.model.widths is not an option of PointGan'):
    gan.build(config)


def test_networks_that_their_options_do_not_fit_are_refused():
  def biggan(**changes):
    config = cifar10_biggan.get_config('smoke')
    config.update_from_flattened_dict(changes)
    return config

  with pytest.raises(UserError, match='needs batch statistics of truncated latents'):
    gan.build(biggan(**{'objective.truncation': 0.5, 'objective.standing': 0}))
  with pytest.raises(UserError, match='config.objective.conditional to True'):
    gan.build(biggan(**{'objective.conditional': False}))
  with pytest.raises(UserError, match='take 4'):
    gan.build(biggan(**{'model.latent': 5}))
  config = r3gan.get_config('smoke')
  config.model.widths, config.model.groups = (8, 8, 8), (2, 2, 2)
  with pytest.raises(UserError, match='images of 16 pixels, got size 8'):
    gan.build(config)


def test_what_a_batch_or_the_data_does_not_have_is_refused():
  config = digits_gan.get_config('smoke')
  config.objective.watch, config.microbatches = True, config.batch_size
  with pytest.raises(UserError, match='watch compares the samples of microbatches with each other, and these have 1'):
    gan.build(config)


def test_critics_that_measure_a_distance_do_not_warn_of_their_accuracy():
  bounds = []
  for loss in ('hinge', 'wgan_gp'):
    config = digits_gan.get_config('smoke')
    config.objective.watch, config.objective.loss = True, loss
    bounds.append(gan.build(config).hooks[0].bounds['accuracy'])
  assert bounds == [0.98, 1.0]


def test_conditional_configs_offer_labels():
  assert set(gan.build(digits_gan.get_config('smoke')).conditions) == {'label'}
  assert set(gan.build(mnist_gan.get_config('smoke,conditional')).conditions) == {'label'}
  assert not gan.build(mnist_gan.get_config('smoke')).conditions


def test_schedules_count_the_updates_of_each_group(monkeypatch):
  """Ten steps: the discriminator moves ten times and with R1 three more, the generator on every second step."""
  seen = {}
  monkeypatch.setattr(gan.optimizers, 'from_config',
                      lambda options, steps: seen.update({group: steps[group] for group in options}) or {})
  config = mnist_gan.get_config('smoke')
  config.steps, config.objective.r1_every, config.objective.discriminator_steps = 10, 4, 2
  gan.build(config)
  assert seen == {'generator': 5, 'discriminator': 13}


def test_scatter_puts_points_inside_the_rings_of_their_modes():
  """y points up; a point on the upper left mode blackens the middle of the upper left ring."""
  draw = gan.build(grid_gan.get_config('smoke')).render
  sheet_HWC = draw({'point': np.array([[-4.0, 4.0], [100.0, 0.0]], np.float32)})['samples']
  (row,), (column,) = np.nonzero((sheet_HWC == 0).all(axis=-1))
  assert row == pytest.approx(0.1 * len(sheet_HWC), abs=1) and column == pytest.approx(0.1 * len(sheet_HWC), abs=1)
  ring_H, ring_W = np.nonzero((sheet_HWC != 255).any(axis=-1) & (sheet_HWC != 0).any(axis=-1))
  near = np.hypot(ring_H - row, ring_W - column) < 10
  assert np.hypot(ring_H[near] - row, ring_W[near] - column) == pytest.approx(0.15 / 10 * len(sheet_HWC), abs=1.5)
