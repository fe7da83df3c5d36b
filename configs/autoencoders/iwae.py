"""Importance-weighted autoencoders (Burda et al. 2016) with one stochastic layer, on dynamically binarized MNIST.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train --config=configs/autoencoders/iwae.py:k=5,epochs=5,batch=20 --workdir=runs/iwae
    genjax evaluate --workdir=runs/iwae

The networks are those of the paper: 784-200-200-50 with tanh, and the reverse. The schedule is that of the present
code of xqding/Importance_Weighted_Autoencoders, Adam 1e-3 on batches of 1,000 for 5,000 epochs, and so is the number of
importance samples of the reported log-likelihood, 5,000. The values in its README are older: when they were written,
the code had 10,000 epochs and AMSGrad. The paper has batches of 20, 3,280 epochs, and a rate that falls from 1e-3 to
1e-4. Arguments: k, the samples of the bound (50); bound 'importance_weighted', or 'elbo' for the mean of k ELBOs;
epochs (5000); batch (1000).
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, k=50, bound='importance_weighted', epochs=5000, batch=1000, smoke=False)
  config = common.base(steps=arg.epochs * (60_000 // arg.batch), batch_size=arg.batch)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=0, binarize='dynamic',
                     **common.IMAGES)
  config.model = dict(name='mlp', latent=50, hidden=(200, 200), activation='tanh', dtype='float32')
  config.objective = dict(likelihood='bernoulli', bound=arg.bound, samples=arg.k, beta=1.0, kl_warmup=0,
                          importance_samples=50)
  config.evaluation = dict(likelihood_samples=5000, likelihood_chunk=10, likelihood_examples=0)
  config.optimizers.net = dict(name='adam', lr=1e-3)
  config.log_every = 1000
  config.evaluate_every = max(1, config.steps // 5)
  config.sample_every = max(1, config.steps // 5)
  config.checkpoint.every = max(1, min(1000, config.steps // 5))
  if arg.smoke:
    config = common.smoke(config)
    config.model.update(latent=3, hidden=(8, 8))
    config.objective.update(samples=3, importance_samples=3)
    config.evaluation.update(likelihood_samples=20, likelihood_examples=8)
  return config
