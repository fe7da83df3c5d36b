"""One label for all examples of a set."""

import numpy as np

from genjax.data import mixture, pipeline, sources
from genjax.data.relabelled import Relabelled


def test_labels_say_which_set_an_example_is_of():
  real = sources.Arrays({'image': np.zeros((30, 2), np.uint8)})
  made = sources.Arrays({'image': np.ones((10, 2), np.uint8)})
  joined = mixture.Joined({'real': Relabelled(real, 0), 'made': Relabelled(made, 1)})
  rows = joined.get(np.arange(40))
  assert (rows['label'] == rows['image'][:, 0]).all() and rows['label'].dtype == np.int32
  assert (joined.read_columns(np.arange(40), ('label',))['label'] == rows['label']).all()
  batches = mixture.Mixture(lambda: joined, 20, 0, weights=(1, 1), names=('real', 'made'))
  batch = batches.batch(0)
  assert 4 <= batch['label'].sum() <= 16 and (batch['label'] == batch['image'][:, 0]).all()


def test_own_labels_are_replaced_and_what_is_drawn_is_drawn():
  class Drawn(sources.Arrays):
    def draw(self, indices, random):
      return {**self.get(indices), 'drawn': random.uniform()}

  source = Relabelled(Drawn({'image': np.zeros((4, 2)), 'label': np.arange(4)}), 7)
  assert source.get(np.arange(4))['label'].tolist() == [7] * 4
  rows = pipeline.read(source, np.arange(4), pipeline.RowRandom(0, np.arange(4)))
  assert rows['label'].tolist() == [7] * 4 and len(set(rows['drawn'].tolist())) == 4
  assert source.fingerprint()['label'] == 7 and len(source) == 4
