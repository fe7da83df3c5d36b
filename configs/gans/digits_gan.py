"""A class-conditional GAN on scikit-learn's 8-pixel digits.

    genjax train --config=configs/gans/digits_gan.py --workdir=runs/digits_gan

Hinge loss, a spectrally normalised projection discriminator (Miyato et al. 2018, Miyato and Koyama 2018). About a
minute on two cores, with nothing to download.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  width = 8 if arg.smoke else 64
  config = common.base(steps=3_000, batch_size=64)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10, **common.IMAGES)
  config.model = dict(name='dcgan', latent=32, generator_width=width, discriminator_width=width, norm='batch',
                      discriminator_norm='none', spectral=True, pack=1, momentum=0.99, dtype='float32')
  config.objective = dict(loss='hinge', distribution='normal', r1_gamma=0.0, r1_every=16, discriminator_steps=1,
                          conditional=True)
  adam = dict(name='adam', lr=5e-4, b1=0.5, b2=0.99, schedule='linear', end=0.05)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.ema = dict(generator=0.99)
  config.evaluate_every = 1_000
  config.sample_every = 1_000
  config.sample_num = 100
  return common.smoke(config) if arg.smoke else config
