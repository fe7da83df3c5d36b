"""The builder of autoregressive models of images: what it refuses, and what its samples look like."""

import jax
import numpy as np
import pytest

from genjax.configs.autoregressive import mnist_made, mnist_nade
from genjax.experiments import autoregressive
from genjax.types import UserError


@pytest.mark.parametrize('config', [mnist_made, mnist_nade])
def test_grey_pixels_are_refused(config):
  made = config.get_config('smoke')
  made.data.binarize = 'none'
  with pytest.raises(UserError, match="binarize must be 'fixed' or 'dynamic'"):
    autoregressive.build(made)


def test_held_out_pixels_are_drawn_once_and_training_ones_in_every_epoch():
  config = mnist_nade.get_config('smoke')
  experiment = autoregressive.build(config)
  first, second = (next(experiment.heldout.epoch(slice(None)))['image'] for _ in range(2))
  np.testing.assert_array_equal(first, second)
  assert set(np.unique(first)) == {0, 255}
  rendered = experiment.render({'image': first[:4]})['samples']
  assert rendered.dtype == np.uint8 and rendered.ndim == 3


def test_the_arguments_of_the_configs():
  config = mnist_made.get_config('hidden=7,orderings=4,epochs=2')
  assert config.model.hidden == (7,) and config.model.orderings == 4 and config.steps == 1875
  objective = autoregressive.build(config).objective
  assert objective.orderings == 4
  assert jax.eval_shape(objective.init, jax.random.key(0), {}).params['net']['layers']['0']['kernel'].shape == (784, 7)
