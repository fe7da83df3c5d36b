"""BigGAN's generator against the same network in PyTorch, on random variables: tables of classes, and chunks."""

import importlib

import jax
import numpy as np
import pytest

from genjax.models.adversarial.biggan import BigGan

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
twins = importlib.import_module('genjax.experiments.benchmarks.torch_twins')
torch_biggan = importlib.import_module('genjax.experiments.benchmarks.torch_biggan')
pytestmark = pytest.mark.slow

SMALL = dict(size=16, channels=2, latent=6, generator_width=6, discriminator_width=6, generator_multiples=(4, 2, 1),
             discriminator_multiples=(1, 2), halvings=2, num_classes=3, init='normal')


@pytest.mark.parametrize('options', [{}, dict(shared=5, chunks=True), dict(shared=5)],
                         ids=['tables', 'chunks', 'shared'])
def test_images_are_those_of_torch(options):
  network, random = BigGan(**SMALL, **options).generator(), np.random.default_rng(0)
  params, mutable = jax.tree.map(
    lambda leaf: (random.uniform(0.5, 1.5, leaf.shape) * random.choice([-1, 1], leaf.shape)).astype(np.float32),
    jax.eval_shape(network.init, jax.random.key(0)))
  mutable = jax.tree_util.tree_map_with_path(  # variances are positive
    lambda path, leaf: np.abs(leaf) if path[-1].key == 'var' else leaf, mutable)
  mutable = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf / np.linalg.norm(leaf) if path[-1].key == 'u' else leaf, mutable)
  params = jax.tree.map(lambda leaf: np.float32(0.3) * leaf, params)
  latent, label = random.standard_normal((4, 6)).astype(np.float32), np.array([0, 2, 1, 2])
  image, _ = jax.jit(network.apply)(params, mutable, latent, label)
  with torch.no_grad():
    theirs = torch_biggan.generator(twins.convert(params), twins.convert(mutable), torch.tensor(latent),
                                    torch.tensor(label), 4, 3 if options.get('chunks') else 1)
  assert np.std(image) > 0.05
  np.testing.assert_allclose(image, theirs.permute(0, 2, 3, 1), atol=1e-4)
