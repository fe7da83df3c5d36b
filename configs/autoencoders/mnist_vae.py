"""The 784-500-20-500-784 VAE on binarized MNIST.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train --config=configs/autoencoders/mnist_vae.py --workdir=runs/vae
    genjax evaluate --workdir=runs/vae

Setting of flax's VAE example: Adam 1e-3, batch 128, one Bernoulli draw of MNIST. Its README reports a test loss of
about 104 nats after 10 epochs on Larochelle's binarization; ours is another draw. Arguments: epochs (30); model 'mlp'
or 'conv'; binarize 'fixed', 'dynamic' or 'none'.
"""

from genjax.configs import common

MODELS = {
  'mlp': dict(name='mlp', latent=20, hidden=(500,), dtype='float32'),
  'conv': dict(name='conv', latent=20, channels=(32, 64), dtype='float32'),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, epochs=30, model='mlp', binarize='fixed', smoke=False)
  config = common.base(steps=arg.epochs * 60_000 // 128, batch_size=128)
  config.experiment = 'genjax.experiments.vae'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=0,
                     binarize=arg.binarize, **common.IMAGES)
  config.model = MODELS[arg.model]
  config.objective = dict(likelihood='bernoulli', beta=1.0, kl_warmup=0, importance_samples=50)
  config.optimizers.net = dict(name='adam', lr=1e-3)
  config.log_every = 468
  config.evaluate_every = 10 * 468
  config.sample_every = 10 * 468
  config.checkpoint.every = 10 * 468
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1))
    config.objective.importance_samples = 3
    config.model.update(dict(latent=3, hidden=(8,)) if arg.model == 'mlp' else dict(latent=3, channels=(4, 8)))
    config = common.smoke(config)
  return config
