"""Class-conditional flow matching on CIFAR-10 with a DiT (Lipman et al. 2023; Peebles & Xie 2023). For accelerators.

    genjax train --config=configs/diffusion/cifar10_flow.py:model=S --workdir=runs/cifar10_flow

Argument `model` is a size of the DiT paper: S, B, L or XL.
"""

from genjax.configs import common

SIZES = {'S': (384, 12, 6), 'B': (768, 12, 12), 'L': (1024, 24, 16), 'XL': (1152, 28, 16)}  # width, depth, heads


def get_config(arg=None):
  arg = common.parse_arg(arg, model='S', dtype='bfloat16', smoke=False)
  width, depth, heads = common.size(SIZES, arg.model)
  config = common.base(steps=400_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10, flip=True,
                     **common.IMAGES)
  config.model = dict(name='dit', patch=2, width=width, depth=depth, heads=heads, dtype=arg.dtype, attention='auto',
                      remat='none')
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=0.0, std=1.0), weighting=dict(name='uniform'),
                          label_dropout=0.1, stratified=True)
  config.sampler = dict(name='heun', steps=25, spacing='', guidance=1.5, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adamw', lr=1e-4, b2=0.99, warmup=1000))
  config.ema = dict(net=0.9999)
  config.evaluate_every = 10_000
  config.sample_every = 10_000
  config.checkpoint.every = 10_000
  if arg.smoke:
    common.smoke(config)
    config.model.width, config.model.depth, config.model.heads, config.model.dtype = 16, 2, 2, 'float32'
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
