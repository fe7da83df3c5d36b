"""Defects in pictures of one's own: a VAE learns from good ones, and scores good ones and others.

    genjax train --config=configs/autoencoders/defects.py:data=FOLDER --workdir=runs/defects
    genjax evaluate --workdir=runs/defects

The folder has class folders in splits: train/good, test/good, and test/ANYTHING for what is wrong, see
docs/anomaly.md. The score is the negative ELBO. Arguments: data; pixels, the side that pictures are resized to;
channels; good, the name of the class that is learned; score; steps.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', pixels=32, channels=3, good='good', score='negative_elbo', steps=3000,
                         smoke=False)
  if not arg.data and not arg.smoke:
    raise ValueError('config argument data is needed: a folder of pictures with train/good, test/good and test/OTHER')
  config = common.base(steps=arg.steps, batch_size=64)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name=arg.data, train='train', heldout='test', shape=(arg.pixels, arg.pixels, arg.channels),
                     num_classes=0, classes=(arg.good,), **common.IMAGES)
  config.data.update(resize='bilinear', crop=True)
  config.model = dict(name='conv', latent=32, channels=(32, 64), dtype='float32')
  config.objective = dict(likelihood='gaussian', scale=0.1, beta=1.0, kl_warmup=arg.steps // 10, importance_samples=10)
  config.evaluation = dict(anomaly=arg.score, normal=(), anomaly_split='')
  config.optimizers.net = dict(name='adam', lr=1e-3, warmup=100, schedule='cosine', end=0.05)
  config.log_every = 500
  config.evaluate_every = arg.steps
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1), classes=(0, 3), resize='', crop=False)
    config.model.update(latent=3, channels=(4, 8))
    config.objective.update(importance_samples=3, kl_warmup=0)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
