"""Sentiment of film reviews (SST-2, Socher et al. 2013) by a small BERT, from scratch or pre-trained.

    genjax train --config=configs/language/sst2.py --workdir=runs/sst2 --config.data.vocabulary=runs/bert
    genjax train --config=configs/language/sst2.py:pretrained=runs/bert --workdir=runs/sst2_pretrained
    genjax evaluate --workdir=runs/sst2_pretrained --step=best --set data.heldout=test

Training uses 6,920 whole sentences, without phrases of the treebank. The checkpoint with the highest accuracy on the
872 validation sentences is kept; accuracy is reported on the 1,821 test sentences. With `pretrained`, the tokenizer and
all parameters except the pooler and the classifier come from that run (of configs/language/bert.py). Without it, a
tokenizer is trained on the training sentences, unless config.data.vocabulary names one.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, pretrained='', smoke=False)
  config = common.base(steps=648, batch_size=32)
  config.experiment = 'genjax.experiments.bert'
  config.data = dict(name='sst2', train='train', heldout='validation', field='sentence', label='label',
                     vocabulary=arg.pretrained or 'bert', vocabulary_size=5000, context=48, data_dir='', originals='')
  config.model = dict(common.SMALL_BERT, context=64)  # of the pre-trained encoder
  config.objective = dict(name='classification', smoothing=0.0)
  config.optimizers.net = dict(name='adamw', lr=5e-4, weight_decay=0.01, clip=1.0, warmup=100, schedule='linear')
  if arg.pretrained:
    config.init_from = arg.pretrained
    config.init.rules = (('drop', r'net/heads/(transform|transform_norm)/.*'), ('drop', 'net/heads/token_bias'),
                         ('keep', 'net/heads/(pooler|classifier)/.*'))
  config.log_every = 60
  config.evaluate_every = 108
  config.checkpoint.update(every=108, keep=1, best='accuracy', mode='max')
  if arg.smoke:
    config.data.update(train='validation[:100]', heldout='validation[100:130]', vocabulary_size=400, context=16)
    config.model.update(layers=2, heads=2, width=16, context=16)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  config.sample_every = 0  # nothing to sample
  return config
