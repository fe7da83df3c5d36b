"""One-class anomaly detection by a VAE on MNIST: it learns one digit, and the nine others are anomalies.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train --config=configs/autoencoders/one_class.py:digit=3 --workdir=runs/digit3
    genjax evaluate --workdir=runs/digit3
    genjax sweep --config=configs/autoencoders/one_class.py --workdir=runs/one_class --evaluate

The score is the negative importance-weighted bound, an estimate of -log p(x) (Burda et al. 2016). The likelihood is
Gaussian: under a Bernoulli one, grey pixels cost nats however well they are reconstructed, and images with few of them,
ones above all, look normal to every model. The sweep trains the ten digits; its table has the AUROC of each.

Arguments: digit; held_out, which trains on the nine other digits, so that this one is the anomaly; score, see
docs/anomaly.md; steps.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, digit=0, held_out=False, score='negative_bound', steps=2000, smoke=False)
  digits = tuple(other for other in range(10) if (other == arg.digit) != arg.held_out)
  config = common.base(steps=arg.steps, batch_size=128)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=0, classes=digits,
                     **common.IMAGES)
  config.model = dict(name='mlp', latent=16, hidden=(400, 200), activation='relu', dtype='float32')
  config.objective = dict(likelihood='gaussian', scale=0.2, beta=1.0, kl_warmup=arg.steps // 10, importance_samples=50)
  config.evaluation = dict(anomaly=arg.score, normal=(), anomaly_split='')
  config.optimizers.net = dict(name='adam', lr=1e-3, warmup=100, schedule='cosine', end=0.05)
  config.log_every = 500
  config.evaluate_every = arg.steps
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1))
    config.model.update(latent=3, hidden=(16, 8))
    config.objective.update(importance_samples=3, kl_warmup=0)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config


def sweep():
  """The ten digits, one a run."""
  for digit in range(10):
    yield {'arg.digit': digit}
