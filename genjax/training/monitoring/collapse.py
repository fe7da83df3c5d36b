"""A line in the log while a generator collapses, instead of a surprise at the end."""

from collections.abc import Callable, Mapping

from genjax.training.hooks import Hook
from genjax.training.monitoring import logs
from genjax.training.run import Run

# What a step measures -> (whether low or high values warn, what they mean)
SIGNS: dict[str, tuple[bool, str]] = {
  'pairwise': (True, 'samples of a batch are nearly the same, at {value:.2f} of the mean distance of real ones'),
  'nearest': (True, 'samples of a batch repeat each other, at {value:.2f} of the distance of real ones to their '
              'nearest neighbour'),
  'accuracy': (False, 'the discriminator tells real and fake apart in {value:.1%} of all cases, so that the generator '
               'learns little'),
}


class Collapse(Hook):
  """Warns when the measures of a step, see `SIGNS`, stay on the wrong side of a bound.

  A warning is given once, after so many lines of the log in a row, and again only after the measure was well for as
  many. At the start of a training generators make nearly the same of all latents, so that its lines do not count.

  Args:
    pairwise: lowest ratio of mean pairwise distances of fake and real samples.
    nearest: lowest ratio of mean distances to the nearest neighbour.
    accuracy: highest accuracy of the discriminator.
    patience: lines of the log.
    start: share of the steps of the run that is its start.
    say: what prints a warning.
  """

  def __init__(self, pairwise: float = 0.5, nearest: float = 0.5, accuracy: float = 0.98, patience: int = 4,
               start: float = 0.1, say: Callable[[str], None] = logs.say):
    self.bounds = {'pairwise': pairwise, 'nearest': nearest, 'accuracy': accuracy}
    self.patience, self.begin, self.say = patience, start, say
    self.warned: dict[str, int] = {}  # measure -> step of the warning that still holds
    self._lines = dict.fromkeys(SIGNS, 0)  # in a row that speak against what holds

  def on_log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    """See `genjax.training.loop.Hook`."""
    if step <= self.begin * run.settings.steps:
      return
    for name, value in values.items():
      if name.count('/') == 1 and (measure := name.partition('/')[2]) in SIGNS:
        self._count(step, measure, value)

  def _count(self, step: int, measure: str, value: float) -> None:
    low, text = SIGNS[measure]
    bad = value < self.bounds[measure] if low else value > self.bounds[measure]
    self._lines[measure] = self._lines[measure] + 1 if bad != (measure in self.warned) else 0
    if self._lines[measure] < self.patience:
      return
    self._lines[measure] = 0
    if not bad:
      del self.warned[measure]
      return
    self.warned[measure] = step
    self.say(f'step {step}  warning: {text.format(value=value)}; see docs/gan_training.md')
