"""Rows of images, and of the grid of Gaussians."""

from genjax.studies.baselines import Metric, Row

TITLE = 'Images and points'
THREE = (0, 1, 2)
_FLAX = 'google/flax, examples/vae/README.md'
_SONNET = 'google-deepmind/sonnet, examples/vqvae_example.ipynb, outputs at 10,000 steps'
_PACGAN = 'Lin et al. 2018 (PacGAN), table 1, PacGAN2'
_AGREEMENT = 'samples/label_agreement'
_JUDGE = "The classifier is the project's own, `mnist_classifier.py`."

ROWS = (
  Row('quickstart', 'configs/quickstart.py', seeds=THREE, minutes=2.5, metrics=(
    Metric(_AGREEMENT, (0.96, None), label='samples with the label asked for', percent=True),
    Metric('samples/distance_ratio_mean', (0.8, 1.1), label='distance within a class, over the real one'),
    Metric('samples/copies', (None, 0.02), label='copies of training images', percent=True)),
      note="The classifier is the project's own, `digits_classifier.py`, right on 98.6 % of held-out digits. A "
           'support vector machine written apart from the project, right on 99.1 % of them, agreed with 99.1 % of '
           '1,000 samples of seed 0.'),
  Row('mnist_vae_10', 'configs/autoencoders/mnist_vae.py:epochs=10', seeds=THREE, minutes=1.5, data=('mnist',),
      metrics=(
        Metric('heldout/negative_elbo', (None, 104.0), 'about 104', _FLAX, label='negative ELBO, nats'),
        Metric('heldout/negative_bound_50', (None, 100.0), label='50-sample bound, nats')),
      note="One Bernoulli draw of MNIST; flax's example reads Larochelle's binarization."),
  Row('mnist_vae_30', 'configs/autoencoders/mnist_vae.py:epochs=30', seeds=THREE, minutes=3, data=('mnist',), metrics=(
    Metric('heldout/negative_elbo', (None, 101.0), label='negative ELBO, nats'),
    Metric('heldout/negative_bound_50', (None, 97.0), label='50-sample bound, nats')),
      note='The same after 30 epochs.'),
  Row('vqvae_cifar10', 'configs/autoencoders/cifar10_vqvae.py', minutes=60, data=('cifar10',), metrics=(
    Metric('heldout/relative_error', (0.054, 0.060), '0.056', _SONNET, label='squared error over the variance'),
    Metric('heldout/batch_perplexity', (300.0, 350.0), '326', _SONNET, label='perplexity of the codes of 32 images'),
    Metric('codes/perplexity', (None, None), label='perplexity over all held-out images'),
    Metric('codes/used', (None, None), label='codes used of 512')),
      note='Published values are of training batches; ours are of the 10,000 training images that the example holds '
           'out, in batches of 32.'),
  Row('grid_gan', 'configs/gans/grid_gan.py', seeds=THREE, minutes=2, metrics=(
    Metric('modes/covered', (22.5, None), '23.8', _PACGAN, label='modes of 25'),
    Metric('modes/high_quality', (0.88, None), '91.3 %', _PACGAN, label='samples within 3 deviations', percent=True),
    Metric('modes/reverse_kl', (None, 0.13), '0.13', _PACGAN, label='reverse KL, nats')),
      note='Data and measures are those of the paper; networks and schedule are smaller (24,000 steps for 400,000).'),
  Row('mnist_gan', 'configs/gans/mnist_gan.py', minutes=8, data=('mnist',), metrics=(
    Metric('samples/classes_covered', (10, 10), label='digits covered'),
    Metric('samples/frechet', (None, None), label="Fréchet distance in the classifier's features"),
    Metric('samples/frechet_train', (None, None), label='the same of training images')),
      note=f'{_JUDGE} A network written apart from the project found shares of 8.5 to 13.9 % for the ten digits.'),
  Row('mnist_flow', 'configs/diffusion/mnist_flow.py', minutes=9, data=('mnist',), metrics=(
    Metric(_AGREEMENT, (0.985, None), label='samples with the label asked for', percent=True),
    Metric('samples/copies', (None, 0.02), label='copies of training images', percent=True)),
      note=f'{_JUDGE} A network written apart from the project, right on 99.3 % of test digits, agreed with 99.85 %.'),
  Row('mnist_ddpm_unet', 'configs/diffusion/mnist_ddpm_unet.py', minutes=9, data=('mnist',), metrics=(
    Metric(_AGREEMENT, (0.985, None), label='samples with the label asked for', percent=True),
    Metric('samples/copies', (None, 0.02), label='copies of training images', percent=True)),
      note=f'{_JUDGE} The network written apart from the project agreed with 99.6 %.'),
)
