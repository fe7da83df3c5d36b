"""A small classifier of scikit-learn's digits (8x8), for metrics of samples.

    genjax train --config=configs/classifiers/digits_classifier.py --workdir=runs/digits_classifier
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10)
  return common.classifier(arg, data, steps=300, width=32, layers=2, features=32, rate=3e-3, smoothing=0.1)
