"""Real pictures against generated ones: a classifier that detects what a generator drew.

    genjax sample --workdir=runs/digits_gan --num=2000 --out=generated/gan
    genjax train --config=configs/classifiers/detector.py:data=digits,generated=generated/gan --workdir=runs/detector

Label 0 is real and 1 generated; batches have as many of one as of the other. The last fifth of the folder is held out,
and the test split of the real set. Arguments: data, one of 'digits', 'mnist', 'fashion_mnist' and 'cifar10'; generated,
a folder of pictures that `genjax sample` wrote; steps (1000). docs/gans.md tells how a detector of one generator is
tried on another.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='digits', generated='', steps=1000, smoke=False)
  if not arg.generated and not arg.smoke:
    raise ValueError('config argument generated is needed: a folder of pictures that genjax sample wrote')
  side, channels = common.size(common.PICTURES, arg.data, 'data')
  made = dict(name=arg.generated, train='train[:80%]', heldout='train[80%:]')
  if arg.smoke:
    made = dict(name='random_images', train='train', heldout='heldout')
  data = dict(name='', train='train', heldout='test', shape=(side, side, channels), num_classes=2,
              mixture=(dict(name=arg.data, weight=1, label=0), dict(made, weight=1, label=1)))
  return common.classifier(arg, data, steps=arg.steps, width=32, layers=2, rate=1e-3, log_every=100, evaluations=5)
