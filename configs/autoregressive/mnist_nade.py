"""NADE on binarized MNIST: the likelihood of a digit, row by row of pixels, with shared weights.

    genjax data build mnist --from=FOLDER_OF_IDX_FILES
    genjax train    --config=configs/autoregressive/mnist_nade.py --workdir=runs/nade
    genjax evaluate --workdir=runs/nade
    genjax sample   --workdir=runs/nade --num=64 --out=digits.png

Setting of EugenHotaj/pytorch-generative: 500 rectified units before each pixel, pixels drawn anew whenever an image is
read, Adam 1e-3, batch 512, 50 epochs. Its README has 85.65 nats. Its present code applies the sigmoid twice in the
loss, which is not done here. Arguments: hidden (500), epochs (50).
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, hidden=500, epochs=50, smoke=False)
  config = common.base(steps=arg.epochs * 60_000 // 512, batch_size=512)
  config.experiment = 'genjax.experiments.autoregressive'
  config.data = dict(name='mnist', train='train', heldout='test', shape=(28, 28, 1), num_classes=0, binarize='dynamic',
                     **common.IMAGES)
  config.model = dict(name='nade', hidden=arg.hidden, activation='relu', dtype='float32')
  config.optimizers.net = dict(name='adam', lr=1e-3)
  config.log_every = 50
  config.evaluate_every = 5 * 117
  config.sample_every = 5 * 117
  config.checkpoint.update(every=117, best='nll')
  if arg.smoke:
    config.data.update(name='digits', shape=(8, 8, 1))
    config.model.hidden = 16
    config = common.smoke(config)
  return config
