"""Text-conditional flow matching on pixels: a DiT that attends to a text encoder, which it learns (Lipman et al. 2023;
Peebles & Xie 2023; Chen et al. 2024). On coloured shapes, which need no download and train in minutes on a CPU core:

    genjax train --config=configs/diffusion/captioned_flow.py --workdir=runs/shapes
    genjax sample --workdir=runs/shapes --prompt='a red circle at the top left' --num=4 --out=circle.png

On a folder of pictures with captions, for accelerators, with argument `size` the side of the pictures:

    genjax train --config=configs/diffusion/captioned_flow.py:data=FOLDER,size=64 --workdir=runs/captioned
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', size=64, smoke=False)
  shapes = not arg.data
  config = common.base(steps=3000, batch_size=64) if shapes else common.base(steps=200_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  if shapes:
    config.data = dict(common.IMAGES, name='captioned_shapes', train='train', heldout='heldout', shape=(16, 16, 3),
                       num_classes=0, flip=False)
  else:
    config.data = dict(common.IMAGES, name=arg.data, train='train[:95%]', heldout='train[95%:]', num_classes=0,
                       shape=(arg.size, arg.size, 3), flip=False, resize='bilinear', crop=True, threads=4)
  config.conditions = dict(text=dict(
    kind='text', column='text', dropout=0.1, truncate=True, length=12 if shapes else 64, vocabulary='wordpiece',
    vocabulary_size=200 if shapes else 8000))
  small = dict(patch=4, width=96, depth=3, heads=4, text_width=64, text_depth=1, unroll=True)
  large = dict(patch=2, width=384, depth=12, heads=6, text_width=384, text_depth=4, text_heads=6, dtype='bfloat16')
  config.model = dict(small if shapes else large, name='dit', attention='auto', remat='none')
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=0.0, std=1.0), weighting=dict(name='uniform'),
                          stratified=True)
  config.sampler = dict(name='heun', steps=12 if shapes else 25, spacing='', guidance=3.0, rescale=0.0, clip=0.0,
                        options=dict(), **common.SAMPLING)
  rate = dict(lr=1e-3, warmup=100, schedule='cosine', end=0.02) if shapes else dict(lr=1e-4, warmup=1000)
  config.optimizers = dict(net=dict(name='adamw', b2=0.99, **rate))
  config.ema = dict(net=0.995 if shapes else 0.9999)
  config.evaluate_every = 1500 if shapes else 10_000
  config.sample_every = 1500 if shapes else 10_000
  config.checkpoint.every = 1500 if shapes else 10_000
  if arg.smoke:
    common.smoke(config)
    config.data.shape, config.conditions.text.vocabulary_size = (8, 8, 3), 100
    config.model.width, config.model.depth, config.model.text_width = 16, 2, 16
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
