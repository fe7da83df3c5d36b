"""The LSTM encoder-decoder against `torch.nn.LSTM` on the same parameters: logits and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.recurrent import LstmConfig, lstm

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)


def test_logits_and_gradients_are_those_of_torch():
  config = LstmConfig(7, hidden=12)
  network = lstm(config)
  params, mutable = network.init(jax.random.key(0))
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * generator.normal(size=leaf.shape), np.float32), params)
  source_BS, target_BT = generator.integers(0, 7, (3, 5)), generator.integers(0, 7, (3, 4))

  sides, leaves = [], []
  for side in ('encoder', 'decoder'):
    own, layer = params[side]['lstm'], torch.nn.LSTM(7, 12, batch_first=True)
    values = {'weight_ih_l0': own['input_kernel'].T, 'weight_hh_l0': own['recurrent_kernel'].T,
              'bias_ih_l0': own['bias'], 'bias_hh_l0': np.zeros(48, np.float32)}
    layer.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    sides.append(layer)
    leaves += [(side, 'input_kernel', layer.weight_ih_l0), (side, 'recurrent_kernel', layer.weight_hh_l0)]
  one_hot = lambda tokens: torch.nn.functional.one_hot(torch.tensor(tokens), 7).float()
  _, state = sides[0](one_hot(source_BS))
  outputs, _ = sides[1](one_hot(target_BT), state)
  logits = outputs @ torch.tensor(params['head']['weight']).T + torch.tensor(params['head']['bias'])
  logits.square().sum().backward()

  found = lambda params: network.apply(params, mutable, source_BS, target_BT, jnp.ones((3, 5)))[0]
  np.testing.assert_allclose(found(params), logits.detach(), rtol=1e-5, atol=1e-6)
  slopes = jax.grad(lambda params: jnp.sum(jnp.square(found(params))))(params)
  for side, name, leaf in leaves:
    np.testing.assert_allclose(slopes[side]['lstm'][name], leaf.grad.T, rtol=1e-4, atol=1e-5)
