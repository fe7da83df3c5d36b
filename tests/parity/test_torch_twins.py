"""Every network against the same architecture in PyTorch, on the same parameters: outputs and gradients."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.adversarial import dcgan
from genjax.models.autoencoders import vae
from genjax.models.denoisers import dit, unet
from genjax.models.transformers import decoder

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
twins = importlib.import_module('genjax.experiments.benchmarks.torch_twins')
pytestmark = pytest.mark.slow


def random_params(network, seed=0):
  """Parameters without the zeros of a fresh network, which would hide most of it."""
  params, mutable = jax.jit(network.init)(jax.random.key(seed))
  leaves, structure = jax.tree.flatten(params)
  noisy = [
    leaf + 0.1 * np.random.default_rng(seed + index).normal(size=leaf.shape).astype(np.float32)
    for index, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, noisy), mutable


def channels_first(x_BHWC):
  return torch.tensor(np.asarray(x_BHWC)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def assert_same(ours, params, theirs, tensors):
  """Outputs agree, and so do the gradients of their sum of sines, summed up leaf by leaf."""
  output, theirs_output = jax.jit(ours)(params), theirs(tensors)
  if theirs_output.ndim == 4:
    theirs_output = theirs_output.permute(0, 2, 3, 1)
  np.testing.assert_allclose(output, theirs_output.detach(), rtol=2e-4, atol=2e-4 * float(jnp.abs(output).max()))
  theirs_output.sin().sum().backward()
  gradient = jax.tree.leaves(jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(ours(params)))))(params))
  found = [leaf.grad for leaf in twins.leaves(tensors) if leaf.grad is not None]
  norm = float(sum(jnp.sum(leaf ** 2) for leaf in gradient))
  assert float(sum((leaf ** 2).sum() for leaf in found)) == pytest.approx(norm, rel=1e-3)
  assert sum(leaf.numel() for leaf in twins.leaves(tensors)) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_gpt():
  config = decoder.TransformerConfig(vocab=37, context=12, layers=3, heads=2, width=24)
  network = decoder.transformer(config)
  params, _ = random_params(network)
  tokens = np.random.default_rng(0).integers(0, 37, (2, 12))
  assert_same(lambda params: network.apply(params, {}, jnp.asarray(tokens))[0], params,
              lambda tensors: twins.gpt(tensors, config, torch.tensor(tokens)), twins.convert(params))


def test_gpt2_of_transformers():
  """Weights under their public names give the published implementation's logits."""
  transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
  config = decoder.TransformerConfig(vocab=37, context=12, layers=3, heads=2, width=24)
  network = decoder.transformer(config)
  params, _ = random_params(network)
  model = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(vocab_size=37, n_positions=12, n_embd=24, n_layer=3, n_head=2)).eval()
  missing = model.load_state_dict(twins.gpt2_weights(params), strict=False)
  assert not missing.missing_keys
  assert not missing.unexpected_keys
  tokens = np.random.default_rng(0).integers(0, 37, (2, 12))
  theirs = model(torch.tensor(tokens)).logits.detach()
  ours = jax.jit(network.apply)(params, {}, jnp.asarray(tokens))[0]
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(ours).max()))


def test_dit():
  config = dit.DiT((8, 12, 3), patch=2, width=24, depth=2, heads=3, num_classes=5)
  network = dit.network(config)
  params, _ = random_params(network)
  x, time, label = jax.random.normal(jax.random.key(3), (2, 8, 12, 3)), jnp.asarray([3.0, 700.0]), jnp.asarray([1, 5])
  assert_same(
    lambda params: network.apply(params, {}, x, time, {'label': label})[0], params,
    lambda tensors: twins.dit(tensors, config, channels_first(x), torch.tensor([3.0, 700.0]), torch.tensor([1, 5])),
    twins.convert(params))


def test_unet():
  config = unet.UNet((8, 8, 3), base=16, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, heads=2, num_classes=5,
                     dropout=0.0)
  network = unet.network(config)
  params, mutable = random_params(network)
  x, time, label = jax.random.normal(jax.random.key(3), (2, 8, 8, 3)), jnp.asarray([3.0, 700.0]), jnp.asarray([1, 5])
  assert_same(
    lambda params: network.apply(params, mutable, x, time, {'label': label})[0], params,
    lambda tensors: twins.unet(tensors, config, channels_first(x), torch.tensor([3.0, 700.0]), torch.tensor([1, 5])),
    twins.convert(params))


def test_convolutional_autoencoder():
  encoder, decoder = vae.networks(vae.ConvConfig((8, 8, 1), latent=5, channels=(6, 10)))
  x, z = jax.random.normal(jax.random.key(3), (3, 8, 8, 1)), jax.random.normal(jax.random.key(4), (3, 5))
  params, _ = random_params(encoder)
  assert_same(lambda params: jnp.concatenate(encoder.apply(params, {}, x)[0], axis=1), params,
              lambda tensors: torch.cat(twins.encoder(tensors, channels_first(x)), 1), twins.convert(params))
  params, _ = random_params(decoder)
  assert_same(lambda params: decoder.apply(params, {}, z)[0], params,
              lambda tensors: twins.decoder(tensors, torch.tensor(np.asarray(z)), 2),
              twins.convert(params, transposed=('layers',)))


@pytest.mark.parametrize('norm', ['batch', 'none'])
def test_dcgan(norm):
  config = dcgan.Dcgan(size=16, channels=3, latent=5, generator_width=6, discriminator_width=6, discriminator_norm=norm)
  x, z, key = jax.random.normal(jax.random.key(3), (4, 16, 16, 3)), jax.random.normal(jax.random.key(4),
                                                                                      (4, 5)), jax.random.key(5)
  network = config.generator()
  params, mutable = random_params(network)
  assert_same(lambda params: network.apply(params, mutable, z, key=key)[0], params,
              lambda tensors: twins.generator(tensors, config, torch.tensor(np.asarray(z))),
              twins.convert(params, transposed=('stages',)))
  network = config.discriminator()
  params, mutable = random_params(network)
  assert_same(lambda params: network.apply(params, mutable, x, key=key)[0], params,
              lambda tensors: twins.discriminator(tensors, config, channels_first(x)), twins.convert(params))
