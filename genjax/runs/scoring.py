"""The metrics of a run on its held-out split and of its samples, with what a reader needs to know of them."""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.metrics.card import Card
from genjax.runs import atomic, builders
from genjax.runs import workdir as workdir_lib
from genjax.training import averages, drawing, rehearsal
from genjax.training.experiment import Columns, Metric
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError

NAME = 'evaluation.json'
FOLDER = 'evaluations'  # of a run: what `genjax evaluate --each` found
EXTRACTOR = 'extractor'  # in the card of a measure: the network that judged, with the digest of its parameters


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


def check(run: Run, samples: bool = True, averaged: bool | str = True, workdir: pathlib.Path | None = None) -> None:
  """Checks, before the parameters are read, that a run can be evaluated.

  Args:
    run: not yet with its state.
    samples: whether by measures of samples, too.
    averaged: see `genjax.training.run.Run.params`.
    workdir: of the run. Where its evaluation.json names an extractor, the extractor has to be the same.

  Raises:
    UserError: data or packages are missing, options do not fit, or an extractor has changed.
  """
  rehearsal.check(run, None)
  if isinstance(averaged, str):
    averages.named(run.experiment.ema, averaged)
  for metric in run.experiment.metrics if samples else ():
    metric.check()
    if workdir is not None:
      _check_extractor(workdir / NAME, metric)


def _check_extractor(path: pathlib.Path, metric: Metric) -> None:
  """Checks that an extractor has the parameters that the card of the last evaluation says of it."""
  now = metric.card.get(EXTRACTOR) or {}
  if 'sha256' not in now or not path.is_file():
    return
  try:
    was = json.loads(path.read_text())['card']['measures'][metric.name][EXTRACTOR]
    same = was['part'] != now['part'] or was['sha256'] == now['sha256']
  except (ValueError, KeyError, TypeError):  # it has no such measure, or is none of this version
    return
  if not same:
    key = f'evaluation.parts.{now["part"]}'
    raise UserError(
      f'config.{key}: the parameters in {now["folder"]} have sha256 {now["sha256"][:16]}, and those of the last '
      f'evaluation had {was["sha256"][:16]}, as the metric card in {path} says. Name the extractor of then, give this '
      f'one another name than {now["part"]!r}, or remove that file')


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
  return Evaluation(metrics, card(config, run, count, averaged, seed, cards), examples)


def card(config: Config, run: Run, examples: int, averaged: bool | str = True, seed: int = 0,
         measures: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
  """The metric card of values of a run, as JSON.

  Args:
    config: of the run.
    run: with its state.
    examples: how many held-out examples were evaluated.
    averaged: see `genjax.training.run.Run.params`.
    seed: of samples.
    measures: name of a measure of samples -> what its own card says.
  """
  return Card(
    step=run.step,
    data=run.experiment.heldout.fingerprint(),
    examples=examples,
    parameters=_parameters(run, averaged),
    seed=seed,
    sampler={**config_lib.plain(config.sampler), **builders.sampling(config)},
    measures=measures or {},
    versions=workdir_lib.versions(),
  ).as_json()


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
