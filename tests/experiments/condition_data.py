"""Data and configs of the tests of conditions."""

import importlib

import numpy as np

from genjax.data import sources
from genjax.diffusion import conditioning
from genjax.experiments import conditions, latents

TEXT = dict(kind='text', length=60)  # bytes
SIZE = 12


def everything(data, split):
  """A source with columns of all kinds."""
  del data
  random = np.random.default_rng(len(split))
  text = [f'picture {row}' for row in range(SIZE)]
  text[3] = 'a picture with a caption that is longer than all of the others'
  return sources.Arrays({
    'image': random.integers(0, 256, (SIZE, 8, 8, 3)).astype(np.uint8), 'text': np.asarray(text, object),
    'label': (np.arange(SIZE) % 4).astype(np.int32),
    'sketch': random.integers(0, 256, (SIZE, 16, 16, 3)).astype(np.uint8),
    'mask': (random.random((SIZE, 8, 8, 1)) < 0.5).astype(np.uint8) * np.uint8(255),
    'height': np.linspace(50, 100, SIZE), 'width': np.arange(SIZE), 'embedding': random.normal(size=(SIZE, 5)),
    'clip': random.integers(0, 256, (SIZE, 3, 8, 8, 1)).astype(np.uint8),
    'sound': random.uniform(-1, 1, (SIZE, 800)).astype(np.float32)}, {'name': 'everything'})


def config_of(given, num_classes=0, **changes):
  config = importlib.import_module('genjax.configs.diffusion.captioned_flow').get_config('smoke')
  config.data.name, config.data.num_classes, config.conditions = 'everything', num_classes, given
  config.sampler.guidance = 1.0
  for path, value in changes.items():
    node, leaf = config, path.split('__')
    for part in leaf[:-1]:
      node = node[part]
    node[leaf[-1]] = value
  return config.lock()


def made_of(given, **changes):
  config = config_of(given, **changes)
  space = latents.space(config)
  return conditions.of(config, space.shape, space.open)


def columns_of(made, indices, split='train', **keeps):
  return made.source(everything(None, split), ('image',)).get(np.asarray(indices))


def told(made, columns, frozen=None):
  """What the network reads."""
  return conditioning.given(made.conditioners, frozen or {},
                            {name: np.asarray(value) for name, value in columns.items()})
