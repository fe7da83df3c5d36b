"""A small classifier of MNIST for metrics of samples: twelve epochs, about 99.4 % test accuracy.

    genjax train --config=configs/classifiers/mnist_classifier.py --workdir=runs/mnist_classifier

The argument model=vit uses a small Vision Transformer instead.
"""

from genjax.configs import common

MODELS = dict(convolutional=dict(width=24, layers=2, convolutions=1, features=64, dropout=0.0),
              # the usual 0.02 is for widths of hundreds
              vit=dict(patch=7, layers=4, heads=4, width=64, dropout=0.0, init_scale=0.1))
SMOKE = dict(convolutional=dict(width=4, features=8), vit=dict(layers=2, heads=2, width=8))


def get_config(arg=None):
  arg = common.parse_arg(arg, model='convolutional', smoke=False)
  config = common.base(steps=12 * 60_000 // 128, batch_size=128)
  config.experiment = 'genjax.experiments.classifier'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=10, **common.IMAGES)
  config.model = dict(name=arg.model, **MODELS[arg.model])
  config.objective = dict(smoothing=0.0, shift=1, flip=False)
  config.optimizers = dict(net=dict(name='adam', lr=2e-3, warmup=0, schedule='cosine'))
  config.log_every = 200
  if arg.smoke:
    common.smoke(config)
    config.model.update(SMOKE[arg.model])
  config.sample_every = 0  # nothing to sample
  return config
