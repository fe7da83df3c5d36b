"""Emoji from their edges: pix2pix (Isola et al. 2017) on 2,800 Noto emoji of 64 x 64 pixels. The others are held out,
with all variants in skin tone and gender of what is held out.

    genjax data build emoji_noto_all --from=FOLDER
    genjax train --config=configs/gans/emoji_pix2pix.py --workdir=runs/edges
    genjax evaluate --workdir=runs/edges
    genjax sample --workdir=runs/edges --conditions=image=FOLDER --out=drawn/

Argument `paper`: networks, rates and batches as published, for 256 x 256 pixels of a folder of pairs:

    genjax train --config=configs/gans/emoji_pix2pix.py:paper,data=FOLDER,pairs=halves --workdir=runs/facades

Arguments of it: `data`, `pairs` (halves, folders or edges) and `steps`; the paper trains 200 epochs of a few hundred
pictures, one at a time.
"""

from genjax.configs import common

FOLDER = 'emoji_noto_all'


def get_config(arg=None):
  arg = common.parse_arg(arg, paper=False, data=FOLDER, pairs='edges', steps=0, smoke=False)
  side = 256 if arg.paper else 64
  config = common.translation(steps=arg.steps or (80_000 if arg.paper else 3000), batch_size=1 if arg.paper else 4,
                              every=1000, sample_num=32, name=arg.data, shape=(side, side, 3), pairs=arg.pairs,
                              reverse=False, source_channels=0)
  if arg.paper or arg.data != FOLDER:
    config.data.update(resize='bicubic', margin=side // 8 - 2)
  config.model = dict(name='unet', width=64 if arg.paper else 32, layers=8 if arg.paper else 6, dropout=0.5,
                      norm='batch', momentum=0.9, dtype='float32')
  config.critic = dict(name='patch', width=64 if arg.paper else 32, layers=3 if arg.paper else 2, norm='batch',
                       dtype='float32')
  config.objective = dict(name='pix2pix', loss='vanilla', conditional=True, l1=100.0, adversarial=1.0,
                          critic_weight=0.5)
  config.sampler = dict(statistics='picture' if arg.paper else 'running', drop=bool(arg.paper))
  falls = dict(schedule='constant_linear', decay_at=0.5, end=0.0) if arg.paper else dict(schedule='linear', end=0.02)
  rate = dict(name='adam', lr=2e-4 if arg.paper else 5e-4, b1=0.5, b2=0.999, **falls)
  config.optimizers = dict(generator=dict(rate), critic=dict(rate, lr=2e-4))
  if arg.smoke:
    common.smoke(config)
    config.data.update(name='random_images', heldout='heldout', shape=(32, 32, 3), resize='bicubic', margin=2)
    config.model.update(width=4, layers=5)
    config.critic.update(width=4)
  return config
