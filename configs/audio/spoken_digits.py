"""Recognition of spoken digits, or of your own recordings, by a Whisper-style encoder-decoder.

    genjax train --config=configs/audio/spoken_digits.py --config.data.originals=FOLDER --workdir=runs/spoken_digits
    genjax evaluate --workdir=runs/spoken_digits
    genjax sample --workdir=runs/spoken_digits --num=1 --conditions=source=FOLDER/7_jackson_32.wav

FOLDER is recordings/ of https://github.com/Jakobovski/free-spoken-digit-dataset.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=1500, batch_size=64)
  config.experiment = 'genjax.experiments.speech'
  config.data = dict(name='free_spoken_digits', train='train', heldout='test', seconds=1.0, bands=40, window=200,
                     hop=80, shift=20, originals='', audio='audio', field='text', longest=0, rate=8_000, threads=1)
  config.model = dict(layers=2, decoder_layers=1, heads=4, width=96, mlp_width=384, dropout=0.1, init='xavier',
                      dtype='float32', attention='auto', remat='none', unroll=True)
  config.objective = dict(smoothing=0.1)
  config.sampler = dict(common.TOKENS, length=6, temperature=0.0)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.98, weight_decay=0.05, clip=1.0, warmup=100,
                               schedule='cosine', end=0.0)
  config.ema.net = 0.99
  config.evaluate_every = 250
  config.sample_num = 16
  config.sample_every = 500
  config.checkpoint.every = 500
  if arg.smoke:
    common.smoke(config)
    config.data.update(train='train[:40]', heldout='test[:16]', bands=8)
    config.model.update(layers=1, heads=2, width=16, mlp_width=32)
    config.optimizers.net.warmup = 1
  return config
