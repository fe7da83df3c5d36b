"""A convolutional VAE with Gaussian likelihood and KL warm-up on scikit-learn's digits. Nothing to download; 1 minute.

    genjax train --config=configs/autoencoders/digits_vae.py --workdir=runs/digits_vae
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=3000, batch_size=64)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name='digits', train='train', heldout='test', shape=(8, 8, 1), num_classes=0, **common.IMAGES)
  config.model = dict(name='conv', latent=8, channels=(32, 64), dtype='float32')
  config.objective = dict(likelihood='gaussian', scale=0.15, beta=1.0, kl_warmup=500, importance_samples=50)
  config.optimizers.net = dict(name='adam', lr=1e-3, warmup=100, schedule='cosine', end=0.05)
  config.ema = dict(net=0.995)
  config.log_every = 200
  config.evaluate_every = 1000
  config.sample_every = 1000
  if arg.smoke:
    config.model.update(latent=3, channels=(8, 16))
    config.objective.importance_samples = 3
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
