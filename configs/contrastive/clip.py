"""A small CLIP (Radford et al. 2021) on pictures with captions, as a judge of pictures and texts. On coloured shapes,
which need no download:

    genjax train --config=configs/contrastive/clip.py --workdir=runs/clip
    genjax evaluate --workdir=runs/clip

On a folder of pictures with captions, with argument `size` the side of the pictures:

    genjax train --config=configs/contrastive/clip.py:data=FOLDER,size=64 --workdir=runs/clip

Another run takes it by --set evaluation.parts.clip=runs/clip, see docs/clip_training.md.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', size=64, loss='softmax', smoke=False)
  shapes, side = not arg.data, 16 if not arg.data else arg.size
  config = common.base(steps=1500, batch_size=128) if shapes else common.base(steps=4000, batch_size=256)
  config.experiment = 'genjax.experiments.contrastive'
  config.data = {**common.IMAGES, 'shape': (side, side, 3), 'num_classes': 0, 'flip': False}
  if shapes:
    config.data.update(name='captioned_shapes', train='train', heldout='heldout')
  else:
    config.data.update(name=arg.data, train='train[:90%]', heldout='train[90%:]', resize='bilinear', crop=True)
  config.conditions = dict(text=dict(kind='text', column='text', length=12 if shapes else 32, vocabulary='wordpiece',
                                     vocabulary_size=200 if shapes else 4000, truncate=True))
  config.model = dict(
    name='clip', width=64, text=dict(layers=2, heads=4, width=96, activation='gelu', unroll=True),
    image=dict(layers=3, heads=4, width=96, patch=side // 4 if shapes else side // 8, activation='gelu', unroll=True))
  config.objective = dict(loss=arg.loss, largest=100.0, same=False)
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.98, weight_decay=0.1, clip=1.0, warmup=100,
                                    schedule='cosine', end=0.02))
  config.ema = dict(net=0.99)
  config.evaluation = dict(recall_at=(1, 5, 10))
  config.evaluate_every = 500
  config.checkpoint.every = 500
  if arg.smoke:
    common.smoke(config)
    config.data.shape, config.conditions.text.vocabulary_size = (8, 8, 3), 100
    config.model.text.update(layers=1, width=16, heads=2)
    config.model.image.update(layers=1, width=16, heads=2, patch=4)
    config.optimizers.net.warmup = 1
  config.sample_every = 0  # nothing to sample
  return config
