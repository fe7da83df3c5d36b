"""What users of other GAN code met, on the objectives that all GANs share: a run goes on with its own config alone, and
the norm of a gradient is that of a sample. docs/gans.md names the tests of the other situations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config as config_lib
from genjax.configs.gans import digits_gan
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.gan import Gan
from genjax.runs import same
from genjax.types import UserError


def test_a_run_goes_on_with_its_own_config_alone(tmp_path):
  """Loss, rate and packing are named; where it is computed may change, and steps may grow."""
  config = digits_gan.get_config('smoke')
  (tmp_path / 'config.json').write_text(json.dumps(config_lib.plain(config)))
  changed = digits_gan.get_config('smoke')
  changed.objective.loss, changed.optimizers.generator.lr, changed.model.pack = 'wgan_gp', 1e-2, 2
  with pytest.raises(UserError) as refused:
    same.check_same(tmp_path, changed)
  for told in ("objective.loss: 'hinge' there, 'wgan_gp' now", 'optimizers.generator.lr: 0.0005 there, 0.01 now',
               'model.pack: 1 there, 2 now'):
    assert told in str(refused.value)
  moved = digits_gan.get_config('smoke')
  moved.steps, moved.mesh.data = 9, 1
  assert same.check_same(tmp_path, moved) == config.steps


def test_the_norm_of_a_gradient_is_over_all_axes_of_one_picture():
  """Of a linear critic with weights w the penalty is (|w| - 1)^2, whatever the size of the batch: a norm along one
  axis, or over the batch, is another number."""
  weight_HWC = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)

  def judge(params, mutable, x, label=None, key=None):
    return jnp.einsum('bhwc,hwc->b', x, params['weight']), mutable

  def draw(params, mutable, z, label=None, key=None):
    return jnp.broadcast_to(params['scale'] * z[:, :1, None, None], (len(z), 4, 4, 3)), mutable

  critic = Network(lambda key: ({'weight': jnp.asarray(weight_HWC)}, {}), judge)
  generator = Network(lambda key: ({'scale': jnp.ones(())}, {}), draw)
  gan = Gan(generator, critic, 2, loss='wgan_gp', penalty=10.0)
  variables = gan.init(jax.random.key(0), {})
  context = Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})
  loss = jax.jit(gan.phases()[0].loss)
  found = [float(loss(variables.params, context, {'image': jnp.zeros((count, 4, 4, 3), jnp.uint8)},
                      jax.random.key(1)).metrics['penalty']) for count in (2, 6)]
  assert found == pytest.approx([(np.linalg.norm(weight_HWC) - 1.0) ** 2] * 2, rel=1e-5)
