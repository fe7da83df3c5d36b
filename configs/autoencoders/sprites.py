"""The autoencoder of Stable Diffusion, small, on the LPC sprites: latents of an eighth of the side with 16 channels, in
which configs/diffusion/sprites_text.py:autoencoder=RUN generates.

    genjax train --config=configs/autoencoders/sprites.py --workdir=runs/sprites_autoencoder
    genjax train --config=configs/diffusion/sprites_text.py:autoencoder=runs/sprites_autoencoder --workdir=runs/sprites

Argument `full`: the set of three actions and three directions, at 64 pixels.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, full=False, smoke=False)
  config = common.base(steps=6000 if arg.full else 2000, batch_size=32)
  config.experiment = 'genjax.experiments.kl'
  name, shape = ('lpc_sprites_full', (64, 64, 3)) if arg.full else ('lpc_sprites', (56, 32, 3))
  config.data = dict(common.IMAGES, name=name, train='train', heldout='test', shape=shape, num_classes=0, flip=False)
  config.model = dict(name='kl', base=32, multipliers=(1, 2, 2, 4), latent=16, blocks=1, groups=8, attention=(),
                      projections=True, dtype='float32', remat='none')
  config.objective = dict(reconstruction='l1', kl_weight=1e-6, normalisation='channels')
  config.optimizers.net = dict(name='adam', lr=1e-3, b1=0.5, b2=0.9, clip=1.0, warmup=200, schedule='cosine', end=0.05)
  config.ema = dict(net=0.999)
  config.evaluate_every = 500
  config.evaluate_batches = 8
  config.sample_every = 500
  config.checkpoint.every = 500
  if arg.smoke:
    common.smoke(config)
    config.data.heldout = 'test[:16]'
    config.model.update(base=8, multipliers=(1, 2), latent=3, groups=4)
    config.optimizers.net.warmup = 1
  return config
