"""EDM on scikit-learn's digits: preconditioned DiT, log-normal noise levels, Heun's method on the EDM grid.

    genjax train --config=configs/diffusion/digits_edm.py --workdir=runs/digits_edm
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=1500, batch_size=128)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10, flip=False,
                     **common.IMAGES)
  config.model = dict(name='dit', patch=2, width=96, depth=4, heads=4, attention='auto', remat='none', unroll=True)
  # The pixels of the digits, in [-1, 1], have standard deviation 0.75.
  config.objective = dict(process=dict(name='edm', sigma_max=80.0), parameterization=dict(name='edm', data_std=0.75),
                          times=dict(name='log_normal', mean=-0.8, std=1.2), weighting=dict(name='uniform'),
                          label_dropout=0.1, stratified=True)
  config.sampler = dict(name='heun', steps=18, spacing='karras', guidance=1.5, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.995)
  config.evaluate_every = 750
  config.sample_every = 750
  config.sample_num = 100
  if arg.smoke:
    common.smoke(config)
    config.model.width, config.model.depth = 16, 2
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
