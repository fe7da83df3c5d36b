"""A class-conditional flow-matching DiT on MNIST, for two CPU cores.

genjax train --config=configs/mnist_flow.py --workdir=runs/mnist_flow
"""

from configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=4000, batch_size=64)
  config.experiment = 'experiments.diffusion'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=10, flip=False,
                     data_dir='', originals='')
  config.model = dict(name='dit', patch=4, width=128, depth=6, heads=4, unroll=True)
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='default'), label_dropout=0.1, stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=20, spacing='', guidance=2.0, clip=0.0, options=dict())
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.99, warmup=200, schedule='cosine', end=0.02))
  config.ema = dict(net=0.998)
  config.evaluate_every = 2000
  config.evaluate_batches = 16
  config.sample_every = 2000
  config.sample_num = 100
  if arg.smoke:
    common.smoke(config)
    config.model.width, config.model.depth = 16, 2
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
