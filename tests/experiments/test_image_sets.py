"""Sets with one label, and sets that are trained on alone: detectors, classifiers of real and generated pictures."""

import numpy as np
from PIL import Image
import pytest

from genjax.configs.classifiers import augmented, detector
from genjax.experiments import classifier, images
from genjax.types import UserError


@pytest.fixture
def generated(tmp_path):
  """Twenty pictures of 8 pixels, of two classes."""
  for number in range(20):
    folder = tmp_path / 'made' / str(number % 2)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 200 + number, np.uint8)).save(folder / f'{number}.png')
  return tmp_path / 'made'


def test_a_detector_learns_which_set_a_picture_is_of(generated):
  experiment = classifier.build(detector.get_config(f'generated={generated}'))
  batch = experiment.train.batch(0)
  assert batch['image'].shape == (128, 8, 8, 1) and 40 < batch['label'].sum() < 88
  flat = (batch['image'] == batch['image'][:, :1, :1]).all(axis=(1, 2, 3))
  assert (batch['label'] == flat).all()  # generated pictures are of one grey, real digits are not
  heldout = experiment.heldout.source
  label_N = heldout.get(np.arange(len(heldout)))['label']
  assert (label_N == 0).sum() == 360 and (label_N == 1).sum() == 4
  assert images.assets(detector.get_config(f'generated={generated}')) == {}  # class folders name nothing here


def test_generated_pictures_are_trained_on_and_not_held_out(generated):
  config = augmented.get_config(f'generated={generated},real=train[:30]')
  experiment = classifier.build(config)
  train, heldout = experiment.train.source, experiment.heldout.source
  assert len(train) == 30 + 20 and len(heldout) == 360
  assert set(train.get(np.arange(30, 50))['label'].tolist()) == {0, 1}  # their own labels
  alone = augmented.get_config('real=train[:30]')
  assert len(classifier.build(alone).train.source) == 30
  config.data.mixture = [dict(config_of, heldout='') for config_of in config.data.to_dict()['mixture']]
  with pytest.raises(UserError, match="heldout='' for all sets"):
    len(classifier.build(config).heldout.source)


def test_bad_labels_and_arguments(generated):
  config = detector.get_config(f'generated={generated}')
  config.data.num_classes = 1
  with pytest.raises(UserError, match='config.data.label is 1, and config.data.num_classes is 1'):
    images.open_data(config, 'train')
  with pytest.raises(ValueError, match='generated is needed'):
    detector.get_config()
  with pytest.raises(ValueError, match='share must be between 0 and 1'):
    augmented.get_config('share=1.0')
