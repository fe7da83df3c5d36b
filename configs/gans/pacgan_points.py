"""GAN and PacGAN on 8 Gaussians in a ring and on 25 in a grid, in the published setting (Lin et al. 2018, section 4.1).

    genjax train --config=configs/gans/pacgan_points.py:data=ring,pack=2,steps=10000 --workdir=runs/pacgan_ring
    genjax sweep --config=configs/gans/pacgan_points.py:size=small --workdir=runs/pacgan_points

Networks, optimizers, batches of 100 packs and 400,000 steps are those of the code of the paper (fjxmlzn/PacGAN,
2DRing_GAN&PacGAN and 2DGrid_GAN&PacGAN). What differs: the code updates both networks at once, and here the generator
is updated, with latents of its own, against the discriminator that was just updated. The code normalises each member of
a pack over its 100 samples, and here all samples of the batch are normalised together. Packs of the code draw the
100,000 points with replacement. Scales of batch normalisation begin near 1, not at 1, and its epsilon is 1e-5, not
1e-4. Measures are taken on 10,000 samples, not on 2,500. Arguments: data 'ring' or 'grid'; pack (2), where 1 is the
plain GAN; steps, where 0 is the number of the size; size 'published', or 'small': networks and schedule of
`grid_gan.py` in batches of 128 points, 16,000 steps, which take minutes. The sweep has both sets of points, one and two
samples a pack, and ten seeds of each.
"""

from genjax.configs import common, sweeps

STEPS = {'published': (400_000,), 'small': (16_000,)}
SCALE = {'grid': 0.25, 'ring': 0.05}  # of the small networks: the deviation of a mode becomes 0.2 in both sets


def get_config(arg=None):
  arg = common.parse_arg(arg, data='grid', pack=2, steps=0, size='published', smoke=False)
  (steps,) = common.size(STEPS, arg.size, 'size')
  small, steps = arg.size == 'small', arg.steps or steps
  config = common.base(steps=steps, batch_size=128 if small else 100 * arg.pack)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name=f'gaussian_{arg.data}', size=100_000)
  if small:
    networks = dict(generator_widths=(128, 128, 128), discriminator_widths=(64, 64, 64), scale=SCALE.get(arg.data, 1.0),
                    norm='none', momentum=0.95, init_std=0.0)
    adam = dict(name='adam', lr=1e-3, b1=0.5, b2=0.999, schedule='linear', end=0.01)
    config.ema = dict(generator=0.99)
  else:
    networks = dict(generator_widths=(400, 400, 400, 400), discriminator_widths=(200, 200, 200), scale=1.0,
                    norm='batch', momentum=0.95, init_std=0.02)
    adam = dict(name='adam', lr=1e-4, b1=0.8, b2=0.999)
  config.model = dict(name='points', latent=2, **networks, pieces=5, discriminator_norm='none', pack=arg.pack)
  config.objective = dict(loss='non_saturating', r1_gamma=0.0, r1_every=16, discriminator_steps=1)
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.steps_per_call = 20
  config.log_every = 1000
  config.evaluate_every = max(1, steps // 5)
  config.sample_every = max(1, steps // 5)
  config.sample_num = 2_000
  config.checkpoint.every = max(1, min(5000, steps // 5))
  if arg.smoke:
    common.smoke(config)
    config.data.size = 64
    config.model.generator_widths, config.model.discriminator_widths = (8, 8), (8,)
  return config


def sweep():
  """Both sets of points, a plain GAN and PacGAN2, ten seeds of each."""
  return sweeps.product({'arg.data': ('ring', 'grid'), 'arg.pack': (1, 2)}, sweeps.seeds(10))
