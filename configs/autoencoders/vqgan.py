"""VQGAN (Esser et al. 2021), and the quantized autoencoders of latent diffusion (Rombach et al. 2022), on any pictures.

    genjax train --config=configs/autoencoders/vqgan.py:model=f8,data=FOLDER,pixels=256,perceptual=VGG --workdir=runs/vq
    genjax train --config=configs/autoencoders/vqgan.py:model=f4-small,data=cifar10 --workdir=runs/vqgan

Arguments: `model`, where f8 makes codes for an eighth of the side; f4, f8, f8-256 and f16 are those of latent diffusion
(table 8), taming that of VQGAN, and the -small ones are for CPUs. `data`, `pixels`, `channels` and `dtype` as in
`kl.py`. `perceptual`, a folder of vgg16_lpips or alexnet_lpips (docs/extractors.md), or the run of a classifier of
images of that size; '' for none. `critic_start`, the step at which the critic begins, -1 for an eighth of all steps;
critic=False leaves it out. `learned`, how the codebook is learned, 'averages' or 'gradient'. `levels`, such as
levels=8.8.8.5.5.5, quantizes by finite scalars in place of a codebook.
"""

from genjax.configs import common

# model -> options of the networks, codes, numbers of a code
SHAPES = {
  'f4': (dict(multipliers=(1, 2, 4), latent=3), 8192, 3),
  'f8': (dict(multipliers=(1, 2, 2, 4), latent=4, attention=(8,)), 16384, 4),
  'f8-256': (dict(multipliers=(1, 2, 2, 4), latent=4, attention=(8,)), 256, 4),
  'f16': (dict(multipliers=(1, 1, 2, 2, 4), latent=8, attention=(16,)), 16384, 8),
  'taming': (dict(multipliers=(1, 1, 2, 2, 4), latent=256, attention=(16,)), 1024, 256),
  'f2-small': (dict(multipliers=(1, 2), latent=8, base=16, blocks=1, groups=8), 256, 8),
  'f4-small': (dict(multipliers=(1, 2, 2), latent=8, base=32, blocks=1, groups=8), 512, 8),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='f8', data='cifar10', pixels=0, channels=3, dtype='float32', perceptual='',
                         critic=True, critic_start=-1, learned='averages', levels='', smoke=False)
  network, size, width = common.size(SHAPES, arg.model)
  small = arg.model.endswith('-small')
  config = common.base(steps=20_000 if small else 400_000, batch_size=16)
  config.experiment = 'genjax.experiments.vq'
  config.data = dict(common.pictures(arg, 98, 'bicubic'), flip=False)
  config.model = dict(name='vqgan', **dict(dict(base=128, blocks=2, groups=32, attention=(), projections=True),
                                           **network), dtype=arg.dtype, remat='none')
  config.quantizer = dict(name='vector', size=size, width=width, learned=arg.learned, decay=0.99, commitment=0.25,
                          codebook_weight=1.0, estimator='straight_through', revive=0.01, spread=0.0)
  if arg.levels:
    config.quantizer = dict(name='finite_scalar', levels=tuple(int(level) for level in arg.levels.split('.')))
  config.objective = dict(reconstruction='l1', variance=0.0, normalisation='channels')
  adam = dict(name='adam', lr=1e-3 if small else 4.5e-6 * 16, b1=0.5, b2=0.9, clip=1.0, warmup=200, schedule='cosine',
              end=0.05)
  config.optimizers.net = dict(adam)
  if arg.perceptual:
    config.parts.perceptual = arg.perceptual
    config.objective.perceptual_weight = 1.0
  if arg.critic:
    start = config.steps // 8 if arg.critic_start < 0 else arg.critic_start
    config.critic = dict(name='patch', width=32 if small else 64, layers=2 if small else 3, norm='batch')
    config.objective.update(critic_weight=0.75, critic_start=start, critic_loss='hinge', adaptive=True)
    config.optimizers.critic = dict(adam, lr=adam['lr'] / 2 if small else adam['lr'])
  config.ema = dict(net=0.999)
  config.evaluate_every = 1000
  config.evaluate_batches = 16
  config.sample_every = 1000
  config.checkpoint.every = 1000
  if arg.smoke:
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), resize='', crop=False)
    config.model.update(base=8, multipliers=(1, 2), latent=4, blocks=1, groups=4, attention=(2,))
    config.optimizers.net.warmup = 1
    if not arg.levels:
      config.quantizer.update(size=16, width=3)
    if arg.critic:
      config.critic.update(width=8, layers=1)
      config.objective.critic_start = 1  # so that both kinds of steps are run
      config.optimizers.critic.warmup = 1
    config = common.smoke(config)
  return config
