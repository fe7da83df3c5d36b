"""genjax: one training loop for every family of generative models, in JAX.

    run = genjax.train('configs/quickstart.py', 'runs/quickstart')
    run = genjax.open('runs/quickstart')
    images = run.sample(16, label=3)['image']

docs/python.md tells more. Nothing but the version is loaded before it is used: `import genjax` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from genjax.runs.api import LoadedRun, load_config, open, train
  from genjax.types import NonFiniteError, StorageError, UserError

__version__ = '0.1.0'
__all__ = ['LoadedRun', 'NonFiniteError', 'StorageError', 'UserError', 'load_config', 'open', 'train']

_HOMES = {'LoadedRun': 'genjax.runs.api', 'load_config': 'genjax.runs.api', 'open': 'genjax.runs.api',
          'train': 'genjax.runs.api', 'NonFiniteError': 'genjax.types', 'StorageError': 'genjax.types',
          'UserError': 'genjax.types'}


def __getattr__(name: str) -> Any:
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_HOMES])
