"""A small classifier of scikit-learn's digits (8x8), for metrics of samples.

    genjax train --config=configs/classifiers/digits_classifier.py --workdir=runs/digits_classifier
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=300, batch_size=128)
  config.experiment = 'genjax.experiments.classifier'
  config.data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10, **common.IMAGES)
  config.model = dict(name='convolutional', width=32, layers=2, convolutions=1, features=32, dropout=0.0)
  config.objective = dict(smoothing=0.1, shift=0, flip=False)
  config.optimizers = dict(net=dict(name='adam', lr=3e-3, warmup=0, schedule='cosine'))
  if arg.smoke:
    common.smoke(config)
    config.model.update(width=8, features=8)
  config.sample_every = 0  # nothing to sample
  return config
