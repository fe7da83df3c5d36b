"""A small StyleGAN2 on 2,000 LPC sprites at 32 pixels, with or without adaptive augmentation (Karras et al. 2020a).

    genjax data build lpc_sprites --from=FOLDER
    genjax sweep --config=configs/gans/sprites_stylegan2.py --workdir=runs/sprites_stylegan2

The sweep trains without augmentation and with it. Argument `ada` trains one of the two. Sprites of 56 x 32 pixels are
stretched to squares. Samples are judged by a classifier of attributes that reads sprites of this size:

    genjax train --config=configs/classifiers/sprites_attributes.py --config.data.shape='(32,32,3)' \\
      --config.data.resize=bilinear --workdir=runs/judge
    genjax evaluate --workdir=RUN --set evaluation.measures=frechet evaluation.extractor=judge \\
      evaluation.parts.judge=runs/judge

Rates, losses and averages are those of the configuration 'auto' of NVlabs/stylegan2-ada-pytorch; widths are an eighth
to a thirty-second of it. The strength of augmentation may change five times as fast as published, since the run is
short.
"""

from genjax.configs import common, sweeps


def get_config(arg=None):
  arg = common.parse_arg(arg, ada=False, smoke=False)
  config = common.base(steps=6_000, batch_size=32)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(common.IMAGES, name='lpc_sprites', train='train[:2000]', heldout='test', shape=(32, 32, 3),
                     num_classes=0, resize='bilinear')
  config.model = dict(name='stylegan2', latent=64, style=64, mapping=2, width=512, width_max=64, critic='residual',
                      group=4, clamp=0.0, average=0.995, dtype='float32')
  config.objective = dict(loss='non_saturating', distribution='normal', r1_gamma=0.02, r1_every=16, mixing=0.9,
                          path_weight=2.0, path_every=4, path_decay=0.01, path_shrink=2, truncation=1.0,
                          truncation_layers=0, discriminator_steps=1, conditional=False, corrected_adam=True,
                          watch=True)
  config.objective.augment = dict(name='ada', target=0.6, kimg=100.0, every=4) if arg.ada else dict(name='none')
  adam = dict(name='adam', lr=2.5e-3, b1=0.0, b2=0.99, eps=1e-8)
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.ema = dict(generator=dict(half_life=5_000.0, ramp_up=0.05))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=1_000)
  config.log_every = 25
  config.evaluate_every = config.sample_every = config.checkpoint.every = 1_000
  config.evaluate_batches = 8
  config.sample_num = 64
  if arg.smoke:
    common.smoke(config)
    config.data.update(shape=(8, 8, 3), heldout='test[:16]')
    config.model.update(latent=8, style=8, width=64, width_max=8)
    config.objective.update(r1_every=2, path_weight=0.0)
  return config


def sweep():
  """Without augmentation, and with it."""
  return sweeps.product({'arg.ada': (False, True)})
