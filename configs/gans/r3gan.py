"""R3GAN with the presets of brownvc/R3GAN (Huang et al. 2024).

    genjax train --config=configs/gans/r3gan.py --workdir=runs/r3gan
    genjax train --config=configs/gans/r3gan.py:model=ffhq64,data=FOLDER --workdir=runs/r3gan_ffhq

Relativistic loss with R1 and R2 in every step. The rate, the gammas, b2, the strength of augmentation and the half-life
of the average go by a cosine to their last values over 20 million images, where a run ends. Augmentation is that of
ADA, with colours at half its probability, and cutout. Published FID: CIFAR-10 1.96, FFHQ-64 1.95. What differs from the
code is in docs/biggan.md.

Arguments: model 'cifar10' (with classes), 'ffhq64', 'ffhq256'; data, a folder of pictures for the latter two; dtype, in
which theirs computes but the largest maps: 'bfloat16'.
"""

from genjax.configs import common

# Options of the model, batch size, gamma, half-life of the average in images, last strength of augmentation
MODELS = {
  'cifar10': (dict(widths=(768,) * 4, groups=(96,) * 4), 512, 0.05, 5e6, 0.55),
  'ffhq64': (dict(widths=(768,) * 4 + (384,), groups=(96,) * 4 + (48,)), 256, 2.0, 5e5, 0.3),
  'ffhq256': (dict(widths=(768,) * 4 + (384, 192, 96), groups=(96,) * 4 + (48, 24, 12)), 256, 150.0,
              5e5, 0.3),
}
IMAGES = 20_000_000
COLOURS = ('brightness', 'contrast', 'luma', 'hue', 'saturation')


def get_config(arg=None):
  arg = common.parse_arg(arg, model='cifar10', data='', dtype='float32', smoke=False)
  model, batch, gamma, half_life, strength = common.size(MODELS, arg.model)
  steps, side = -(-IMAGES // batch), 2**(len(model['widths']) + 1)
  config = common.base(steps=steps, batch_size=batch)
  config.experiment = 'genjax.experiments.gan'
  if arg.model == 'cifar10':
    config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10, flip=True,
                       **common.IMAGES)
  else:
    folder = dict(name=arg.data, train='train[:95%]', heldout='train[95%:]', resize='lanczos', crop=True)
    noise = dict(name='random_images', train='train', heldout='heldout')
    config.data = {**common.IMAGES, **dict(shape=(side, side, 3), num_classes=0, flip=True),
                   **(folder if arg.data else noise)}
  config.model = dict(name='r3gan', latent=64, **model, blocks=2, expansion=2, pack=1, dtype=arg.dtype)
  config.objective = dict(loss='relativistic', distribution='normal', r1_gamma=gamma, r2_gamma=gamma, r1_every=0,
                          gamma_end=0.1, gamma_steps=steps, discriminator_steps=1, conditional=arg.model == 'cifar10')
  config.objective.augment = dict(name='growing', end=strength, steps=steps, cutout=1.0, **dict.fromkeys(COLOURS, 0.5))
  adam = dict(name='adam', lr=2e-4, b1=0.0, b2=0.9, b2_end=0.99, b2_steps=steps, schedule='cosine', end=0.25)
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.ema = dict(generator=dict(half_life=half_life, grow=float(IMAGES)))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.evaluate_every = config.sample_every = config.checkpoint.every = 2_000
  config.evaluate_batches = 10
  config.sample_num = 100
  if arg.smoke:
    config = common.smoke(config)
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=10, flip=False)
    config.model.update(latent=4, widths=(16, 8), groups=(4, 2), blocks=1)
    config.objective.update(conditional=True, gamma_steps=2)
    config.objective.augment.steps = 2
    config.optimizers.generator.b2_steps = config.optimizers.discriminator.b2_steps = 2
    config.ema.generator.update(half_life=16.0, grow=16.0)
  return config
