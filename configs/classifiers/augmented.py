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
  config = common.base(steps=arg.steps, batch_size=128)
  config.experiment = 'genjax.experiments.classifier'
  mixture = (dict(name=arg.data, weight=1 - arg.share),
             dict(name=arg.generated, weight=arg.share, train='train', heldout=''))
  sets = dict(name='', mixture=mixture) if arg.generated else dict(name=arg.data)
  config.data = dict(common.IMAGES, **sets, train=arg.real, heldout='test', shape=(side, side, channels),
                     num_classes=10)
  config.model = dict(name='convolutional', width=width, layers=layers, convolutions=1, features=64, dropout=0.0)
  config.objective = dict(smoothing=0.0, shift=shift, flip=flip)
  config.optimizers = dict(net=dict(name='adam', lr=2e-3, warmup=0, schedule='cosine'))
  config.log_every = 100
  config.evaluate_every = max(1, arg.steps // 5)
  if arg.smoke:
    common.smoke(config)
    config.model.update(width=8, features=8)
  config.sample_every = 0  # nothing to sample
  return config
