"""The condition `guidance`: the scale of guidance as an input, of a network that was distilled from a guided one."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax.data.pipeline import Columns
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.types import Array, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance(Common):
  """The scale of guidance, which the network is told: Flux dev, and latent consistency models (Meng et al. 2023).

  The network needs an input for it: config.model.guidance=True of an `mmdit`, config.model.guidance_features of a
  `latent_unet`. It is another scale than config.sampler.guidance, which computes the network with and without a text.

  Attributes:
    scale: in training, and of samples that ask for no other.
    dropout: 0; the scale is always told.
  """

  scale: float = 3.5
  dropout: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    checks.between(self, ('scale',), at_least=0)
    if self.dropout:
      raise checks.OutOfRange(f'dropout must be 0: the network is always told the scale, got {self.dropout}')
    if not self.default:
      object.__setattr__(self, 'default', (repr(float(self.scale)),))


def guidance(scope: Scope, options: Guidance) -> Made:
  """See `Guidance`."""
  column = scope.column('scale')
  network = scope.config.model.get('name')
  entry = {'mmdit': 'guidance', 'latent_unet': 'guidance_features'}.get(network)
  if entry is None or not scope.config.model.get(entry):
    wanted = f'set config.model.{entry}' if entry else "choose config.model.name='mmdit' or 'latent_unet'"
    raise UserError(f'{scope.where} is the scale of guidance, and the network {network!r} has no input for it; '
                    f'{wanted}, or leave the condition out')

  def checked(value: Any) -> np.ndarray:
    try:
      scale = float(np.asarray(value))
    except (TypeError, ValueError):
      scale = -1.0
    if not 0 <= scale < np.inf:
      raise UserError(f'condition {scope.name!r} takes the scale of guidance, a number of at least 0, got {value!r}')
    return np.asarray(scale, np.float32)

  def take(columns: Columns) -> np.ndarray:
    return np.full(len(next(iter(columns.values()))), options.scale, np.float32)

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    return {'guidance': columns[column]}

  return Made(
    reads=(), take=take, encode=lambda rows: {column: np.asarray(rows, np.float32)},
    columns={column: jax.ShapeDtypeStruct((), np.float32)}, null={}, give=give, parse=checked, convert=checked,
    describe='the scale of guidance that the network is told, a number', row=jax.ShapeDtypeStruct((), np.float32),
    network={}, facts={'scale': options.scale})
