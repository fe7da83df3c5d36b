"""Rows of text: language models, BERT and translation."""

from genjax.studies.baselines import Comparison, Metric, Row

TITLE = 'Language models and translation'
THREE = (0, 1, 2)
_NANOGPT = 'karpathy/nanoGPT, README'
_TREVETT = 'bentrevett/pytorch-seq2seq, legacy notebook 6'
_SST2 = ('--step=best', '--set', 'data.heldout=test')

ROWS = (
  Row('shakespeare_char', 'configs/language/shakespeare_char.py', seeds=(1337, 1338, 1339), minutes=2,
      data=('tiny_shakespeare',), metrics=(
        Metric('heldout/loss', (None, 1.94), '1.88 (20 batches)', _NANOGPT,
               label='validation loss, nats per character'),
      ),
      note="nanoGPT's code itself gives 1.919 over 200 batches. Here all 291 batches of the last tenth of the text "
           'count, in windows that overlap by half.'),
  Row('shakespeare_char_10m', 'configs/language/shakespeare_char.py:model=10.65M', seeds=(1337,), accelerator_minutes=3,
      data=('tiny_shakespeare',), evaluate=('--step=best',), metrics=(
        Metric('heldout/loss', (None, 1.49), '1.4697', f'{_NANOGPT} and config/train_shakespeare_char.py',
               label='best validation loss, nats per character'),
      ),
      note='All 5,000 steps. The held-out text is read as a whole, in windows that do not overlap; the published value '
           'is over 200 random batches.'),
  Row('shakespeare_char_10m_500', 'configs/language/shakespeare_char.py:model=10.65M', seeds=(1337,), minutes=60,
      overrides={'steps': 500, 'microbatches': 8}, data=('tiny_shakespeare',), metrics=(
        Metric('heldout/loss', (None, 1.85), label='validation loss, nats per character'),
      ),
      note='A tenth of the recipe of 5,000 steps that reaches 1.4697, warm-up and cosine included.'),
  Row('names_transformer', 'configs/language/names.py', seeds=THREE, minutes=4, data=('names',), metrics=(
    Metric('heldout/loss', (None, 2.0), 'about 1.92', 'karpathy/makemore, README',
           label='test loss, nats per symbol'),
  ), note="makemore's code gives 1.971 after the same 10,000 steps, on other test names."),
  Row('multi30k', 'configs/language/multi30k.py', minutes=45, data=('multi30k',), packages=('spacy', 'sacrebleu'),
      evaluate=('--step=best', '--set', 'data.heldout=test_2016_flickr'), metrics=(
        Metric('heldout/batch_perplexity', (None, 5.6), '5.316', _TREVETT, label='perplexity of batches, flickr 2016'),
        Metric('translation/bleu', (35.0, None), '36.52', _TREVETT, label='BLEU of words, flickr 2016'),
        Metric('translation/sacrebleu', (None, None), label='sacreBLEU')),
      note='Same model, vocabularies and measures; see [Translation](translation.md).'),
  Row('bert', 'configs/language/bert.py', minutes=9, overrides={'steps': 6000},
      data=('sst2', 'multi30k', 'tiny_shakespeare'), metrics=(
        Metric('heldout/loss', (None, 6.3), label='loss of hidden tokens, nats'),
        Metric('heldout/accuracy', (0.12, None), label='hidden tokens that are right', percent=True)),
      note='No published run of this size was found; the band is around our own result.'),
  Row('bert_wide_init', 'configs/language/bert.py', minutes=5, overrides={'steps': 3000, 'model.init_scale': 0.08},
      data=('sst2', 'multi30k', 'tiny_shakespeare'), metrics=(
        Metric('heldout/loss', (None, 5.9), label='loss of hidden tokens, nats'),
        Metric('heldout/accuracy', (0.17, None), label='hidden tokens that are right', percent=True)),
      comparisons=(Comparison('heldout/loss', (None, 0.0), row='bert', how='difference'),),
      note='Half the steps, from larger initial weights; the band is around our own result.'),
  Row('sst2', 'configs/language/sst2.py', seeds=THREE, minutes=1.5, data=('sst2',), evaluate=_SST2, metrics=(
    Metric('heldout/accuracy', (0.77, None), label='accuracy on the test sentences', percent=True),
  ), note='From scratch. No published run of this size was found; the band is around our own result.'),
  Row('sst2_pretrained', 'configs/language/sst2.py', seeds=THREE, minutes=1.5, data=('sst2',), evaluate=_SST2,
      uses={'arg.pretrained': 'bert'}, metrics=(
        Metric('heldout/accuracy', (0.75, None), label='accuracy on the test sentences', percent=True),
      ),
      comparisons=(Comparison('heldout/accuracy', (-0.05, 0.05), row='sst2', how='difference'),),
      note='From the encoder of the row `bert`, which does not help a model of this size.'),
)
