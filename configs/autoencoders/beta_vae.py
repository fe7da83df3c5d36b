"""beta-VAE (Higgins et al. 2017), and its form with a capacity that grows (Burgess et al. 2018).

    genjax train --config=configs/autoencoders/beta_vae.py:data=digits,beta=4.0 --workdir=runs/beta
    genjax train --config=configs/autoencoders/beta_vae.py:data=FOLDER,pixels=64,capacity=25.0 --workdir=runs/capacity

With a capacity C in nats, the KL term is beta |KL - C|, and C grows from 0 over the first half of the run; beta is then
the paper's gamma, which is large. Arguments: data, a standard set or a folder; pixels and channels of a folder; beta; 0
takes 4 without and 100 with a capacity; capacity; latent.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='digits', pixels=0, channels=3, beta=0.0, capacity=0.0, latent=10, steps=5000,
                         smoke=False)
  config = common.base(steps=arg.steps, batch_size=64)
  config.experiment = 'genjax.experiments.vae'
  config.data = common.pictures(arg, 95, 'bilinear')
  config.model = dict(name='conv', latent=arg.latent, channels=(32, 64), dtype='float32')
  config.objective = dict(likelihood='bernoulli', beta=arg.beta or (100.0 if arg.capacity else 4.0),
                          capacity=arg.capacity, capacity_steps=arg.steps // 2 if arg.capacity else 0, kl_warmup=0,
                          importance_samples=50)
  config.optimizers.net = dict(name='adam', lr=5e-4)
  config.log_every = 500
  config.evaluate_every = 1000
  config.sample_every = 1000
  if arg.smoke:
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), resize='', crop=False)
    config.model.update(latent=3, channels=(4, 8))
    config.objective.update(importance_samples=3, beta=100.0, capacity=5.0, capacity_steps=10)
    config = common.smoke(config)
  return config
