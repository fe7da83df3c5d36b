"""DDPM at 256 px, U-Net with 114 M parameters (Ho et al. 2020, appendix B: LSUN and CelebA-HQ). For accelerators.

    genjax plan --config=configs/diffusion/ddpm_256.py --topology=v5e:4x4
    genjax train --config=configs/diffusion/ddpm_256.py:data=celeb_a_hq/256 --workdir=runs/ddpm_256

Argument `data`: a TFDS data set of 256 x 256 x 3 images with a split 'train', whose last 1,000 are held out. Without it
the images are noise of the same shape, for plans and benchmarks.

Setting of the paper: 128 channels with multipliers 1, 1, 2, 2, 4, 4, two residual blocks a level, attention at 16 x 16,
no dropout, batch 64, Adam 2e-5, average 0.9999, 1,000 linear steps from 1e-4 to 0.02, mirrored images.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', smoke=False)
  config = common.base(steps=500_000, batch_size=64)
  config.experiment = 'genjax.experiments.diffusion'
  split = dict(name=arg.data, train='train[:-1000]', heldout='train[-1000:]') if arg.data else dict(
    name='random_images', train='train', heldout='heldout')
  config.data = dict(split, shape=(256, 256, 3), num_classes=0, flip=True, **common.IMAGES)
  config.model = dict(name='unet', base=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,), groups=32,
                      dropout=0.0, dtype='bfloat16')
  config.objective = dict(process=dict(name='vp_linear', steps=1000, rescale=False),
                          parameterization=dict(name='epsilon'), times=dict(name='default'),
                          weighting=dict(name='uniform'), label_dropout=0.0, stratified=False)
  config.sampler = dict(name='ancestral', steps=1000, spacing='', guidance=1.0, clip=1.0,
                        options=dict(variance='large'), **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adam', lr=2e-5, clip=1.0, warmup=5000))
  config.ema = dict(net=0.9999)
  config.evaluate_every = 10_000
  config.sample_every = 10_000
  config.checkpoint.every = 10_000
  if arg.smoke:
    common.smoke(config)
    config.data.shape = (32, 32, 3)
    config.model.update(base=8, multipliers=(1, 2), blocks=1, groups=4, dtype='float32')
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
