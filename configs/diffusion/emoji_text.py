"""Emoji from their names: text-conditional flow matching on 1,548 Noto emoji, in a linear code of patches, with a text
encoder that is learned with the network. It remembers more than it composes: each name comes once.

    genjax data build emoji_noto --from=FOLDER
    genjax train --config=configs/diffusion/emoji_text.py --workdir=runs/emoji
    genjax sample --workdir=runs/emoji --prompt='grinning cat' --num=8 --out=cat.png

Argument `size`: the side of the pictures.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, size=32, smoke=False)
  config = common.base(steps=8000, batch_size=64)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(common.IMAGES, name='emoji_noto', train='train', heldout='test', shape=(arg.size, arg.size, 3),
                     num_classes=0, flip=False)
  if arg.size != 64:
    config.data.update(resize='lanczos', crop=True)
  config.code = dict(patch=4, kept=24, whitening=1.0)
  config.conditions = dict(text=dict(kind='text', column='text', dropout=0.1, truncate=True, length=16,
                                     vocabulary='wordpiece', vocabulary_size=1000))
  config.model = dict(name='dit', patch=1, width=256, depth=6, heads=8, text_width=128, text_depth=2, text_heads=4,
                      unroll=True, attention='auto', remat='none')
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=0.0, std=1.0), weighting=dict(name='uniform'),
                          stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=24, spacing='', guidance=2.0, rescale=0.0, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.999)
  config.evaluate_every = 1000
  config.evaluate_batches = 4
  config.sample_every = 1000
  config.checkpoint.every = 1000
  if arg.smoke:
    common.smoke(config)
    config.data.heldout = 'test[:16]'
    config.code.kept = 8
    config.model.width, config.model.depth, config.model.heads = 16, 1, 4
    config.model.text_width, config.model.text_depth = 16, 1
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
