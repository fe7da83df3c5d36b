"""Rows of images."""

from genjax.studies.baselines import Metric, Row

_FLAX = 'flax examples/vae, README'

ROWS = (
  Row('mnist_vae_10', 'configs/autoencoders/mnist_vae.py:epochs=10', seeds=(0, 1, 2), minutes=1, data=('mnist',), metrics=(
    Metric('heldout/loss', (None, 104.0), 'about 104', _FLAX, label='negative ELBO, nats'),
  ), note="One Bernoulli draw of MNIST; flax's example reads Larochelle's binarization."),
)
