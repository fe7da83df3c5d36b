"""Residual GANs on CIFAR-10 with the settings of kwotsin/mimicry: SNGAN, WGAN-GP, cGAN-PD and SAGAN.

    genjax train --config=configs/gans/cifar10_gan.py:model=sngan --workdir=runs/sngan

Its README has inception score / FID of 50,000 samples against the training images: WGAN-GP 7.33 / 22.29, SNGAN 7.97 /
16.77 and cGAN-PD 8.25 / 10.84 after 100,000 updates of the generator; SAGAN is not among them. The discriminator has
five updates for one of the generator, in SAGAN one, with a rate four times as high. A step here is an update of the
discriminator. The networks have 5.3 million parameters together, which is work for an accelerator. What differs: fakes
have the labels of the batch, not labels drawn anew; the generator's running averages change when it is trained, not in
the steps of the discriminator, too; SAGAN's rates are those of its paper (Zhang et al. 2019, section 4).
"""

from genjax.configs import common

_CLASSES = dict(conditional=True)
# Options of the model, of the objective, and updates of the discriminator for one of the generator
MODELS = {
  'sngan': (dict(spectral=True, pool='sum'), {}, 5),
  'wgan_gp': (dict(spectral=False, pool='mean'), dict(loss='wgan_gp', penalty=10.0), 5),
  'cgan_pd': (dict(spectral=True, pool='sum'), _CLASSES, 5),
  'sagan': (dict(spectral=True, pool='sum', generator_spectral=True, generator_attention=16, discriminator_attention=8),
            _CLASSES, 1),
}
UPDATES = 100_000  # of the generator


def get_config(arg=None):
  arg = common.parse_arg(arg, model='sngan', dtype='float32', smoke=False)
  variant, goal, steps = common.size(MODELS, arg.model)
  config = common.base(steps=steps * UPDATES, batch_size=64)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10, **common.IMAGES)
  config.model = dict(name='residual', latent=128, generator_widths=(256,) * 4, discriminator_widths=(128,) * 4,
                      halvings=2, rectified_shortcut=True, **variant, pack=1, momentum=0.9, dtype=arg.dtype)
  config.objective = {**dict(loss='hinge', distribution='normal', r1_gamma=0.0, r1_every=16, discriminator_steps=steps,
                             conditional=False), **goal}
  adam = dict(name='adam', lr=2e-4, b1=0.0, b2=0.9, schedule='linear', end=0.0)
  rates = (2e-4, 2e-4) if steps > 1 else (1e-4, 4e-4)
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.optimizers = {group: dict(adam, lr=rate) for group, rate in zip(('generator', 'discriminator'), rates)}
  config.evaluate_every = config.sample_every = config.checkpoint.every = 5_000 * steps
  config.evaluate_batches = 20
  config.sample_num = 100
  if arg.smoke:
    config.model.update(latent=4, generator_widths=(16,) * 4, discriminator_widths=(8,) * 4)
    config = common.smoke(config)
  return config
