"""The metric card: the facts that are needed to compare and reproduce a metric."""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from genjax.types import UserError

# Raised whenever a change of the code changes what some measure gives for the same samples and data, so that
# `genjax compare` tells values of before from those of after.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Card:
  """How metrics were computed.

  `genjax compare` refuses values whose cards differ in what decides them, see `genjax.studies.compare`.

  step: finished training steps. data: fingerprint of the held-out data, its split included. examples: how many of
  them were evaluated. parameters: 'raw', or which groups were averaged. seed: of everything drawn. sampler: its
  options, guidance included, and what else samples depend on, such as objective.truncation. measures: name of a
  measure -> its own facts (feature extractor, what resized the pictures, number of samples). versions: package ->
  version. version: of the project's metrics, `VERSION`.
  """

  step: int
  data: Mapping[str, Any]
  examples: int
  parameters: str
  seed: int
  sampler: Mapping[str, Any]
  measures: Mapping[str, Mapping[str, Any]]
  versions: Mapping[str, str]
  version: int = VERSION

  def as_json(self) -> dict[str, Any]:
    """The card as plain JSON values.

    Raises:
      UserError: a field has a value that JSON cannot represent.
    """
    plain = {}
    for field in dataclasses.fields(self):
      try:
        plain[field.name] = json.loads(json.dumps(getattr(self, field.name), default=_plain, allow_nan=False))
      except (TypeError, ValueError) as error:
        raise UserError(f'metric card: {field.name} must hold numbers, text, lists and dicts, got '
                        f'{getattr(self, field.name)!r} ({error})') from error
    return plain


def _plain(value: Any) -> Any:
  """Converts mappings and numpy numbers to JSON types."""
  if isinstance(value, Mapping):
    return dict(value)
  if hasattr(value, 'tolist'):
    return value.tolist()
  raise TypeError(f'{type(value).__name__} is not JSON')
