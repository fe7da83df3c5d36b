"""A VAE with two levels of latents that are inferred from the top down (Sonderby et al. 2016), on binarized MNIST.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train --config=configs/autoencoders/ladder_vae.py --workdir=runs/ladder

784-512-256 units to the 64 latents of the lower level, 128 more to the 32 of the upper one; the KL term grows over the
first tenth of the run (warm-up, section 2.3 of the paper), without which upper levels stay unused. The paper has five
levels and batch normalisation; this has neither. Arguments: epochs; data 'mnist' or 'digits'.
"""

from genjax.configs import common

SETS = {'digits': (8, 1), 'mnist': (28, 1), 'fashion_mnist': (28, 1)}


def get_config(arg=None):
  arg = common.parse_arg(arg, data='mnist', epochs=100, smoke=False)
  side, channels = common.size(SETS, arg.data, 'data')
  config = common.base(steps=arg.epochs * 468, batch_size=128)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name=arg.data, train='train', heldout='test', shape=(side, side, channels), num_classes=0,
                     binarize='dynamic', **common.IMAGES)
  config.model = dict(name='ladder', latent=64, hidden=(512, 256), upper=32, upper_hidden=(128,), activation='relu',
                      dtype='float32')
  config.objective = dict(likelihood='bernoulli', beta=1.0, kl_warmup=config.steps // 10, importance_samples=50)
  config.optimizers.net = dict(name='adam', lr=1e-3, warmup=100, schedule='cosine', end=0.05)
  config.log_every = 468
  config.evaluate_every = 10 * 468
  config.sample_every = 10 * 468
  config.checkpoint.every = 10 * 468
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1))
    config.model.update(latent=5, hidden=(16, 8), upper=3, upper_hidden=(6,))
    config.objective.update(importance_samples=3, kl_warmup=0)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
