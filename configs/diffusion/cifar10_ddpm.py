"""DDPM on CIFAR-10 with the paper's U-Net of 35.7 million parameters (Ho et al. 2020, appendix B). For accelerators.

    genjax train --config=configs/diffusion/cifar10_ddpm.py --workdir=runs/cifar10_ddpm
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, dtype='bfloat16', smoke=False)
  config = common.base(steps=800_000, batch_size=128)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=0, flip=True,
                     **common.IMAGES)
  config.model = dict(name='unet', base=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), groups=32,
                      dropout=0.1, dtype=arg.dtype, attention_kernel='auto', remat='none')
  config.objective = dict(process=dict(name='vp_linear', steps=1000, rescale=False),
                          parameterization=dict(name='epsilon'), times=dict(name='default'),
                          weighting=dict(name='uniform'), label_dropout=0.0, stratified=False)
  # The paper samples with all 1000 steps and the large variance.
  config.sampler = dict(name='ancestral', steps=1000, spacing='', guidance=1.0, clip=1.0,
                        options=dict(variance='large'), **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adam', lr=2e-4, clip=1.0, warmup=5000))
  config.ema = dict(net=0.9999)
  config.evaluate_every = 10_000
  config.sample_every = 10_000
  config.checkpoint.every = 10_000
  if arg.smoke:
    common.smoke(config)
    config.model.base, config.model.multipliers, config.model.groups = 8, (1, 2), 4
    config.model.blocks, config.model.dtype = 1, 'float32'
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
