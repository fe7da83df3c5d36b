"""PixArt: a transformer that attends to a text, with one modulation for all blocks (Chen et al. 2023 and 2024).

A small one on coloured shapes learns its text encoder, too. It needs no download and trains in minutes on a CPU core:

    genjax train --config=configs/diffusion/pixart.py --workdir=runs/pixart
    genjax sample --workdir=runs/pixart --prompt='a red circle at the top left' --num=4 --out=circle.png

On pictures of one's own with captions, which `genjax data encode --prompts` encoded before, for accelerators:

    genjax train --config=configs/diffusion/pixart.py:data=ENCODED,autoencoder=VAE,text=T5,size=512 --workdir=runs/own

Arguments: data, the encoded folder; autoencoder and text, runs or folders of public weights; size, the side of the
pictures; tokens, those that are read of a caption.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', autoencoder='', text='', size=512, tokens=300, smoke=False)
  shapes = not arg.data
  config = common.base(steps=3000, batch_size=64) if shapes else common.base(steps=200_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  if shapes:
    common.captioned_shapes(config)
    config.model = dict(name='pixart', patch=4, width=96, depth=3, heads=4, text_width=64, text_depth=1, unroll=True)
  else:
    if arg.data == 'random_latents':
      common.random_latents(config, arg.size, 4, (arg.tokens, 4096))
    else:
      common.captioned_latents(config, arg.data, arg.size, dict(autoencoder=arg.autoencoder, text_encoder=arg.text),
                               dict(join='pixart', parts=('text_encoder',), lengths=(arg.tokens,)))
    config.model = dict(name='pixart', patch=2, width=1152, depth=28, heads=16, span=32.0, dtype='bfloat16',
                        remat='full')
    config.mesh.update(data=1, fsdp=-1)
  config.model.update(learn_sigma=True, attention='auto')
  config.objective = dict(process=dict(name='vp_linear', steps=1000), parameterization=dict(name='epsilon'),
                          times=dict(name='default'), weighting=dict(name='uniform'), stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=20, spacing='', guidance=3.0 if shapes else 4.5, rescale=0.0,
                        clip=1.0 if shapes else 0.0, options=dict(), **common.SAMPLING)
  rate = dict(lr=1e-3, warmup=100, schedule='cosine', end=0.02) if shapes else dict(lr=2e-5, warmup=1000, clip=0.01)
  config.optimizers = dict(net=dict(name='adamw', weight_decay=0.0 if shapes else 0.03, **rate))
  config.ema = dict(net=0.995 if shapes else 0.9999)
  common.every(config, 1500 if shapes else 10_000)
  if arg.smoke:
    common.smoke_captions(config)
    config.model.update(width=24, depth=2, text_width=16)
  return config
