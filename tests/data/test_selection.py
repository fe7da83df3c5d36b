"""Some classes of a data set alone."""

import ml_collections
import numpy as np
from PIL import Image
import pytest

from genjax.data import selection, sources
from genjax.data.pipeline import Pipeline
from genjax.experiments import images
from genjax.types import UserError


def arrays():
  return sources.Arrays({'image': np.arange(10, dtype=np.uint8), 'label': np.arange(10) % 4})


def test_examples_of_some_classes_in_their_order():
  source = selection.Selected(arrays(), (3, 1))
  assert len(source) == 5
  np.testing.assert_array_equal(source.get(np.arange(5))['image'], [1, 3, 5, 7, 9])
  np.testing.assert_array_equal(source.get(np.arange(5))['label'], [1, 3, 1, 3, 1])
  assert source.fingerprint()['classes'] == [1, 3]
  batch = Pipeline(lambda: source, 5, shuffle=True).batch(0)
  assert sorted(batch['image'].tolist()) == [1, 3, 5, 7, 9]
  assert 'label' not in selection.Selected(arrays(), (3,), labelled=False).get(np.arange(1))


def test_unknown_classes_are_refused():
  with pytest.raises(UserError, match='no example; its labels are 0, 1, 2, 3'):
    selection.Selected(arrays(), (7,))
  with pytest.raises(UserError, match="names 'good'.*give numbers"):
    selection.Selected(arrays(), ('good',))


@pytest.mark.parametrize('num_classes', [0, 2])
def test_a_folder_with_classes_by_name(tmp_path, num_classes):
  for split in ('train', 'test'):
    for name, level in (('bad', 10), ('good', 200)):
      folder = tmp_path / split / name
      folder.mkdir(parents=True)
      for number in range(3):
        Image.fromarray(np.full((4, 4, 3), level + number, np.uint8)).save(folder / f'{number}.png')
  data = dict(name=str(tmp_path), train='train', heldout='test', shape=(4, 4, 3), num_classes=num_classes,
              classes=('good',))
  config = ml_collections.ConfigDict(dict(data=data, batch_size=3, seed=0))
  batch = images.batches(config, 'train').batch(0)
  assert (batch['image'] >= 200).all() and set(batch) == ({'image', 'label'} if num_classes else {'image'})
  with pytest.raises(UserError, match='list of labels or of names'):
    images.batches(ml_collections.ConfigDict(dict(data={**data, 'classes': 'good'}, batch_size=3, seed=0)),
                   'train').batch(0)
