"""Green orcs from pale persons, without pairs: CycleGAN (Zhu et al. 2017) on sprites of 56 x 32 pixels. No orc of the
training split wears what a person of it wears; the held-out split has the counterpart of each person, composed from
the same layers, for measures.

    genjax data build lpc_sprites_orcs --from=FOLDER
    genjax train --config=configs/gans/sprites_cyclegan.py --workdir=runs/orcs
    genjax train --config=configs/classifiers/sprites_attributes.py --workdir=runs/judge
    genjax evaluate --workdir=runs/orcs --set evaluation.measures=l1,psnr,ssim,attributes \\
        evaluation.parts.judge=runs/judge

Argument `paper`: networks, rates and pools as published, for 256 x 256 pixels of two folders of pictures, by default
called A and B or trainA, trainB, testA and testB:

    genjax train --config=configs/gans/sprites_cyclegan.py:paper,data=FOLDER --workdir=runs/horses
"""

from genjax.configs import common

SPRITES = 'lpc_sprites_orcs'


def get_config(arg=None):
  arg = common.parse_arg(arg, paper=False, data=SPRITES, steps=0, smoke=False)
  sprites = arg.data == SPRITES
  config = common.translation(steps=arg.steps or (200_000 if arg.paper else 5000), batch_size=1, every=1000,
                              sample_num=32, name=arg.data, shape=(56, 32, 3) if sprites else (256, 256, 3),
                              pairs='columns' if sprites else 'folders', domains=('A', 'B'), counterparts=sprites)
  if not sprites:
    config.data.update(resize='bicubic', margin=30)
  config.model = dict(name='resnet', width=64 if arg.paper else 16, blocks=9 if arg.paper else 3, dtype='float32')
  config.critic = dict(name='patch', width=64 if arg.paper else 24, layers=3 if arg.paper else 2, norm='instance',
                       dtype='float32')
  config.objective = dict(name='cycle', loss='lsgan', cycle=10.0, identity=0.5, pool=50, critic_weight=0.5)
  config.sampler = dict(direction='forward')
  falls = dict(schedule='constant_linear', decay_at=0.5, end=0.0) if arg.paper else dict(schedule='linear', end=0.02)
  rate = dict(name='adam', lr=2e-4 if arg.paper else 5e-4, b1=0.5, b2=0.999, **falls)
  config.optimizers = dict(generator=dict(rate), critic=dict(rate))
  if sprites:
    config.evaluation.update(becomes=('body=6',), keeps=('trousers', 'top', 'hair', 'shoes'))
  if arg.smoke:
    common.smoke(config)
    config.data.update(name='random_images', heldout='heldout', shape=(24, 16, 3), pairs='smaller', factor=1)
    config.model.update(width=4, blocks=1)
    config.critic.update(width=4)
    config.objective.pool = 3
  return config
