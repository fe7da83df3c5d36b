"""StyleGAN2 with the settings of NVlabs/stylegan2-ada-pytorch (train.py, --cfg). For accelerators.

    genjax plan --config=configs/gans/stylegan2.py:pixels=256 --topology=v5e:4x4
    genjax train --config=configs/gans/stylegan2.py:data=FOLDER,pixels=128 --workdir=runs/stylegan2
    genjax train --config=configs/gans/stylegan2.py:model=cifar,conditional --workdir=runs/stylegan2_cifar

Arguments: `model`, 'auto', 'stylegan2', 'paper256', 'paper512', 'paper1024' or 'cifar'; `data`, a TFDS data set or a
folder of pictures, of which the last 1,000 are held out; `pixels` (256), the side to which 'auto' and 'stylegan2'
resize and crop them; `batch` (32, at most 64), of 'auto'; `conditional`, on the ten classes of CIFAR-10; `ada` (True),
adaptive augmentation. Without data the images are noise of the same shape, for plans and benchmarks.

'auto' takes gamma, widths and averages from the size and the batch. 'stylegan2' is configuration F of the paper, which
was trained with ada=False. 'cifar' has a discriminator without shortcuts, and neither path lengths nor mixed styles;
with classes a Fréchet distance of 2.42 is published (README). Its generator has the rate and the decay that are
corrected for path lengths all the same, as in that code. Pictures are mirrored (--mirror=1), but not those of CIFAR-10.
What differs from the code is in docs/stylegan.md.
"""

from genjax.configs import common

# Batch, minibatch deviation, width, rate, gamma, thousands of images of the average's half-life and of the run, layers
# of the mapping, side (0: of the argument)
MODELS = {
  'stylegan2': (32, 4, 32_768, 2e-3, 10.0, 10.0, 25_000, 8, 0),
  'paper256': (64, 8, 16_384, 2.5e-3, 1.0, 20.0, 25_000, 8, 256),
  'paper512': (64, 8, 32_768, 2.5e-3, 0.5, 20.0, 25_000, 8, 512),
  'paper1024': (32, 4, 32_768, 2e-3, 2.0, 10.0, 25_000, 8, 1024),
  'cifar': (64, 32, 32_768, 2.5e-3, 0.01, 500.0, 100_000, 2, 32),
}
SIZED = ('auto', 'stylegan2')  # whose pictures have any side
RAMPED = ('auto', 'cifar')  # whose average begins with a short half-life
LAZY = 4 / 5  # the correction of Adam for path lengths on every fourth step


def auto(pixels, batch):
  """The settings that --cfg=auto finds; `batch` is at most 64."""
  return (batch, min(batch, 4), 32_768 if pixels >= 512 else 16_384, 2e-3 if pixels >= 1024 else 2.5e-3,
          2e-4 * pixels**2 / batch, batch * 10 / 32, 25_000, 2, pixels)


def get_config(arg=None):
  arg = common.parse_arg(arg, model='auto', data='', pixels=0, batch=0, conditional=False, ada=True, smoke=False)
  chosen = common.size({'auto': (), **MODELS}, arg.model)
  taken = {'pixels': arg.model in SIZED, 'batch': arg.model == 'auto'}
  own = [name for name in taken if arg[name] and not taken[name]]
  if own:
    raise ValueError(f'model={arg.model!r} has its own {" and ".join(own)}; leave out the config argument')
  if arg.pixels < 0 or not 0 <= arg.batch <= 64:
    raise ValueError(f'config argument pixels must be above 0 and batch from 1 to 64, got {arg.pixels} and {arg.batch}')
  pixels = arg.pixels or 256
  chosen = chosen or auto(pixels, arg.batch or 32)
  batch, group, width, rate, gamma, average, images, mapping, side = chosen
  small, pixels = arg.model == 'cifar', side or pixels
  config = common.base(steps=images * 1000 // batch, batch_size=batch)
  config.experiment = 'genjax.experiments.gan'
  split = dict(name=arg.data, train='train[:-1000]', heldout='train[-1000:]') if arg.data else dict(
    name='random_images', train='train', heldout='heldout')
  split = dict(name='cifar10', train='train', heldout='test') if small else split
  config.data = {**common.IMAGES, **split, 'shape': (pixels, pixels, 3), 'num_classes': 10 if small else 0,
                 'flip': not small, **(dict(resize='lanczos', crop=True, threads=4) if arg.data else {})}
  config.model = dict(name='stylegan2', latent=512, style=512, mapping=mapping, width=width, width_max=512,
                      critic='original' if small else 'residual', group=group, clamp=256.0, average=0.995,
                      dtype='float32' if small else 'bfloat16')
  config.objective = dict(loss='non_saturating', distribution='normal', r1_gamma=gamma, r1_every=16,
                          mixing=0.0 if small else 0.9, path_weight=0.0 if small else 2.0, path_every=4,
                          path_decay=0.01, path_shrink=2, truncation=1.0, truncation_layers=0, discriminator_steps=1,
                          conditional=arg.conditional, corrected_adam=True,
                          augment=dict(name='ada') if arg.ada else dict(name='none'))
  adam = dict(name='adam', lr=rate, b1=0.0, b2=0.99, eps=1e-8)
  # Without path lengths corrected_adam leaves the generator's as it is.
  config.optimizers = dict(generator=dict(adam, lr=LAZY * rate, b2=0.99**LAZY) if small else adam, discriminator=adam)
  config.ema = dict(generator=dict(half_life=1000 * average, ramp_up=0.05 if arg.model in RAMPED else 0.0))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.nonfinite.policy = 'skip'
  config.evaluate_batches = 20
  common.every(config, 200_000 // batch)
  if arg.smoke:
    common.smoke(config)
    config.data.shape = (8, 8, 3)
    config.model.update(latent=8, style=8, width=64, width_max=8, group=4, dtype='float32')
    config.objective.update(r1_every=2, augment=dict(name='none'))
    if config.objective.path_weight:
      config.objective.path_every = 2
  return config
