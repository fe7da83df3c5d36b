"""VQ-VAE on CIFAR-10 by the recipe of Sonnet's example: 512 codes of 64 numbers for 8 x 8 places of an image.

    genjax train --config=configs/autoencoders/cifar10_vqvae.py --workdir=runs/cifar10_vqvae

Arguments: `steps`; `learned`, how the codebook is learned, 'averages' or 'gradient'; `estimator`, 'straight_through' or
'rotation'; `levels`, such as levels=8.5.5.5, quantizes by finite scalars in place of a codebook.

As in the example, the first 40,000 training images are trained on, and the last 10,000 are held out. After 10,000 steps
it gave a squared error of 0.056 over the variance of the data, and a perplexity of 326 of the codes of a batch.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, steps=10_000, learned='averages', estimator='straight_through', levels='', smoke=False)
  config = common.base(steps=arg.steps, batch_size=32)
  config.experiment = 'genjax.experiments.vq'
  config.data = dict(name='cifar10', train='train[:40000]', heldout='train[40000:]', shape=(32, 32, 3), num_classes=0,
                     flip=False, **common.IMAGES)
  config.model = dict(name='vqvae', hidden=128, halvings=2, blocks=2, residual=32, pixel_scale=0.5, dtype='float32')
  config.quantizer = dict(name='vector', size=512, width=64, learned=arg.learned, decay=0.99, commitment=0.25,
                          codebook_weight=1.0, estimator=arg.estimator, revive=0.0, spread=0.0)
  if arg.levels:
    config.quantizer = dict(name='finite_scalar', levels=tuple(int(level) for level in arg.levels.split('.')))
  config.objective = dict(reconstruction='l2', variance=0.0633, normalisation='channels')
  config.optimizers.net = dict(name='adam', lr=3e-4)
  config.log_every = 100
  config.evaluate_every = 2000
  config.evaluate_batches = 64
  config.sample_every = 2000
  config.checkpoint.every = 500
  if arg.smoke:
    config.model.update(hidden=16, residual=8)
    config.quantizer.update(dict(size=16, width=4) if not arg.levels else {})
    config = common.smoke(config)
    config.data.update(train='train[:64]', heldout='train[64:80]')
  return config
