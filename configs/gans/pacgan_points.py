"""GAN and PacGAN on 8 Gaussians in a ring and on 25 in a grid, in the published setting (Lin et al. 2018, section 4.1).

    genjax train --config=configs/gans/pacgan_points.py:data=ring,pack=2,steps=10000 --workdir=runs/pacgan_ring

Networks, optimizers, batches of 100 packs and 400,000 steps are those of the code of the paper (fjxmlzn/PacGAN,
2DRing_GAN&PacGAN and 2DGrid_GAN&PacGAN). What differs: the code updates both networks at once, and here the generator
is updated, with latents of its own, against the discriminator that was just updated. The code normalises each member of
a pack over its 100 samples, and here all samples of the batch are normalised together. Packs of the code draw the
100,000 points with replacement. Scales of batch normalisation begin near 1, not at 1. Measures are taken on 10,000
samples, not on 2,500. Arguments: data 'ring' or 'grid'; pack (2), where 1 is the plain GAN; steps
(400000).
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='grid', pack=2, steps=400_000, smoke=False)
  config = common.base(steps=arg.steps, batch_size=100 * arg.pack)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name=f'gaussian_{arg.data}', size=100_000)
  config.model = dict(name='points', latent=2, generator_widths=(400, 400, 400, 400),
                      discriminator_widths=(200, 200, 200), pieces=5, scale=1.0, norm='batch',
                      discriminator_norm='none', momentum=0.95, init_std=0.02, pack=arg.pack)
  config.objective = dict(loss='non_saturating', r1_gamma=0.0, r1_every=16, discriminator_steps=1)
  adam = dict(name='adam', lr=1e-4, b1=0.8, b2=0.999)
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.steps_per_call = 20
  config.log_every = 1000
  config.evaluate_every = max(1, arg.steps // 5)
  config.sample_every = max(1, arg.steps // 5)
  config.sample_num = 2_000
  config.checkpoint.every = max(1, min(5000, arg.steps // 5))
  if arg.smoke:
    common.smoke(config)
    config.data.size = 64
    config.model.generator_widths, config.model.discriminator_widths = (8, 8), (8,)
  return config
