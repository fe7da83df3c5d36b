"""StyleGAN2's generator against the same network in PyTorch, on random variables."""

import importlib

import jax
import numpy as np
import pytest

from genjax.models.adversarial.stylegan2 import StyleGan2

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
torch_stylegan2 = importlib.import_module('genjax.experiments.benchmarks.torch_stylegan2')
pytestmark = pytest.mark.slow


def test_images_are_those_of_torch():
  """With noise, biases and a rate of the mapping network; some activations reach the limit."""
  config = StyleGan2(size=16, channels=2, latent=5, style=6, mapping=2, width=64, width_max=8, clamp=2.0)
  network, random = config.generator(), np.random.default_rng(0)
  params, mutable = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32),
                                 jax.eval_shape(network.init, jax.random.key(0)))
  for layer in params['mapping']['layers'].values():
    layer['kernel'] /= config.mapping_rate
  latent = random.standard_normal((3, 5)).astype(np.float32)
  image, _ = jax.jit(network.apply)(params, mutable, latent)
  with torch.no_grad():
    theirs = torch_stylegan2.generator(*torch_stylegan2.twin(params, mutable), config, torch.tensor(latent))
  assert np.std(image) > 0.05
  np.testing.assert_allclose(image, theirs.permute(0, 2, 3, 1), atol=1e-4)
