"""What tests of extractors and of conditions share."""

import numpy as np
import pytest

from genjax.configs.classifiers import digits_classifier
from genjax.data import sources
from genjax.experiments import classifier, parts
from genjax.runs import bases
from genjax.tables import recorded, remove
from tests.experiments.condition_data import everything


@pytest.fixture
def opened():
  """(folder, kind) -> the functions of a folder as a part, and its frozen group."""

  def open_part(folder, kind):
    config = digits_classifier.get_config('smoke')
    config.parts.part = str(folder)
    part = parts.open(config.lock(), 'part', kind)
    return part.functions, bases.attach(config, parts.attach(classifier.build(config), part)).frozen['part']

  return open_part


@pytest.fixture
def images():
  """Shape -> random uint8."""
  return lambda *shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope='module')
def source():
  """The data set 'everything' of `condition_data`."""
  with recorded() as added:
    sources.SOURCES.add('everything', everything)
    yield
  remove(added)
