"""BigGAN on CIFAR-10 with the settings of ajbrock/BigGAN-PyTorch (scripts/launch_cifar_ema.sh).

    genjax train --config=configs/gans/cifar10_biggan.py --workdir=runs/biggan
    genjax train --config=configs/gans/cifar10_biggan.py:size=small --workdir=runs/biggan_small

The networks have 8.5 million parameters, which is work for an accelerator. A step here is an update of the
discriminator, four of which there are for one of the generator. What differs: fakes have the labels of the batch, not
labels drawn anew; biases begin at 0; the average has the parameters alone, and samples are normalised by the mean
statistics of 16 batches, not by averages of running averages.

The argument size=small is our own, for half an hour on one CPU core: maps that get narrower as they grow, as at larger
sizes, and one update of the discriminator for one of the generator.
"""

from genjax.configs import common

# Options of the model, updates of the discriminator for one of the generator, rates of generator and discriminator,
# updates of the generator, decay of the average and from which of them on
SIZES = {
  'published': (dict(generator_width=64, discriminator_width=64), 4, (2e-4, 2e-4), 125_000, 0.9999, 1000),
  'small': (dict(latent=80, shared=32, chunks=True, generator_width=8, discriminator_width=8,
                 generator_multiples=(16, 8, 4, 2), discriminator_multiples=(2, 4, 8, 16), halvings=3),
            1, (2e-4, 4e-4), 4_000, 0.999, 100),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, size='published', smoke=False)
  model, every, rates, updates, decay, start = common.size(SIZES, arg.size, 'size')
  small = arg.size == 'small'
  config = common.base(steps=every * updates, batch_size=50)
  config.experiment = 'genjax.experiments.gan'
  config.data = dict(name='cifar10', train='train', heldout='test', shape=(32, 32, 3), num_classes=10, **common.IMAGES)
  config.model = {**dict(name='biggan', latent=128, depth=0, generator_multiples=(), discriminator_multiples=(),
                         halvings=0, generator_attention=(), discriminator_attention=(), shared=0, chunks=False,
                         wide=True, init='normal', pack=1, momentum=0.9, dtype='float32'), **model}
  config.objective = dict(loss='hinge', distribution='normal', r1_gamma=0.0, r1_every=16, discriminator_steps=every,
                          one_iteration=True, conditional=True, truncation=0.0, standing=16, standing_batch=50)
  adam = dict(name='adam', b1=0.0, b2=0.999)
  config.optimizers = {group: dict(adam, lr=rate) for group, rate in zip(('generator', 'discriminator'), rates)}
  config.ema = dict(generator=dict(decay=decay, start=every * start))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=2_000 if small else 10_000)
  config.evaluate_every = config.sample_every = config.checkpoint.every = 500 if small else 5_000 * every
  config.evaluate_batches = 4 if small else 20
  config.sample_num = 100
  if arg.smoke:
    config = common.smoke(config)
    config.data.update(name='digits', shape=(8, 8, 1))
    config.model.update(latent=6, shared=4, chunks=True, generator_width=8, discriminator_width=8,
                        generator_multiples=(2, 1), discriminator_multiples=(1, 2), halvings=1,
                        generator_attention=(8,))
    config.objective.update(discriminator_steps=1, standing=2, standing_batch=8)
    config.ema.generator.start = 1
  return config
