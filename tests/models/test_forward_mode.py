"""Derivatives of denoisers along a path in x and t, as MeanFlow (Geng et al. 2025) and sCM (Lu and Song 2024) need
them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.denoisers import dit, unet

NETWORKS = {
  'dit': lambda kind: dit.network(dit.DiT((4, 4, 3), width=16, depth=2, heads=2, frequencies=8, attention=kind)),
  'unet': lambda kind: unet.network(unet.UNet((4, 4, 3), base=8, multipliers=(1, 2), blocks=1, attention=(2,), groups=4,
                                             attention_kernel=kind)),
}


@pytest.mark.parametrize(('name', 'attention'), [('dit', 'auto'), ('dit', 'reference'), ('unet', 'auto')])
def test_forward_mode_equals_reverse_mode_and_differences(name, attention):
  network = NETWORKS[name](attention)
  generator = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(0.2 * generator.standard_normal(shape), jnp.float32)
  params = jax.tree.map(lambda leaf: draw(*leaf.shape), jax.eval_shape(network.init, jax.random.key(0))[0])
  x, time, weight = draw(2, 4, 4, 3), jnp.array([100.0, 700.0]), draw(2, 4, 4, 3)
  along_x, along_time = 5 * draw(2, 4, 4, 3), jnp.array([30.0, -20.0])

  @jax.jit
  def derivatives(x, time):
    predict = lambda x, time: network.apply(params, {}, x, time)[0]
    value, tangent = jax.jvp(predict, (x, time), (along_x, along_time))
    slopes = jax.grad(lambda x, time: jnp.vdot(weight, predict(x, time)), (0, 1))(x, time)
    # A loss on the tangent, by reverse mode over forward mode.
    target = jax.grad(lambda x: jnp.sum(jax.jvp(predict, (x, time), (along_x, along_time))[1] ** 2))(x)
    return value, tangent, jnp.vdot(slopes[0], along_x) + jnp.vdot(slopes[1], along_time), jnp.vdot(target, along_x)

  step = 1e-2
  _, tangent, slope, second = derivatives(x, time)
  (above, tangent_above, *_), (below, tangent_below, *_) = (
    derivatives(x + sign * step * along_x, time) for sign in (1, -1))
  late, _, *_ = derivatives(x, time + step * along_time)
  early, _, *_ = derivatives(x, time - step * along_time)
  np.testing.assert_allclose(jnp.vdot(weight, tangent), slope, rtol=1e-4)
  differences = (above - below + late - early) / (2 * step)
  np.testing.assert_allclose(differences, tangent, atol=2e-2 * float(jnp.abs(tangent).max()))
  np.testing.assert_allclose((jnp.sum(tangent_above**2) - jnp.sum(tangent_below**2)) / (2 * step), second, rtol=2e-2)
