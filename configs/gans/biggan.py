"""BigGAN and BigGAN-deep at 128 and 256 pixels with the settings of ajbrock/BigGAN-PyTorch, for pods.

    genjax train --config=configs/gans/biggan.py:model=128,data=FOLDER --workdir=runs/biggan128

Brock et al. (2019). Batches of 2,048 in eight parts, each with batch statistics of its own, as in the published
scripts. Without a folder of pictures in folders of classes the data is noise, for `genjax inspect` and `genjax plan`.
Pictures are mirrored, which the scripts do not do. What else differs from the code is in docs/biggan.md.

Arguments: model '128', 'deep128', 'deep256', 'sagan128'; data; classes (1000); dtype ('float32').
"""

from genjax.configs import common

_LARGE = dict(latent=120, shared=128, chunks=True, generator_width=64, discriminator_width=64, depth=0)
_DEEP = dict(_LARGE, latent=128, chunks=False, generator_width=128, discriminator_width=128, depth=2)
# Side of the pictures, options of the model, batch and its parts, first step of the average
MODELS = {
  '128': (128, _LARGE, 2048, 8, 20_000), 'deep128': (128, _DEEP, 2048, 8, 20_000),
  'deep256': (256, _DEEP, 2048, 8, 20_000),
  'sagan128': (128, dict(_LARGE, latent=128, shared=0, chunks=False, init='xavier'), 256, 2, 2_000),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='128', data='', classes=1000, dtype='float32', smoke=False)
  side, model, batch, parts, start = common.size(MODELS, arg.model)
  config = common.base(steps=150_000, batch_size=batch)
  config.experiment = 'genjax.experiments.gan'
  folder = dict(name=arg.data, train='train[:99%]', heldout='train[99%:]', resize='lanczos', crop=True)
  noise = dict(name='random_images', train='train', heldout='heldout')
  config.data = {**common.IMAGES, **dict(shape=(side, side, 3), num_classes=arg.classes, flip=True),
                 **(folder if arg.data else noise)}
  config.microbatches = parts
  config.model = {**dict(name='biggan', generator_multiples=(), discriminator_multiples=(), halvings=0,
                         generator_attention=(64,), discriminator_attention=(64,), wide=True, init='orthogonal', pack=1,
                         momentum=0.9, dtype=arg.dtype), **model}
  config.objective = dict(loss='hinge', distribution='normal', r1_gamma=0.0, r1_every=16, discriminator_steps=1,
                          one_iteration=True, conditional=True, truncation=0.0, standing=16, standing_batch=64)
  adam = dict(name='adam', b1=0.0, b2=0.999, eps=1e-8 if arg.model == 'sagan128' else 1e-6)
  config.optimizers = dict(generator=dict(adam, lr=1e-4), discriminator=dict(adam, lr=4e-4))
  config.ema = dict(generator=dict(decay=0.9999, start=start))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.evaluate_every = config.sample_every = config.checkpoint.every = 2_000
  config.evaluate_batches = 2
  config.sample_num = 64
  if arg.smoke:
    config = common.smoke(config)
    config.microbatches = 1
    config.data.update(shape=(8, 8, 3), num_classes=3)
    config.model.update(latent=4, shared=4, chunks=False, depth=1, generator_width=8, discriminator_width=8,
                        generator_multiples=(1, 1), discriminator_multiples=(1, 1), halvings=1,
                        generator_attention=(), discriminator_attention=())
    config.objective.update(standing=1, standing_batch=4)
    config.ema.generator.start = 1
  return config
