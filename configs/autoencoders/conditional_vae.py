"""A VAE that is told the class (Sohn et al. 2015): samples of one digit on request.

    genjax train --config=configs/autoencoders/conditional_vae.py --workdir=runs/told
    genjax sample --workdir=runs/told --conditions=label=3 --num=16 --out=threes.png

Both networks read the label, so that the latent is left with what else there is: slant, width, style. Arguments: data
'digits' (ships with scikit-learn; a minute) or 'mnist'; model 'conv' or 'mlp'.
"""

from genjax.configs import common

SETS = {'digits': (8, 1), 'mnist': (28, 1), 'fashion_mnist': (28, 1)}
MODELS = {'conv': dict(name='conv', latent=8, channels=(32, 64), dtype='float32'),
          'mlp': dict(name='mlp', latent=8, hidden=(400, 200), dtype='float32')}


def get_config(arg=None):
  arg = common.parse_arg(arg, data='digits', model='conv', steps=3000, smoke=False)
  side, channels = common.size(SETS, arg.data, 'data')
  config = common.base(steps=arg.steps, batch_size=64)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name=arg.data, train='train', heldout='test', shape=(side, side, channels), num_classes=10,
                     **common.IMAGES)
  config.model = MODELS[arg.model]
  config.conditions = dict(label=dict(kind='classes', dropout=0.0))
  config.objective = dict(likelihood='bernoulli', beta=1.0, kl_warmup=500, importance_samples=50)
  config.optimizers.net = dict(name='adam', lr=1e-3, warmup=100, schedule='cosine', end=0.05)
  config.log_every = 500
  config.evaluate_every = 1000
  config.sample_every = 1000
  if arg.smoke:
    config.model.update(dict(latent=3, channels=(4, 8)) if arg.model == 'conv' else dict(latent=3, hidden=(8,)))
    config.objective.update(importance_samples=3, kl_warmup=0)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
