"""A class-conditional flow-matching DiT on scikit-learn's digits (8x8): trains in minutes on two CPU cores.

    genjax train --config=configs/quickstart.py --workdir=runs/quickstart
"""

from genjax.configs import common, sweeps


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=1400, batch_size=128)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10, flip=False,
                     **common.IMAGES)
  config.model = dict(name='dit', patch=2, width=96, depth=4, heads=4, dtype='float32', attention='auto', remat='none',
                      unroll=True)
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='default'), weighting=dict(name='uniform'),
                          label_dropout=0.1, stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=16, spacing='', guidance=1.3, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.995)
  config.evaluate_every = 700
  config.sample_every = 700
  config.sample_num = 100
  config.checkpoint.every = 700
  if arg.smoke:
    common.smoke(config)
    config.model.width, config.model.depth = 16, 2
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config


def sweep():
  """An ablation of what the network predicts, of what carries data to noise, and of guidance; three seeds."""
  return sweeps.product({'objective.parameterization.name': ('velocity', 'x0', 'v'),
                         'objective.process.name': ('flow', 'vp_cosine'), 'sampler.guidance': (1.0, 1.3)},
                        sweeps.seeds(3))
