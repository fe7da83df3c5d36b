"""DCGAN and PacDCGAN on stacked MNIST, in the settings of Lin et al. 2018, section 4.2.

    genjax train --config=configs/gans/stacked_mnist.py:size=narrow,pack=2 --workdir=runs/stacked
    genjax evaluate --workdir=runs/stacked

Networks, optimizers, batches and schedules are those of the code of the paper (fjxmlzn/PacGAN). Argument size: 'half'
and 'quarter' are the small networks of Metz et al. 2017, whose discriminator has a half or a quarter of the generator's
width; 'full' is the comparison with VEEGAN; 'narrow', the default, is that at a quarter of its width, with 1.5 % of
its steps at a higher rate, which takes minutes. pack (1): 1 is DCGAN, 2 is PacDCGAN2. steps: 0 is the number of the
size, as published 500,000 for the small networks and 100,000 for the full ones.

Published, modes of 1000 and reverse KL: 'quarter' 78.5 and 5.21 with DCGAN, 484.5 and 2.61 with PacDCGAN2; 'half' 487.7
and 2.24, 840.7 and 1.00; 'full' 78.9 and 4.50, 1000 and 0.06. Samples are 26,000 for all, and for the small networks
25,600 in the paper. In the code both networks of a step have the same latents, and here the generator has its own. It
normalises each member of a pack alone, and here all are normalised together. 'full': its generator has two updates a
step and here one, its images are in [0, 1] and here in [-1, 1], it draws 128,000 stacks of all 70,000 digits once,
while here each batch has new ones, of the training digits alone, and it measures samples of normal latents, while it
trains on uniform ones, which here both are.
"""

from typing import Any

from genjax.configs import common

_SMALL = dict(latent=256, generator_widths=(64, 32, 16, 8), kernel=3, last='convolution', first_norm=True, slope=0.3)
_FULL = dict(latent=100, generator_widths=(512, 256, 128, 64), discriminator_widths=(64, 128, 256, 512), kernel=5,
             last='transposed', first_norm=False, slope=0.2)
# Options of the model; packs of a batch; steps; distribution of latents; rates of generator and discriminator; beta_2
SIZES = {
  'quarter': (dict(_SMALL, discriminator_widths=(2, 4, 8)), 128, 500_000, 'normal', (1e-4, 2e-4), 0.99),
  'half': (dict(_SMALL, discriminator_widths=(4, 8, 16)), 128, 500_000, 'normal', (1e-4, 2e-4), 0.99),
  'full': (_FULL, 64, 100_000, 'uniform', (2e-4, 2e-4), 0.999),
  'narrow': (dict(_FULL, generator_widths=(128, 64, 32, 16), discriminator_widths=(16, 32, 64, 128)), 64, 1_500,
             'uniform', (5e-4, 5e-4), 0.999),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, size='narrow', pack=1, steps=0, smoke=False)
  model, packs, steps, latents, rates, b2 = common.size(SIZES, arg.size, 'size')
  config = common.base(steps=arg.steps or steps, batch_size=packs * arg.pack)
  config.experiment = 'genjax.experiments.gan'
  small: Any = dict(latent=4, generator_widths=(8, 4, 4, 4), discriminator_widths=(2, 2, 4)) if arg.smoke else {}
  config.data = dict(name='stacked_mnist', train='train', heldout='test[:16]' if arg.smoke else 'test',
                     shape=(28, 28, 3), num_classes=0, **common.IMAGES)
  config.model = dict(name='pac_dcgan', **{**model, **small}, pack=arg.pack, momentum=0.9, dtype='float32')
  config.objective = dict(loss='non_saturating', distribution=latents, r1_gamma=0.0, r1_every=16,
                          discriminator_steps=1, conditional=False)
  config.optimizers = {group: dict(name='adam', lr=rate, b1=0.5, b2=b2)
                       for group, rate in zip(('generator', 'discriminator'), rates)}
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=26_000)
  config.steps_per_call = 10
  config.log_every = max(1, min(500, config.steps // 30))
  config.evaluate_every = config.sample_every = max(1, config.steps // 5)
  config.evaluate_batches = 4
  config.checkpoint.every = max(1, min(5000, config.steps // 5))
  config.sample_num = 100
  return common.smoke(config) if arg.smoke else config
