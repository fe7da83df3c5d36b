"""Rows of music and speech."""

from genjax.studies.baselines import Metric, Row

TITLE = 'Music and speech'
ROWS = (
  Row('chorales', 'configs/audio/chorales.py', seeds=(0, 1, 2), minutes=2.5, data=('jsb_chorales',),
      evaluate=('--step=best', '--set', 'data.heldout=test'), metrics=(
        Metric('heldout/step_nll', (None, 5.35), label='negative log-likelihood of a time step, nats'),
      ),
      note='Data and split of Boulanger-Lewandowski et al. 2012. Papers report this measure, but none of them could be '
           'looked up; the band is around our own result.'),
  Row('spoken_digits', 'configs/audio/spoken_digits.py', minutes=8, data=('free_spoken_digits',), metrics=(
    Metric('recognition/wer', (None, 0.02), label='word error rate, 300 test recordings', percent=True),
    Metric('heldout/accuracy', (0.99, None), label='characters that are right', percent=True)),
      note='All speakers are in both splits of the authors. The band is around our own result.'),
)
