"""A small classifier of CIFAR-10 for features of samples: twelve epochs, about 77 % test accuracy.

    genjax train --config=configs/classifiers/cifar10_classifier.py --workdir=runs/cifar10_classifier
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10)
  return common.classifier(arg, data, steps=12 * 50_000 // 128, width=32, layers=3, features=128, shift=2, flip=True,
                           log_every=200)
