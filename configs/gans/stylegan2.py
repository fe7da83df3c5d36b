"""StyleGAN2 with the settings of NVlabs/stylegan2-ada-pytorch (train.py, --cfg). For accelerators.

    genjax plan --config=configs/gans/stylegan2.py:pixels=256 --topology=v5e:4x4
    genjax train --config=configs/gans/stylegan2.py:data=FOLDER,pixels=128 --workdir=runs/stylegan2
    genjax train --config=configs/gans/stylegan2.py:model=cifar,conditional --workdir=runs/stylegan2_cifar

Arguments: `model`, 'auto', 'paper256', 'paper1024' or 'cifar'; `data`, a TFDS data set or a folder of pictures, of
which the last 1,000 are held out; of 'auto' `pixels` (256), the side to which it resizes and crops them, and `batch`
(32, at most 64);
`conditional`, on the ten classes of CIFAR-10; `ada` (True), adaptive augmentation. Without data the images are noise of
the same shape, for plans and benchmarks.

'auto' takes gamma, widths and averages from the size and the batch. 'cifar' has a discriminator without shortcuts, and
neither path lengths nor mixed styles; with classes a Fréchet distance of 2.42 is published (README). Where
that code sets gradients that are not finite to 0, a step that has some is left out here.
"""

from genjax.configs import common

# Batch, minibatch deviation, width, rate, gamma, thousands of images of the average's half-life and of the run, layers
# of the mapping, side
MODELS = {
  'paper256': (64, 8, 16_384, 2.5e-3, 1.0, 20.0, 25_000, 8, 256),
  'paper1024': (32, 4, 32_768, 2e-3, 2.0, 10.0, 25_000, 8, 1024),
  'cifar': (64, 32, 32_768, 2.5e-3, 0.01, 500.0, 100_000, 2, 32),
}


def auto(pixels, batch):
  """The settings that --cfg=auto finds; `batch` is at most 64."""
  return (batch, min(batch, 4), 32_768 if pixels >= 512 else 16_384, 2e-3 if pixels >= 1024 else 2.5e-3,
          2e-4 * pixels**2 / batch, batch * 10 / 32, 25_000, 2, pixels)


def get_config(arg=None):
  arg = common.parse_arg(arg, model='auto', data='', pixels=0, batch=0, conditional=False, ada=True, smoke=False)
  if arg.model != 'auto' and (arg.pixels or arg.batch):
    raise ValueError(f"config arguments pixels and batch are of model='auto', and model={arg.model!r} has its own; "
                     'leave them out')
  if arg.pixels < 0 or not 0 <= arg.batch <= 64:
    raise ValueError(f'config argument pixels must be above 0 and batch from 1 to 64, got {arg.pixels} and {arg.batch}')
  chosen = auto(arg.pixels or 256, arg.batch or 32) if arg.model == 'auto' else common.size(
    {'auto': (), **MODELS}, arg.model)
  batch, group, width, rate, gamma, average, images, mapping, pixels = chosen
  small = arg.model == 'cifar'
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
  config.optimizers = dict(generator=adam, discriminator=adam)
  config.ema = dict(generator=dict(half_life=1000 * average, ramp_up=0.0 if small else 0.05))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.nonfinite.policy = 'skip'
  config.evaluate_batches = 20
  common.every(config, 200_000 // batch)
  if arg.smoke:
    common.smoke(config)
    config.data.shape = (8, 8, 3)
    config.model.update(latent=8, style=8, width=64, width_max=8, group=4, dtype='float32')
    config.objective.update(r1_every=2, path_every=2, augment=dict(name='none'))
  return config
