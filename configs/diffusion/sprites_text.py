"""Characters from captions: text-conditional flow matching on the LPC sprites, in a linear code of patches, with a text
encoder that is learned with the network (Lipman et al. 2023; Peebles & Xie 2023). The whole chain in two commands:

    genjax data build lpc_sprites --from=FOLDER
    genjax train --config=configs/diffusion/sprites_text.py --workdir=runs/sprites
    genjax sample --workdir=runs/sprites --out=orc.png \
      --prompt='a green orc with red hair, in chainmail, teal trousers and golden shoes'

Arguments: `full`, the set of three actions and three directions at 64 pixels; `pixels`, the same network on the pixels
of the same patches, at equal cost; `autoencoder`, a run of configs/autoencoders/sprites.py whose latents take the place
of the code. What a sample shows is measured by a judge, configs/classifiers/sprites_attributes.py:

    genjax evaluate --workdir=runs/sprites --set evaluation.measures=attributes evaluation.parts.judge=runs/judge
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, full=False, pixels=False, autoencoder='', smoke=False)
  config = common.base(steps=9000 if arg.full else 2400, batch_size=64)
  config.experiment = 'genjax.experiments.diffusion'
  name, shape = ('lpc_sprites_full', (64, 64, 3)) if arg.full else ('lpc_sprites', (56, 32, 3))
  config.data = dict(common.IMAGES, name=name, train='train', heldout='test', shape=shape, num_classes=0, flip=False)
  if not arg.pixels and not arg.autoencoder:
    config.code = dict(patch=8, kept=48 if arg.full else 16, places=not arg.full)
  config.conditions = dict(text=dict(kind='text', column='text', dropout=0.1, truncate=True,
                                     length=36 if arg.full else 32, vocabulary='wordpiece', vocabulary_size=300))
  size = dict(width=192, depth=4, heads=6, text_width=96)
  if arg.full:
    size = dict(width=256, depth=6, heads=8, text_width=128)
  config.model = dict(size, name='dit', patch=8 if arg.pixels else 1, text_depth=2, text_heads=4, unroll=True,
                      attention='auto', remat='none')
  if arg.autoencoder:
    config.parts = dict(autoencoder=arg.autoencoder)
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=0.0, std=1.0), weighting=dict(name='uniform'),
                          stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=24, spacing='', guidance=2.0, rescale=0.0, clip=0.0, options=dict(),
                        **common.SAMPLING)
  config.evaluation = dict(num_samples=1000, unseen='unseen')
  config.optimizers = dict(net=dict(name='adamw', lr=1e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.995)
  config.evaluate_every = 500
  config.evaluate_batches = 4
  config.sample_every = 1000
  config.checkpoint.every = 500
  if arg.smoke:
    common.smoke(config)
    config.data.heldout = 'test[:16]'
    if 'code' in config:
      config.code.kept = 8
    config.conditions.text.vocabulary_size = 150
    config.model.width, config.model.depth, config.model.heads = 16, 1, 4
    config.model.text_width, config.model.text_depth = 16, 1
    config.sampler.steps = 2
    config.optimizers.net.warmup = 1
  return config
