"""Class-conditional flow matching on MNIST with a small U-Net, for two CPU cores.

    genjax train --config=configs/diffusion/mnist_flow.py --workdir=runs/mnist_flow
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=2000, batch_size=32)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=10, flip=False,
                     **common.IMAGES)
  config.model = dict(name='unet', base=16, multipliers=(1, 2, 4), blocks=1, attention=(7,), groups=8, dropout=0.0)
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='default'), weighting=dict(name='uniform'),
                          label_dropout=0.1, stratified=True,
                          evaluation_times=4)
  config.sampler = dict(name='dpmpp_2m', steps=20, spacing='', guidance=2.0, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adam', lr=2e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.998)
  config.evaluate_every = 1000
  config.evaluate_batches = 16
  config.log_every = 100
  config.sample_every = 1000
  config.sample_num = 100
  if arg.smoke:
    common.smoke(config)
    config.model.base, config.model.multipliers, config.model.attention = 8, (1, 2), ()
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
