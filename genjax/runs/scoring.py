"""The metrics of a run on its held-out split and of its samples, with what a reader needs to know of them."""

import dataclasses
import os
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.metrics.card import Card
from genjax.runs import atomic
from genjax.runs import workdir as workdir_lib
from genjax.training import averages, drawing, rehearsal
from genjax.training.experiment import Columns
from genjax.training.monitoring import logs
from genjax.training.run import Run

NAME = 'evaluation.json'


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What `evaluate` found.

  Attributes:
    metrics: name -> value: 'heldout/NAME' of the held-out split, 'MEASURE/NAME' of samples.
    card: step, data, sampler, seed, versions: what the values depend on.
    examples: name -> value of each held-out example, in the order of the split.
  """

  metrics: dict[str, float]
  card: dict[str, Any]
  examples: Columns = dataclasses.field(repr=False)

  def as_json(self) -> dict[str, Any]:
    """What evaluation.json holds."""
    return {'metrics': self.metrics, 'card': self.card}


def check(run: Run, samples: bool = True, averaged: bool | str = True) -> None:
  """Checks, before the parameters are read, that a run can be evaluated; `samples`: by measures of samples too.

  Raises:
    UserError: data or packages are missing, or options do not fit.
  """
  rehearsal.check(run, None)
  if isinstance(averaged, str):
    averages.named(run.experiment.ema, averaged)
  for metric in run.experiment.metrics if samples else ():
    metric.check()


def evaluate(config: Config, run: Run, averaged: bool | str = True, samples: bool = True, seed: int = 0) -> Evaluation:
  """Evaluates a run on its held-out split.

  Args:
    config: of the run.
    run: with its state.
    averaged: see `genjax.training.run.Run.params`.
    samples: compute the measures that draw samples, too.
    seed: of these samples.
  """
  values, examples = run.scores(averaged)
  if run.experiment.summarise:
    values.update(run.experiment.summarise(examples))
  count = int(values.pop('examples'))
  metrics = {f'heldout/{name}': value for name, value in values.items()}
  cards = {}

  draw = drawing.Samples(run, seed, averaged)
  for metric in run.experiment.metrics if samples else ():
    metrics.update({f'{metric.name}/{name}': value for name, value in metric.compute(draw, seed).items()})
    cards[metric.name] = dict(metric.card)
  card = Card(
    step=run.step,
    data=run.experiment.heldout.fingerprint(),
    examples=count,
    parameters=_parameters(run, averaged),
    seed=seed,
    sampler=config_lib.plain(config.sampler),
    measures=cards,
    versions=workdir_lib.versions(),
  )
  return Evaluation(metrics, card.as_json(), examples)


def _parameters(run: Run, averaged: bool | str) -> str:
  """Which parameters were evaluated, in words."""
  if not averaged or not run.experiment.ema:
    return 'raw'
  words = f'averaged {sorted(run.experiment.ema)}'
  return f'{words}, {averaged!r} of {sorted(averages.named(run.experiment.ema, averaged))}' if isinstance(
    averaged, str) else words


def keep(workdir: pathlib.Path, evaluation: Evaluation) -> None:
  """Writes evaluation.json; where the run may not be written to, that is said."""
  if os.access(workdir, os.W_OK):
    atomic.write_json(workdir / NAME, evaluation.as_json())
  else:
    logs.say(f'{workdir / NAME} is not written: the run belongs to another user, or to a read-only disk')
