"""Stable Diffusion 1.5, 2.1 and XL (Rombach et al. 2022; Podell et al. 2023) on captioned pictures of one's own.

    genjax import --from=PIPELINE --workdir=runs/sd15
    genjax train --config=configs/diffusion/stable_diffusion.py:model=sd15,parts=PIPELINE,data=FOLDER \\
      --config.init_from=runs/sd15 --workdir=runs/tuned

Arguments: `model` sd15, sd21 or sdxl; `parts`, the folder of a pipeline in the layout of diffusers, whose autoencoder
and text encoders are used; `data`, a folder of pictures with captions, or with `latents` one that `genjax data encode`
wrote; `pixels`, the side of the pictures, 0 for that of the model. Without init_from the U-Net begins at random.

Without parts there is neither an autoencoder nor a text encoder: the network has its size, for `genjax inspect` and
`genjax plan`, and the data would hold latents, and tokens in the column text_tokens.
"""

from genjax.configs import common

# The U-Net; channels of the tokens; side of the pictures; how text encoders are joined
MODELS = {
  'sd15': (dict(channels=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), middle_depth=1, heads=(8, 8, 8, 8)), 768, 512),
  'sd21': (dict(channels=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), middle_depth=1, heads=(5, 10, 20, 20),
                linear_projection=True), 1024, 768),
  'sdxl': (dict(channels=(320, 640, 1280), depths=(0, 2, 10), middle_depth=10, heads=(5, 10, 20),
                linear_projection=True), 2048, 1024),
}
SIZES = ('original_size', 'crop_offset', 'target_size')  # two numbers each, in pixels


def get_config(arg=None):
  arg = common.parse_arg(arg, model='sd15', parts='', data='', pixels=0, latents=False, smoke=False)
  network, width, side = common.size(MODELS, arg.model)
  side, xl = arg.pixels or side, arg.model == 'sdxl'
  texts = ('text_encoder', 'text_encoder_2') if xl else ('text_encoder',)
  config = common.base(steps=10_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(common.IMAGES, name=arg.data, train='train[:98%]', heldout='train[98%:]', num_classes=0,
                     shape=(side, side, 3), flip=False, resize='bicubic', crop=True, threads=4)
  if arg.latents:
    config.data.update(train='train', heldout='heldout', content='latents')
  if arg.parts:
    config.parts = {'autoencoder': f'{arg.parts}/vae', **{name: f'{arg.parts}/{name}' for name in texts}}
    text = dict(kind='prompt', column='text', parts=texts, join='sdxl' if xl else 'one', zeros=xl, dropout=0.1)
  else:
    config.data.update(name='random_latents', train='train', heldout='heldout', content='latents', resize='',
                       crop=False, shape=(side // 8, side // 8, 4))
    text = dict(kind='tokens', column='text_tokens', width=width, length=77, dropout=0.1)
  config.conditions = dict(text=text)
  if xl:
    config.conditions.size = dict(kind='numbers', column=SIZES, count=6, dropout=0.0,
                                  default=(f'{side},{side},0,0,{side},{side}',))
    if not arg.parts:
      config.conditions.pooled = dict(kind='vector', column='text_pooled', width=1280, dropout=0.1)
  config.model = dict(network, name='latent_unet', blocks=2, dtype='bfloat16', remat='full')
  config.objective = dict(process=dict(name='vp_scaled_linear', steps=1000, beta_start=0.00085, beta_end=0.012),
                          parameterization=dict(name='v' if arg.model == 'sd21' else 'epsilon'),
                          times=dict(name='default'), weighting=dict(name='uniform'), stratified=False)
  config.sampler = dict(name='ddim', steps=50, guidance=5.0 if xl else 7.5, options=dict(), spacing='', rescale=0.0,
                        clip=0.0, **common.SAMPLING)
  config.optimizers = dict(net=dict(name='adamw', lr=1e-5, weight_decay=0.01, clip=1.0, warmup=500))
  config.ema = dict(net=0.9999)
  config.mesh.update(data=1, fsdp=-1)
  config.evaluate_every = 1000
  config.evaluate_batches = 4
  config.sample_every = 1000
  config.sample_num = 8
  config.checkpoint.every = 1000
  if arg.smoke:
    config.data = dict(common.IMAGES, name='captioned_shapes', train='train', heldout='heldout', shape=(8, 8, 3),
                       num_classes=0, flip=False)
    config.conditions = dict(text=dict(kind='text', length=16, vocabulary='byte', dropout=0.1))
    config.model.update(channels=(8, 16), depths=(0, 1), middle_depth=1, heads=(1, 2), blocks=1, groups=4,
                        text_width=16, text_depth=1, text_heads=2, dtype='float32', remat='none')
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
