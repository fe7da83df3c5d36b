"""Stable Diffusion 3: a transformer with one stream for the latents and one for the text (Esser et al. 2024).

A small one on coloured shapes learns its text encoder, too. It needs no download and trains in minutes on a CPU core:

    genjax train --config=configs/diffusion/sd3.py --workdir=runs/sd3
    genjax sample --workdir=runs/sd3 --prompt='a red circle at the top left' --num=4 --out=circle.png

On pictures of one's own with captions, which `genjax data encode --prompts` encoded before, for accelerators:

    genjax train --workdir=runs/own \\
      --config=configs/diffusion/sd3.py:data=ENCODED,autoencoder=VAE,one=CLIP,two=CLIP_G,three=T5

Arguments: model, one of `MODELS`; data, the encoded folder; autoencoder, one, two and three, runs or folders of public
weights, where three may be left out; size, the side of the pictures; tokens, those that T5 reads of a caption.
"""

from genjax.configs import common

# joint blocks, blocks with a second attention, heads of 64 channels, whether queries are normed, side of the positions
MODELS = {'medium': (24, 0, 24, False, 192), 'medium35': (24, 13, 24, True, 384), 'large35': (38, 0, 38, True, 192)}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='medium', data='', autoencoder='', one='', two='', three='', size=512, tokens=256,
                         smoke=False)
  layers, dual, heads, normed, largest = common.size(MODELS, arg.model)
  shapes = not arg.data
  config = common.base(steps=3000, batch_size=64) if shapes else common.base(steps=200_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  if shapes:
    common.captioned_shapes(config)
    config.model = dict(name='mmdit', patch=4, layers=3, dual=1, heads=4, head_dim=24, norm_queries=True, grid=4,
                        largest=8, text_width=64, text_depth=1)
  else:
    encoders = {'text_encoder': arg.one, 'text_encoder_2': arg.two, 'text_encoder_3': arg.three}
    encoders = {name: path for name, path in encoders.items() if path}
    if arg.data == 'random_latents':
      common.random_latents(config, arg.size, 16, (77 + arg.tokens, 4096), 2048)
    else:
      common.captioned_latents(
        config, arg.data, arg.size, dict(autoencoder=arg.autoencoder, **encoders),
        dict(join='sd3', parts=tuple(encoders), lengths=(0, 0, arg.tokens)[:len(encoders)],
             join_options=dict(width=4096)))
    config.model = dict(name='mmdit', patch=2, layers=layers, dual=dual, heads=heads, head_dim=64, norm_queries=normed,
                        grid=64, largest=largest, dtype='bfloat16', remat='full')
    config.mesh.update(data=1, fsdp=-1)
  config.model.attention = 'auto'
  common.flow_matching(config, shapes, steps=28, shift=3.0, guidance=7.0)
  if arg.smoke:
    common.smoke_captions(config)
    config.model.update(layers=2, heads=2, head_dim=8, text_width=16)
  return config
