"""Emoji enlarged 4 x, from 16 x 16 to 64 x 64 pixels: a residual network that learns from absolute differences alone,
and from there on with a critic of patches and a perceptual distance, as SRGAN and ESRGAN do.

    genjax train --config=configs/gans/sprites_enlarge.py --workdir=runs/enlarge
    genjax train --config=configs/gans/sprites_enlarge.py:adversarial --config.init_from=runs/enlarge \\
        --config.parts.perceptual=weights/alexnet --workdir=runs/enlarge_gan
    genjax evaluate --workdir=runs/enlarge --set evaluation.measures=l1,psnr,ssim,lpips \\
        evaluation.parts.lpips=weights/vgg16

Arguments: `data`, a data set or a folder of pictures, `side` of what is drawn, and `factor`. `model`: 'small',
'srresnet' or 'esrgan', of which the latter two are as published. Sprites: data=lpc_sprites_full.
"""

from genjax.configs import common

MODELS = {
  'small': dict(kind='residual', width=32, blocks=6, growth=16),
  'srresnet': dict(kind='residual', width=64, blocks=16, growth=32),
  'esrgan': dict(kind='dense', width=64, blocks=23, growth=32)}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='small', adversarial=False, data='emoji_noto_all', side=64, factor=4, smoke=False)
  config = common.translation(steps=2000 if arg.adversarial else 4000, batch_size=8, every=500, sample_num=16,
                              name=arg.data, shape=(arg.side, arg.side, 3), pairs='smaller', factor=arg.factor)
  if arg.side != 64 or arg.data not in ('emoji_noto_all', 'lpc_sprites_full'):
    config.data.update(resize='lanczos', crop=True)
  config.model = dict(name='enlarger', dtype='float32', **common.size(MODELS, arg.model))
  config.objective = dict(name='pix2pix', l1=1.0, perceptual_weight=1.0)
  rate = dict(name='adam', lr=1e-3, b1=0.9, b2=0.99, schedule='cosine', end=0.01)
  config.optimizers = dict(generator=dict(rate))
  if arg.adversarial:
    config.critic = dict(name='patch', width=32, layers=2, norm='batch', dtype='float32')
    config.objective.update(loss='relativistic', conditional=False, adversarial=0.01, critic_weight=0.5)
    config.init.rules = (('keep', '(mutable/)?critic/.*'),)  # of a run without a critic
    config.optimizers = dict(generator=dict(rate, lr=3e-4), critic=dict(rate, lr=3e-4))
  config.ema = dict(generator=0.999)
  if arg.smoke:
    common.smoke(config)
    config.data.update(name='random_images', heldout='heldout', shape=(32, 32, 3))
    config.model.update(width=4, blocks=1)
  return config
