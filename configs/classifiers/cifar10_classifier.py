"""A small classifier of CIFAR-10 for features of samples: twelve epochs, about 77 % test accuracy.

    genjax train --config=configs/classifiers/cifar10_classifier.py --workdir=runs/cifar10_classifier
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=12 * 50_000 // 128, batch_size=128)
  config.experiment = 'genjax.experiments.classifier'
  config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10, **common.IMAGES)
  config.model = dict(name='convolutional', width=32, layers=3, convolutions=1, features=128, dropout=0.0)
  config.objective = dict(smoothing=0.0, shift=2, flip=True)
  config.optimizers = dict(net=dict(name='adam', lr=2e-3, warmup=0, schedule='cosine'))
  config.log_every = 200
  if arg.smoke:
    common.smoke(config)
    config.model.update(width=8, features=8)
  config.sample_every = 0  # nothing to sample
  return config
