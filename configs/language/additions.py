"""An LSTM that adds: '12+345' to '357', letter by letter, as in flax' example seq2seq.

    genjax train    --config=configs/language/additions.py --workdir=runs/additions
    genjax evaluate --workdir=runs/additions
    genjax sample   --workdir=runs/additions --num=1 --prompt='12+345'

Setting of google/flax, examples/seq2seq: an LSTM of 512 units reads one-hot letters, another one writes the sum, Adam
3e-3, batch 128, teacher forcing. Its README has an accuracy of whole answers of 100 % at step 1,800, on one training
batch of 128. Here 5,000 of the 95,050 sums are held out, and `translation/exact` is the share of them that are
right when the likeliest letter is written each time.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=2_000, batch_size=128)
  config.experiment = 'genjax.experiments.seq2seq'
  config.data = dict(name='additions', train='train', heldout='heldout', source='question', target='answer',
                     splitter='characters', least_count=1, context=8)
  config.model = dict(name='lstm', hidden=512, embedding=0, dtype='float32')
  config.objective = dict(smoothing=0.0)
  config.sampler = dict(common.TOKENS, length=6, temperature=0.0)
  config.evaluation = dict(sacrebleu=False, exact=True)
  config.optimizers.net = dict(name='adam', lr=3e-3)
  config.log_every = 100
  config.evaluate_every = 500
  config.sample_every = 500
  config.sample_num = 8
  config.checkpoint.every = 250
  if arg.smoke:
    config.model.hidden = 16
    config = common.smoke(config)
  return config
