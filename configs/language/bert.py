"""A small BERT, pre-trained as a masked language model on reviews, captions and plays.

    genjax data build sst2 --from=FOLDER
    genjax data build multi30k --from=FOLDER
    genjax data build tiny_shakespeare --from=FOLDER
    genjax train --config=configs/language/bert.py --workdir=runs/bert
    genjax sample --workdir=runs/bert --prompt='a [MASK] film with great [MASK] .'

configs/language/sst2.py can start from this run. Text: the training sentences of SST-2 without labels, the English
captions of Multi30k, and tiny Shakespeare. Held out: the validation sentences of SST-2. The tokenizer is uncased
WordPiece with 5,000 tokens, trained on the training text. 15 % of the tokens are chosen; 80 % of these become the mask
token, 10 % a random token (Devlin et al. 2018, section 3.1). There is no next-sentence task. 2 layers, 2 heads, width
128 (BERT-tiny of Turc et al. 2019), context 64.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=1500, batch_size=32)
  config.experiment = 'genjax.experiments.bert'
  config.data = dict(name='sst2', train='train', heldout='validation', field='sentence', vocabulary='bert',
                     vocabulary_size=5000, context=64,
                     more=(('multi30k', 'train', 'en'), ('tiny_shakespeare', 'train', 'text')),
                     start='a [MASK] film with great [MASK] .', data_dir='', originals='')
  config.model = dict(common.SMALL_BERT, dropout=0.0)
  config.objective = dict(name='masked_lm', rate=0.15)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.98, weight_decay=0.01, clip=1.0, warmup=100,
                               schedule='linear')
  config.log_every = 100
  config.evaluate_every = 500
  config.sample_every = 1000
  config.sample_num = 8
  config.checkpoint.every = 500
  if arg.smoke:
    config.data.update(train='validation[:100]', heldout='validation[100:130]', more=(), vocabulary_size=400,
                       context=16)
    config.model.update(layers=2, heads=2, width=16)
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
