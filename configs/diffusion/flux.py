"""Flux: a transformer with two streams, then with one, and rotary positions along both axes (Black Forest Labs 2024).

A small one on coloured shapes learns its text encoder, too. It needs no download and trains in minutes on a CPU core:

    genjax train --config=configs/diffusion/flux.py --workdir=runs/flux
    genjax sample --workdir=runs/flux --prompt='a red circle at the top left' --num=4 --out=circle.png

On pictures of one's own with captions, which `genjax data encode --prompts` encoded before, for accelerators:

    genjax train --workdir=runs/own \\
      --config=configs/diffusion/flux.py:data=ENCODED,autoencoder=VAE,one=CLIP,two=T5,size=512

Arguments: model, 'schnell' or 'dev', which is told the scale of guidance; data, the encoded folder; autoencoder, one
and two, runs or folders of public weights; size, the side of the pictures; tokens, those that T5 reads of a caption.
"""

from genjax.configs import common

MODELS = {'schnell': (False,), 'dev': (True,)}  # whether it is told the scale of guidance


def get_config(arg=None):
  arg = common.parse_arg(arg, model='schnell', data='', autoencoder='', one='', two='', size=512, tokens=512,
                         smoke=False)
  guided, = common.size(MODELS, arg.model)
  shapes = not arg.data
  config = common.base(steps=3000, batch_size=64) if shapes else common.base(steps=200_000, batch_size=256)
  config.experiment = 'genjax.experiments.diffusion'
  if shapes:
    common.captioned_shapes(config)
    config.model = dict(name='mmdit', patch=4, layers=2, single=2, heads=4, head_dim=24, rope_axes=(8, 8, 8),
                        text_width=64, text_depth=1)
  else:
    if arg.data == 'random_latents':
      common.random_latents(config, arg.size, 16, (arg.tokens, 4096), 768)
    else:
      common.captioned_latents(
        config, arg.data, arg.size,
        dict(autoencoder=arg.autoencoder, text_encoder=arg.one, text_encoder_2=arg.two),
        dict(join='flux', parts=('text_encoder', 'text_encoder_2'), lengths=(0, arg.tokens)))
    config.model = dict(name='mmdit', patch=2, layers=19, single=38, heads=24, head_dim=128, rope_axes=(16, 56, 56),
                        dtype='bfloat16', remat='full')
    config.mesh.update(data=1, fsdp=-1)
  config.model.update(norm_queries=True, positions='rope', guidance=guided, attention='auto')
  if guided:
    config.conditions.guidance = dict(kind='guidance', scale=3.5)
  common.flow_matching(config, shapes, steps=28, shift=1.0, guidance=3.0)
  if arg.smoke:
    common.smoke_captions(config)
    config.model.update(layers=1, single=1, heads=2, head_dim=8, rope_axes=(4, 2, 2), text_width=16)
  return config
