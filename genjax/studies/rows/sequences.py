"""Rows of small sequence models: makemore's bigram, MLP and tree, an LSTM that adds, MADE and NADE."""

from genjax.studies.baselines import Comparison, Metric, Row

TITLE = 'Small sequence models'
_MAKEMORE = 'karpathy/nn-zero-to-hero, lectures/makemore, part {}'
_TORCH = 'EugenHotaj/pytorch-generative, README'
_DRAWN = 'Each epoch has every symbol once, where the notebook draws with replacement.'

ROWS = (
  Row('names_bigram', 'configs/language/names_ngram.py:model=bigram', seeds=(0, 1, 2), minutes=1,
      data=('shuffled_names',), metrics=(
    Metric('heldout/loss', (2.444, 2.464), '2.4765 (counts plus one)', _MAKEMORE.format(1),
           label='loss on the training names, nats per symbol'),
  ), note='All 32,033 names, on which it is trained as well. Counts alone give 2.4540, which no table of logits can '
          'beat. The notebook adds one to each count, or a penalty to a layer that gradients train (2.48); neither is '
          'added here.'),
  Row('names_mlp', 'configs/language/names_ngram.py:model=mlp', seeds=(0, 1, 2), minutes=5, data=('shuffled_names',),
      metrics=(
        Metric('heldout/loss', (2.075, 2.135), '2.105', _MAKEMORE.format(3),
               label='validation loss, nats per symbol'),
      ), comparisons=(Comparison('heldout/loss', (None, -0.2), row='names_bigram', how='difference'),), note=_DRAWN),
  Row('names_wavenet', 'configs/language/names_ngram.py:model=wavenet', minutes=9, data=('shuffled_names',), metrics=(
    Metric('heldout/loss', (1.963, 2.023), '1.993', _MAKEMORE.format(5), label='validation loss, nats per symbol'),
  ), comparisons=(Comparison('heldout/loss', (None, -0.05), row='names_mlp', how='difference'),), note=_DRAWN),
  Row('additions', 'configs/language/additions.py', minutes=10, metrics=(
    Metric('translation/exact', (0.99, None), '100 % at step 1,800', 'google/flax, examples/seq2seq, README',
           label='sums that are right', percent=True),
  ), note='5,000 sums that are held out; the published value is of one training batch of 128, before its update.'),
  Row('mnist_made', 'configs/autoregressive/mnist_made.py', accelerator_minutes=8, data=('mnist',),
      evaluate=('--step=best',), metrics=(
        Metric('heldout/nll', (None, 86.0), '84.87', _TORCH, label='negative log-likelihood, nats'),
      ), note='8,000 hidden units, 85 epochs.'),
  Row('mnist_nade', 'configs/autoregressive/mnist_nade.py', accelerator_minutes=8, data=('mnist',),
      evaluate=('--step=best',), metrics=(
        Metric('heldout/nll', (None, 87.0), '85.65', _TORCH, label='negative log-likelihood, nats'),
      ), note='500 hidden units, 50 epochs. The present code of the repository applies the sigmoid twice in its loss.'),
)
