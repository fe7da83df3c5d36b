"""Class-conditional latent diffusion with a DiT on ImageNet's 1,000 classes (Peebles & Xie 2023). For accelerators.

    genjax plan --config=configs/diffusion/dit_imagenet.py:model=XL,patch=2,pixels=512 --topology=v5e:4x4
    genjax train --config=configs/diffusion/dit_imagenet.py:model=XL,data=imagenet_latents --workdir=runs/dit

Arguments: `model` S, B, L or XL; `patch` 2, 4 or 8, in latents; `pixels` 256 or 512, the size of the images, whose
latents have an eighth of the side and 4 channels; `data`, a TFDS data set with float32 features 'image' (latents with a
scale near 1) and 'label'. Without it the latents are random numbers of the same shape, for plans and benchmarks.
Samples are latents too; decode them with the autoencoder that made the data.

Setting of the paper: batch 256, AdamW 1e-4 without decay, average 0.9999, labels dropped at 0.1. The default objective
is flow matching, as in SiT (Ma et al. 2024). The argument `learn_sigma` chooses the paper's DDPM: 1,000 linear steps,
prediction of noise and reverse variances (twice the output channels; Nichol & Dhariwal 2021), and 250 ancestral
sampling steps.
"""

from genjax.configs import common

SIZES = {'S': (384, 12, 6), 'B': (768, 12, 12), 'L': (1024, 24, 16), 'XL': (1152, 28, 16)}  # width, depth, heads


def get_config(arg=None):
  arg = common.parse_arg(arg, model='XL', patch=2, pixels=256, data='', learn_sigma=False, smoke=False)
  if arg.model not in SIZES or arg.patch not in (2, 4, 8) or arg.pixels not in (256, 512):
    raise ValueError(
      f'config arguments are model of {sorted(SIZES)}, patch 2, 4 or 8 and pixels 256 or 512, got {arg.to_dict()}')
  width, depth, heads = SIZES[arg.model]
  side = arg.pixels // 8
  config = common.base(steps=400_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  split = dict(name=arg.data, train='train', heldout='validation') if arg.data else dict(
    name='random_latents', train='train', heldout='heldout')
  config.data = dict(split, shape=(side, side, 4), num_classes=1000, content='latents', flip=False, data_dir='',
                     originals='', threads=1)
  config.model = dict(name='dit', patch=arg.patch, width=width, depth=depth, heads=heads,
                      learn_sigma=arg.learn_sigma, dtype='bfloat16', residual_dtype='', remat='full')
  if arg.learn_sigma:
    config.objective = dict(process=dict(name='vp_linear', steps=1000, rescale=False),
                            parameterization=dict(name='epsilon'), times=dict(name='default'))
    config.sampler = dict(name='ancestral', steps=250, options=dict(variance='learned'))
  else:
    config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                            times=dict(name='logit_normal', mean=0.0, std=1.0))
    config.sampler = dict(name='heun', steps=50, options=dict())
  config.objective.update(weighting=dict(name='uniform'), label_dropout=0.1, stratified=not arg.learn_sigma)
  config.sampler.update(spacing='', guidance=1.5, clip=0.0, **common.SAMPLING)
  config.evaluation = common.IMAGE_EVALUATION
  config.optimizers = dict(net=dict(name='adamw', lr=1e-4))
  config.ema = dict(net=0.9999)
  config.mesh.update(data=1, fsdp=-1)
  config.evaluate_every = 10_000
  config.sample_every = 10_000
  config.checkpoint.every = 10_000
  if arg.smoke:
    common.smoke(config)
    config.data.shape = (8, 8, 4)
    config.model.update(width=16, depth=2, heads=2, dtype='float32')
    config.sampler.steps = 2
  return config
