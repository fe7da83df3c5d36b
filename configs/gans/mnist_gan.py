"""DCGAN on MNIST at 28 pixels.

    genjax train --config=configs/gans/mnist_gan.py --workdir=runs/mnist_gan

Architecture and initialisation of Radford et al. 2016 at half their width, with lazy R1 (Mescheder et al. 2018) and an
averaged generator. The argument `conditional` gives both networks the label.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, conditional=False, smoke=False)
  width = 4 if arg.smoke else 32
  config = common.base(steps=8_000, batch_size=64)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=10, **common.IMAGES)
  config.model = dict(name='dcgan', latent=64, generator_width=width, discriminator_width=width, norm='batch',
                      discriminator_norm='none', spectral=False, pack=1, momentum=0.99, dtype='float32')
  config.objective = dict(loss='non_saturating', distribution='normal', r1_gamma=1.0, r1_every=2 if arg.smoke else 8,
                          discriminator_steps=1, conditional=arg.conditional)
  adam = dict(name='adam', lr=5e-4, b1=0.5, b2=0.99, schedule='linear', end=0.05)
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.ema = dict(generator=0.995)
  config.evaluate_every = 2_000
  config.evaluate_batches = 20
  config.sample_every = 1_000
  config.sample_num = 100
  return common.smoke(config) if arg.smoke else config
