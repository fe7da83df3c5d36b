"""What a family of pipelines is: how the components of one class of `diffusers` become the config of a run.

`genjax.experiments.pipelines` has the table of families. One is a function of what was found in a folder:

    def family(found: Found) -> Sections: ...
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from genjax.interop.pipelines import Pipeline

AUTOENCODER = 'autoencoder'  # the part of the component 'vae'


@dataclasses.dataclass(frozen=True)
class Found:
  """What is known of a pipeline before any tensor is read.

  Attributes:
    pipeline: its index.
    options: of the denoiser, of the class that its model file has.
    shape: (H, W, C) of the pictures.
  """

  pipeline: Pipeline
  options: Any
  shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Sections:
  """What a family sets in the config of a run.

  Attributes:
    conditions: config.conditions, in the order in which the network joins them.
    sampler: steps, guidance and further entries of config.sampler, beside those of the scheduler.
    objective: further entries of config.objective.
  """

  conditions: Mapping[str, Any]
  sampler: Mapping[str, Any]
  objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Family:
  """Pipelines of one class.

  Attributes:
    denoiser: the component that denoises, 'unet' or 'transformer'.
    architecture: its class in `diffusers`.
    model: its name in `genjax.experiments.diffusion.MODELS`.
    sections: what the config of a run has of such a pipeline.
    fits: config of a run -> whether it can be written as such a pipeline, where it was not imported.
    settings: further entries of model_index.json, of a run that was not imported.
  """

  denoiser: str
  architecture: str
  model: str
  sections: Callable[[Found], Sections]
  fits: Callable[[Any], bool] = lambda config: False
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
