"""Measures of samples: lazy to build, right on data whose answer is known, one classifier for all that ask."""

import tracemalloc

import ml_collections
import numpy as np
import pytest

from genjax.data import sources
from genjax.experiments import measures
from genjax.training import drawing
from genjax.types import UserError

CLASSES = 4


def config(name='digits', **evaluation):
  data = dict(name=name, train='train', heldout='test', shape=(8, 8, 1), num_classes=10, data_dir='', originals='')
  return ml_collections.ConfigDict(dict(data=data, evaluation=evaluation)).lock()


def images(count, seed):
  """Images whose class is the brightest quarter; class k is uint8 noise and 100 more in the rows of k."""
  generator = np.random.default_rng(seed)
  label_N = np.arange(count, dtype=np.int32) % CLASSES
  image_NHWC = generator.integers(0, 100, (count, CLASSES, 3, 1))
  image_NHWC[np.arange(count), label_N] += 100
  return {'image': image_NHWC.astype(np.uint8), 'label': label_N}


def predict(image_NHWC):
  bright_NK = image_NHWC.astype(float).mean(axis=(2, 3))
  return bright_NK.argmax(axis=-1), bright_NK


def values(samples, label_N, size=1000):
  columns = {'image': samples['image']} if label_N is None else {'image': samples['image'], 'label': label_N}
  parts = drawing.cut([columns], size)
  return measures.image_values(parts, images(400, 1), images(200, 2), predict, CLASSES, 100, 0)


def test_fresh_draws_of_the_data_are_as_good_as_the_data():
  samples = images(400, 3)
  got = values(samples, samples['label'])
  assert got['label_agreement'] == 1.0 and got['classes_covered'] == CLASSES
  assert all(got[f'class_share_{index}'] == 0.25 for index in range(CLASSES))
  assert 0.0 < got['frechet'] < 3 * got['frechet_train'] + 1.0
  assert got['distance_ratio_min'] == pytest.approx(1.0, abs=0.05)
  assert got['copies'] < 0.1
  assert got['nearest_distance'] == pytest.approx(got['nearest_distance_train'], rel=0.1)


def test_copies_collapse_and_wrong_labels_show():
  train_set, samples = images(400, 1), images(400, 3)
  assert values(train_set, train_set['label'])['copies'] == 1.0
  collapsed = dict(samples, image=samples['image'][samples['label']])
  got = values(collapsed, samples['label'])
  assert got['distance_ratio_mean'] == 0.0 and got['label_agreement'] == 1.0
  turned = np.roll(samples['label'], 1)
  got = values(samples, turned)
  assert got['label_agreement'] == 0.0
  assert 'label_agreement' not in values(samples, None)
  one = {'image': samples['image'][np.zeros(400, int)]}
  got = values(one, None)
  assert got['classes_covered'] == 1 and got['class_share_0'] == 1.0 and got['distance_ratio_min'] == 0.0
  assert got['frechet'] > 100 * got['frechet_train']


def test_the_size_of_parts_does_not_matter():
  samples = images(400, 3)
  whole, parts = (values(samples, np.roll(samples['label'], 1) // 2, size) for size in (1000, 37))
  assert parts.pop('frechet') == pytest.approx(whole.pop('frechet'), rel=1e-9)
  assert parts == whole


def test_memory_holds_one_part(monkeypatch):
  """Counts are exact, distances are exact on 8-bit images; ten times the samples need no more memory."""
  monkeypatch.setattr(measures.drawing, 'PART', 30)
  monkeypatch.setattr(measures.diversity, '_NUMBERS', 30 * 720)

  def drawn(num):
    for seed in range(num // 30):
      yield enlarged(30, seed)

  def enlarged(count, seed):
    columns = images(count, seed)
    return {**columns, 'image': np.tile(columns['image'], (1, 1, 30, 2))}

  def predict_large(image_NHWC):
    return predict(image_NHWC[:, :, :3, :1])

  real = [enlarged(100, 98), enlarged(60, 99)]
  peaks = []
  for num in (90, 900):
    tracemalloc.start()
    got = measures.image_values(drawn(num), *real, predict_large, CLASSES, 100, 0)
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert got['label_agreement'] == 1.0
  everything = 900 * real[0]['image'][0].nbytes
  assert peaks[1] < 1.2 * peaks[0] + everything / 20


def test_building_a_measure_opens_no_data(monkeypatch):
  def fail(*arguments, **keywords):
    raise AssertionError('data was opened')

  monkeypatch.setattr(sources, 'open_tfds', fail)
  (metric,) = measures.image_metrics(config(num_samples=7))
  assert metric.name == 'samples' and metric.card['num_samples'] == 7


def test_sets_without_a_classifier_have_no_measures():
  assert measures.image_metrics(config(name='cats_vs_dogs')) == ()


@pytest.mark.parametrize(('evaluation', 'message'), [
  (dict(num_sample=3), r'config.evaluation.num_sample is not an option.*num_samples'),
  (dict(classifier='no_such'), "must name a config in configs/classifiers/.*got 'no_such'"),
  (dict(classifier='mnist_classifier'), r'takes images of \(28, 28, 1\).*is \(8, 8, 1\)')])
def test_bad_options(evaluation, message):
  with pytest.raises(UserError, match=message):
    measures.image_metrics(config(**evaluation))


def test_modes():
  centre_K2 = np.array([[0.0, 0.0], [2.0, 0.0]])
  (metric,) = measures.mode_metrics(centre_K2, 0.05, num_samples=10)
  assert metric.compute(lambda num, conditions: {'point': np.zeros((num, 2))}, 0) == {
    'covered': 1, 'high_quality': 1.0, 'reverse_kl': pytest.approx(np.log(2))}
  assert metric.card['num_samples'] == 10 and metric.card['modes'] == 2


def test_the_classifier_is_trained_once_and_described_in_the_card(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path))
  (metric,) = measures.image_metrics(
    config(num_samples=40, classifier='digits_classifier:smoke', neighbours=20))
  drawn = []

  def sample(num, conditions):
    drawn.append(num)
    return {'image': np.random.default_rng(0).integers(0, 256, (num, 8, 8, 1), np.uint8), 'label': np.arange(num) % 10}

  first = metric.compute(sample, 0)
  lines = capsys.readouterr().err.splitlines()
  begin, end = (next(index for index, line in enumerate(lines) if words in line)
                for words in ('it is trained now, for 2 steps', 'the classifier is trained'))
  inside = [line for line in lines[begin + 1:end] if line]
  assert 'classifier: training 2 steps' in inside and all(line.startswith('classifier: ') for line in inside)
  # What is trained here lies in a folder that is moved: no command and no path of it.
  assert not any('genjax ' in line or str(tmp_path) in line for line in inside)
  assert metric.compute(sample, 0) == first
  assert 'is trained' not in capsys.readouterr().err
  assert drawn == [40, 40]  # one draw serves all values
  facts = metric.card['feature_extractor']
  assert 0.0 <= facts['heldout_accuracy'] <= 1.0 and facts['heldout_examples'] == 360
  assert facts['model']['features'] == 8
  assert metric.card['train_examples'] == 1437 and metric.card['heldout_examples'] == 360
  assert [path.name for path in (tmp_path / 'classifiers').iterdir()] == [facts['folder'].rpartition('/')[2]]


def test_modes_of_stacked_digits():
  """A channel shows the digit whose multiple of 25 it is filled with."""
  digit_N3 = np.array([[1, 2, 3], [1, 2, 3], [9, 0, 0], [0, 0, 7]])
  image_NHWC = np.broadcast_to((25 * digit_N3)[:, None, None], (4, 28, 28, 3)).astype(np.uint8)
  got = measures.stacked_values((image_NHWC[:3], image_NHWC[3:]), lambda image: image[:, 0, 0, 0] // 25)
  assert got['covered'] == 3
  assert got['reverse_kl'] == pytest.approx(0.5 * np.log(500) + 0.5 * np.log(250))
  assert got['digit_share_0'] == pytest.approx(4 / 12) and got['digit_share_4'] == 0
  data = dict(name='stacked_mnist', train='train', heldout='test', shape=(28, 28, 3), num_classes=0, data_dir='',
              originals='')
  evaluation = dict(num_samples=26_000, classifier='', neighbours=2000)
  [metric] = measures.image_metrics(ml_collections.ConfigDict(dict(data=data, evaluation=evaluation)).lock())
  assert metric.name == 'stacked' and metric.card['num_samples'] == 26_000
