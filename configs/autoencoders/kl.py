"""The autoencoder of latent diffusion (Rombach et al. 2022) on any pictures: a data set, or a folder of one's own.

    genjax train --config=configs/autoencoders/kl.py:model=f8,data=FOLDER,pixels=256 --workdir=runs/kl
    genjax train --config=configs/autoencoders/kl.py:model=f4-small,data=cifar10 --workdir=runs/kl
    genjax train --config=configs/autoencoders/kl.py:model=tiny,data=cifar10 --workdir=runs/tiny
    genjax sweep --config=configs/autoencoders/kl.py --workdir=runs/factors --config.steps=2000

Arguments: `model`, where f8 makes latents of an eighth of the side; f4, f8, f16 and f32 are the paper's shapes (table
8), sd3 has 16 channels and no 1 x 1 convolutions (Esser et al. 2024), tiny is TAESD's shape, dc the f32c32 of Sana
(Chen et al. 2024), and the -small ones are for CPUs. `latent`, the channels of the latent, 0 for those of the shape;
f4 with 4 of them is the autoencoder of the enlarger by 4. `data`, a data set or a folder; `pixels`, the side of the
images, to which they are resized and cropped, 0 for that of `data` if it is a standard set; `channels` of the images;
`dtype`. `perceptual`, a folder of vgg16_lpips or alexnet_lpips (docs/extractors.md), or the run of a classifier of
images of that size. `critic` adds a critic of patches, which begins at step `critic_start`, -1 for an eighth of all
steps.

The loss is L1 and a KL divergence of weight 1e-6, with Adam 4.5e-6 for each image of a batch. The published recipe also
has a perceptual distance and a critic, see the arguments. The published tiny autoencoder was distilled; here it learns
from pictures alone.
"""

from genjax.configs import common, sweeps

SHAPES = {
  'f4': dict(multipliers=(1, 2, 4), latent=3),
  'f8': dict(multipliers=(1, 2, 4, 4), latent=4),
  'f16': dict(multipliers=(1, 1, 2, 2, 4), latent=16, attention=(16,)),
  'f32': dict(multipliers=(1, 1, 2, 2, 4, 4), latent=64, attention=(16, 32)),
  'sd3': dict(multipliers=(1, 2, 4, 4), latent=16, projections=False),
  'f2-small': dict(multipliers=(1, 2), latent=4, base=16, blocks=1, groups=8),
  'f4-small': dict(multipliers=(1, 2, 2), latent=4, base=32, blocks=1, groups=8),
  'f8-small': dict(multipliers=(1, 2, 2, 4), latent=8, base=32, blocks=1, groups=8),
}
OTHERS = {'tiny': dict(latent=4), 'dc': dict(latent=32)}  # networks of their own
SMOKE = {
  'kl': dict(base=8, multipliers=(1, 2), blocks=1, groups=4, attention=()),
  'tiny': dict(encoder_channels=(8, 8), decoder_channels=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
  'dc': dict(encoder_channels=(6, 12), decoder_channels=(6, 12), encoder_blocks=(1, 1), decoder_blocks=(1, 1),
             attention=1, head_dim=4)}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='f8', latent=0, data='cifar10', pixels=0, channels=3, dtype='float32',
                         perceptual='', critic=False, critic_start=-1, smoke=False)
  if arg.model not in (known := {**SHAPES, **OTHERS}):
    raise ValueError(f'config argument model must be one of {sorted(known)}, got {arg.model!r}')
  small = arg.model.endswith('-small')
  config = common.base(steps=20_000 if small else 400_000, batch_size=16)
  config.experiment = 'genjax.experiments.kl'
  config.data = dict(common.pictures(arg, 98, 'bicubic'), flip=False)
  network = arg.model if arg.model in OTHERS else 'kl'
  shape = {'kl': dict(base=128, blocks=2, groups=32, attention=(), projections=True), **OTHERS}[network]
  config.model = dict(name=network, **{**shape, **known[arg.model]}, dtype=arg.dtype, remat='none')
  config.model.latent = arg.latent or config.model.latent
  config.objective = dict(reconstruction='l1', kl_weight=1e-6 if network == 'kl' else 0.0,
                          normalisation='channels' if network == 'kl' else 'all')
  rate = 1e-3 if small else 4.5e-6 * 16
  config.optimizers.net = dict(name='adam', lr=rate, b1=0.5, b2=0.9, clip=1.0, warmup=200, schedule='cosine', end=0.05)
  if arg.perceptual:
    config.parts.perceptual = arg.perceptual
    config.objective.perceptual_weight = 1.0
  if arg.critic:
    start = config.steps // 8 if arg.critic_start < 0 else arg.critic_start
    config.critic = dict(name='patch', width=32 if small else 64, layers=2 if small else 3, norm='batch')
    config.objective.update(critic_weight=0.5, critic_start=start, critic_loss='hinge', adaptive=True)
    config.optimizers.critic = dict(config.optimizers.net)
  config.ema = dict(net=0.999)
  config.evaluate_every = 1000
  config.evaluate_batches = 16
  config.sample_every = 1000
  config.checkpoint.every = 1000
  if arg.smoke:
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), resize='', crop=False)
    config.model.update(SMOKE[network], latent=3)
    config.optimizers.net.warmup = 1
    if arg.critic:
      config.critic.update(width=8, layers=1)
      config.objective.critic_start = 1
      config.optimizers.critic.warmup = 1
    config = common.smoke(config)
  return config


def sweep():
  """f2, f4 and f8 on CIFAR-10 with 4 channels, at equal cost: a forward pass is 134 to 143 million FLOPs an image."""
  return sweeps.product(
    sweeps.zipped({'arg.model': ('f2-small', 'f4-small', 'f8-small'), 'model.base': (16, 18, 17)}),
    {'arg.latent': (4,), 'model.groups': (1,)})
