"""A judge of the attributes of sprites, for the measure `attributes` of models that draw them from captions: one head
for each attribute, trained on real sprites with blur, shifts and noise. Pairs that generators do not see are among its
training data, so that it judges them as well as others.

    genjax train --config=configs/classifiers/sprites_attributes.py --workdir=runs/sprites_judge
    genjax train --config=configs/classifiers/sprites_attributes.py:full --workdir=runs/sprites_full_judge

Argument `full`: the set of three actions and three directions, at 64 pixels.
"""

from genjax.configs import common

ATTRIBUTES = dict(body=7, trousers=7, top=7, hair=10, shoes=3)


def get_config(arg=None):
  arg = common.parse_arg(arg, full=False, smoke=False)
  config = common.base(steps=3000 if arg.full else 300, batch_size=128)
  config.experiment = 'genjax.experiments.attributes'
  name, shape = ('lpc_sprites_full', (64, 64, 3)) if arg.full else ('lpc_sprites', (56, 32, 3))
  config.data = dict(common.IMAGES, name=name, train='train+unseen', heldout='test', shape=shape, num_classes=0)
  config.model = dict(name='convolutional', width=24, layers=3, convolutions=1, features=128, dropout=0.0)
  config.objective = dict(attributes=dict(ATTRIBUTES, **(dict(action=3, direction=3) if arg.full else {})), shift=1,
                          blur=1, noise=0.1)
  config.optimizers = dict(net=dict(name='adam', lr=2e-3, warmup=20, schedule='cosine', end=0.01))
  config.evaluate_every = 1000 if arg.full else 150
  if arg.smoke:
    common.smoke(config)
    config.data.heldout = 'test[:16]'
    config.model.update(width=8, features=8)
    config.optimizers.net.warmup = 1
  config.sample_every = 0  # nothing to sample
  return config
