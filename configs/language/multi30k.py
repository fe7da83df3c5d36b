"""German-English translation of image captions (Multi30k) by the original Transformer, as in pytorch-seq2seq.

    genjax data build multi30k --from=FOLDER
    genjax train    --config=configs/language/multi30k.py --workdir=runs/multi30k
    genjax evaluate --workdir=runs/multi30k --step=best --set data.heldout=test_2016_flickr
    genjax sample   --workdir=runs/multi30k --num=1 --prompt='Ein Mann fährt Fahrrad.'

Needs `pip install 'genjax-research[text]'`. docs/translation.md has the results. The arguments `source` and `target`
choose other languages of the data set (de, en, fr).
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, source='de', target='en', epochs=10, smoke=False)
  config = common.base(steps=227 * arg.epochs, batch_size=128)  # 29,000 pairs
  config.experiment = 'genjax.experiments.seq2seq'
  config.data = dict(name='multi30k', train='train', heldout='validation', source=arg.source, target=arg.target,
                     splitter='spacy', least_count=2, context=100, data_dir='', originals='')
  config.model = dict(context=100, layers=3, heads=8, width=256, mlp_width=512, positions='learned', tied=False,
                      output_bias=True, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1, dtype='float32',
                      attention='auto', remat='none', unroll=True)
  config.objective = dict(smoothing=0.0)
  config.sampler = dict(common.TOKENS, length=50, temperature=0.0)
  config.evaluation = dict(sacrebleu=True, batch=128)
  config.optimizers.net = dict(name='adam', lr=5e-4, clip=1.0)
  config.log_every = 50
  config.evaluate_every = 227
  config.sample_every = 227
  config.sample_num = 4
  config.checkpoint.update(every=227, keep=1, best='loss')
  if arg.smoke:
    config.data.update(name='spoken_digits', splitter='simple', context=12)
    config.model.update(context=12, layers=1, heads=2, width=16, mlp_width=32)
    config.sampler.length = 10
    config.evaluation.update(sacrebleu=False, batch=4)
    config = common.smoke(config)
  return config
