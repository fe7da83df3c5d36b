"""A classifier that learns from real and generated pictures together, and is judged on real ones.

    genjax sample --workdir=runs/digits_gan --num=2000 --conditions=label=0-9 --out=generated/gan
    genjax train --config=configs/classifiers/augmented.py:data=digits,real=train[:100],generated=generated/gan \\
      --workdir=runs/augmented

Without `generated` it learns from the real pictures alone, for as many steps: the accuracy to compare with. Arguments:
data, one of 'digits', 'mnist', 'fashion_mnist' and 'cifar10'; real, the split of it that is trained on; generated, a
folder of pictures with labels that `genjax sample` wrote; share (0.5), of generated pictures in a batch; steps.
"""

from genjax.configs import common

# Width and halvings of the network; shift and mirroring of training pictures
NETWORKS = {'digits': (32, 2, 0, False), 'mnist': (24, 2, 1, False), 'fashion_mnist': (24, 2, 1, True),
            'cifar10': (32, 3, 2, True)}


def get_config(arg=None):
  arg = common.parse_arg(arg, data='digits', real='train', generated='', share=0.5, steps=1000, smoke=False)
  if not 0 < arg.share < 1:
    raise ValueError(f'config argument share must be between 0 and 1, got {arg.share}; leave generated out to learn '
                     'from real pictures alone')
  width, layers, shift, flip = common.size(NETWORKS, arg.data, 'data')
  side, channels = common.PICTURES[arg.data]
  mixture = (dict(name=arg.data, weight=1 - arg.share),
             dict(name=arg.generated, weight=arg.share, train='train', heldout=''))
  sets = dict(name='', mixture=mixture) if arg.generated else dict(name=arg.data)
  data = dict(sets, train=arg.real, heldout='test', shape=(side, side, channels), num_classes=10)
  return common.classifier(arg, data, steps=arg.steps, width=width, layers=layers, shift=shift, flip=flip,
                           log_every=100, evaluations=5)
