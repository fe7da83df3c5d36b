"""MADE on binarized MNIST: the likelihood of a digit, pixel after pixel, from one masked network.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train    --config=configs/autoregressive/mnist_made.py --workdir=runs/made
    genjax evaluate --workdir=runs/made
    genjax sample   --workdir=runs/made --num=64 --out=digits.png

Setting of EugenHotaj/pytorch-generative: one hidden layer of 8,000 units (12.55 M parameters), one random order of the
pixels, pixels drawn anew whenever an image is read, Adam 1e-3, batch 64, 85 epochs. Its README has 84.87 nats.
Arguments: hidden (8000), orderings (1), epochs (85).
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, hidden=8000, orderings=1, epochs=85, smoke=False)
  config = common.base(steps=arg.epochs * 60_000 // 64, batch_size=64)
  config.experiment = 'genjax.experiments.autoregressive'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=0, binarize='dynamic',
                     **common.IMAGES)
  config.model = dict(name='made', hidden=(arg.hidden,), orderings=arg.orderings, order='random', dtype='float32')
  config.optimizers.net = dict(name='adam', lr=1e-3)
  config.log_every = 100
  config.evaluate_every = 5 * 937
  config.sample_every = 5 * 937
  config.checkpoint.update(every=937, best='nll')
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1))
    config.model.update(hidden=(16, 12), orderings=2)
    config = common.smoke(config)
  return config
