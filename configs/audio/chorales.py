"""Bach's chorales, note by note: a transformer with rotary positions over the four voices.

    genjax data build jsb_chorales --from=FOLDER_OF_JSON
    genjax train --config=configs/audio/chorales.py --workdir=runs/chorales
    genjax evaluate --workdir=runs/chorales --step=best --set data.heldout=test
    genjax sample --workdir=runs/chorales --num=4 --prompt='48 60 64 67'

Data and split are those of Boulanger-Lewandowski et al. 2012, in quarter notes. A time step is four tokens, its notes
from the lowest to the highest. Each set of notes has one encoding, so step_nll, the sum over the four tokens, is the
negative log-likelihood of the piano roll in nats per time step, comparable with published numbers. Held-out pieces are
read in windows of 32 steps: a note is predicted from at least the 16 steps before it, or from the beginning. Ends of
pieces are not modelled. The data set is small, hence dropout, and the checkpoint that is best on the validation split.
Samples are written in ABC notation.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=600, batch_size=16)
  config.experiment = 'genjax.experiments.chorales'
  config.data = dict(name='jsb_chorales', train='train', heldout='validation', steps=32, data_dir='', originals='')
  config.model = dict(name='gpt', layers=2, heads=4, width=128, positions='rope', dropout=0.2, dtype='float32',
                      attention='auto', remat='none', unroll=True)
  config.sampler = dict(common.TOKENS, length=256)  # 64 time steps
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.99, weight_decay=0.1, clip=1.0, warmup=50, schedule='cosine',
                               end=0.1)
  config.log_every = 50
  config.evaluate_every = 100
  config.sample_every = 500
  config.sample_num = 4
  config.checkpoint.update(every=100, keep=1, best='step_nll')
  if arg.smoke:
    config.data.update(train='validation[:8]', heldout='validation[8:10]', steps=4)
    config.model.update(layers=2, heads=2, width=16)
    config.sampler.length = 20
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
