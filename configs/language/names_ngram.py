"""Names from a window of letters, with the models of the makemore notebooks: a bigram table, an MLP, a tree of layers.

    genjax data build shuffled_names --from=FOLDER_OF_NAMES_TXT
    genjax train  --config=configs/language/names_ngram.py:model=mlp --workdir=runs/names_mlp
    genjax sample --workdir=runs/names_mlp --num=20

Settings of karpathy/nn-zero-to-hero, lectures/makemore. `bigram` (part 1) trains and evaluates on all names, where
counts give 2.4540 nats. `mlp` (end of part 3: 3 letters, 12,097 parameters) has 2.105 on the validation names, and
`wavenet` (end of part 5: 8 letters, 76,579 parameters) 1.993. Both run 200,000 steps of 32 symbols by plain gradient
descent at 0.1, and at 0.01 after a half (MLP) or three quarters (wavenet). The split is that of the notebooks. What
differs: each epoch has every symbol once, where the notebooks draw with replacement; the variance of a batch is divided
by its size, not by one less; the weights of the MLP begin smaller, at 3/5 (hidden layer) and 7/10 (output) of theirs,
and its evaluation reads running averages of the variance, not of the deviation.
"""

from genjax.configs import common

MODELS = {
  'bigram': dict(name='bigram'),
  'mlp': dict(name='mlp', window=3, width=10, hidden=200, momentum=0.999, dtype='float32'),
  'wavenet': dict(name='wavenet', levels=3, width=24, hidden=128, momentum=0.9, dtype='float32'),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='wavenet', smoke=False)
  table = arg.model == 'bigram'
  config = common.base(steps=2_000 if table else 200_000, batch_size=512 if table else 32)
  config.experiment = 'genjax.experiments.ngrams'
  config.data = dict(name='shuffled_names', train='train', heldout='validation', separator='\n', data_dir='',
                     originals='')
  config.model = common.size(MODELS, arg.model)
  config.sampler = dict(common.TOKENS, length=20)
  config.optimizers.net = dict(name='sgd', lr=0.1, schedule='drop', end=0.1,
                               drop_at=0.75 if arg.model == 'wavenet' else 0.5)
  if table:
    config.data.train = config.data.heldout = 'train+validation+test'
    config.optimizers.net = dict(name='adam', lr=0.1, schedule='cosine')
  config.steps_per_call = 10 if table else 100  # a step takes less than a millisecond
  config.log_every = config.steps // 20
  config.evaluate_every = config.steps // 5
  config.sample_every = config.steps // 2
  config.sample_num = 20
  config.checkpoint.every = config.steps // 20
  if arg.smoke:
    config.data.train, config.data.heldout = 'train[:64]', 'validation[:16]'
    if arg.model != 'bigram':
      config.model.update(width=4, hidden=8)
    config.steps_per_call = 1
    config = common.smoke(config)
  return config
