"""Metrics of samples that need data or a trained network, for `Experiment.metrics`.

Data is opened and classifiers are trained only when a metric is computed.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from genjax import checks, distributed, sharding
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.images import stacked
from genjax.data.pipeline import Source
from genjax.experiments import classifier, images
from genjax.experiments.measuring import chosen
from genjax.experiments.measuring import options as measuring
from genjax.metrics import diversity, frechet, kept, modes
from genjax.objectives.classification import Classification
from genjax.options import Section
from genjax.runs import assets, training, workdir
from genjax.training import drawing
from genjax.training.experiment import Columns, Metric
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError

CLASSIFIERS = {  # data set -> config file and its arguments
  'digits': 'digits_classifier',
  'mnist': 'mnist_classifier',
  'fashion_mnist': 'mnist_classifier',
  'cifar10': 'cifar10_classifier',
}
DIGITS = 'mnist_classifier'  # judges the channels of stacked MNIST one by one


@dataclasses.dataclass(frozen=True)
class Options(measuring.Options):
  """What config.evaluation may hold for images.

  Attributes:
    classifier: 'name' or 'name:arguments' of a config in configs/, whose features and labels judge samples; '' is the
      entry of `CLASSIFIERS` for the data.
    neighbours: how many samples, and how many training images, are compared with all training images.
  """

  classifier: str = ''
  neighbours: int = 2000

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'neighbours')


EVALUATION = Section((Options,))  # of models that generate pictures
CHOSEN = Section((measuring.Options,))  # of others


def image_metrics(config: Config) -> tuple[Metric, ...]:
  """Measures of image samples: those that config.evaluation.measures names, by default 'samples' alone.

  'samples' is one `Metric` against a labelled set, computed from one draw:
  label_agreement: share of samples that the classifier gives the label that was asked for (conditional models only).
  classes_covered; class_share_<k>: shares of predicted classes. frechet: distance to the held-out split in the
  classifier's features, and frechet_train: that of as many training images, the floor. distance_ratio_mean,
  distance_ratio_min: mean pairwise distance within a class over the real one, by asked or else by predicted label.
  copies: share of samples nearer to a training image than 99 % of training images are to another one;
  nearest_distance: median distance to the nearest training image, and nearest_distance_train: that of training images.

  Args:
    config: of an experiment whose config.data names a set with the columns image and label; config.evaluation holds
      `Options`.

  Of stacked MNIST the measure is 'stacked': covered, of 1000 modes, and reverse_kl in nats, where a classifier of
  digits tells the mode of a sample (Lin et al. 2018, section 4.2); digit_share_<k>, shares of digits in all channels.

  Returns:
    The metric, or nothing for a set without a classifier in `CLASSIFIERS` or config.evaluation.classifier.

  Raises:
    UserError: an unknown option or classifier.
  """
  options = config_lib.build(Options, config.get('evaluation') or {}, 'config.evaluation')
  if config.data.name == stacked.NAME:
    others = chosen.of_images(config, options, None, lambda: 0.0)
    return others if options.measures else (_stacked(config, options),)
  name = options.classifier or CLASSIFIERS.get(config.data.name.partition(':')[0], '')
  judge = _classifier_config(name, config.data) if name else None
  others = chosen.of_images(config, options, judge, lambda: trained_classifier(judge)[1]['heldout_accuracy'])
  if judge is None or options.measures and 'samples' not in options.measures:
    return others
  return (_samples(config, options, judge), *others)


def _samples(config: Config, options: Options, judge: Config) -> Metric:
  """The metric 'samples' of `image_metrics`."""
  card: dict[str, Any] = {'num_samples': options.num_samples, 'neighbours': options.neighbours,
                          'labels': 'each class in turn, where the model takes labels',
                          'pictures': {'shape': list(config.data.shape), 'resize': config.data.get('resize', ''),
                                       'crop': config.data.get('crop', False)}}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    run, facts = trained_classifier(judge)
    card['feature_extractor'] = facts
    train_set, heldout_set = (_columns(judge.data, split) for split in (judge.data.train, judge.data.heldout))
    card['train_examples'], card['heldout_examples'] = len(train_set['label']), len(heldout_set['label'])
    parts = drawing.parts_of(sample, options.num_samples, {})
    return image_values(parts, train_set, heldout_set, _predictor(run), judge.data.num_classes, options.neighbours,
                        seed)

  def check() -> None:
    classifier.build(judge)
    workdir.prepare(str(_cache()), 'GENJAX_CACHE')
    for split in (judge.data.train, judge.data.heldout):
      images.open_source(judge.data, split, seed=0)

  return Metric('samples', compute, card, check)


def image_values(parts: Iterable[Columns], train_set: Mapping[str, Any], heldout_set: Mapping[str, Any],
                 predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], num_classes: int, neighbours: int,
                 seed: int) -> dict[str, float]:
  """The values of `image_metrics`. One part of the samples, and of the data, is held at a time.

  Args:
    parts: samples: columns image, uint8, and, if labels were asked for, label.
    train_set, heldout_set: real columns image and label; images may be read when they are indexed.
    predict: images -> (predicted classes N, features N D).
    num_classes: K.
    neighbours: see `Options`.
    seed: of the choice of training images.
  """
  with contextlib.closing(kept.FirstOfClasses(num_classes)) as firsts:
    predicted, asked, near = [], [], [np.zeros(0)]
    features, count = frechet.Features(), 0
    for part in parts:
      predicted_N, feature_ND = predict(part['image'])
      features.add(feature_ND)
      predicted.append(predicted_N)
      asked += [part['label']] if 'label' in part else []
      firsts.add(part['image'], part.get('label', predicted_N))
      if count < neighbours:
        near.append(diversity.nearest_distances(part['image'][:neighbours - count], train_set['image']))
      count += len(predicted_N)
    predicted_N, near_N = np.concatenate(predicted), np.concatenate(near)
    share_K = diversity.class_shares(predicted_N, num_classes)
    values = {'label_agreement': float(np.mean(predicted_N == np.concatenate(asked)))} if asked else {}
    values['classes_covered'] = diversity.coverage(share_K)
    values.update({f'class_share_{index}': float(share) for index, share in enumerate(share_K)})

    real = _moments(heldout_set['image'], np.arange(len(heldout_set['image'])), predict)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train_set['image']))[:count])
    values['frechet'] = frechet.distance(features.moments(), real)
    values['frechet_train'] = frechet.distance(_moments(train_set['image'], chosen, predict), real)

    ratio_K = diversity.class_distance_ratio(*firsts.rows(), train_set['image'], train_set['label'], num_classes)
  values['distance_ratio_mean'], values['distance_ratio_min'] = float(np.nanmean(ratio_K)), float(np.nanmin(ratio_K))

  near_train_N = diversity.neighbour_distances(train_set['image'], neighbours, seed)
  values['copies'] = diversity.copy_share(near_N, near_train_N)
  values['nearest_distance'] = float(np.median(near_N))
  values['nearest_distance_train'] = float(np.median(near_train_N))
  return values


def _stacked(config: Config, options: Options) -> Metric:
  """The metric 'stacked' of `image_metrics`."""
  data = config_lib.from_plain({**config_lib.plain(config.data), 'name': 'mnist', 'shape': (28, 28, 1)})
  judge = _classifier_config(options.classifier or DIGITS, data)
  card: dict[str, Any] = {'num_samples': options.num_samples, 'modes': stacked.MODES}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    run, card['classifier'] = trained_classifier(judge)
    predict = _predictor(run)
    parts = drawing.parts_of(sample, options.num_samples, {})
    return stacked_values((part['image'] for part in parts), lambda image_NHWC: predict(image_NHWC)[0])

  def check() -> None:
    classifier.build(judge)
    workdir.prepare(str(_cache()), 'GENJAX_CACHE')

  return Metric('stacked', compute, card, check)


def stacked_values(parts: Iterable[np.ndarray], digit_of: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
  """The values of the metric 'stacked' of `image_metrics`.

  Args:
    parts: samples, uint8 N H W 3.
    digit_of: uint8 N H W 1 -> digits N.
  """
  counted, digit_K = modes.Labels(stacked.MODES), np.zeros(10)
  for image_NHWC in parts:
    digit_N3 = np.stack([digit_of(image_NHWC[..., channel:channel + 1]) for channel in range(3)], axis=-1)
    counted.add(stacked.mode(digit_N3))
    digit_K += np.bincount(digit_N3.reshape(-1), minlength=10)
  shares = {f'digit_share_{digit}': float(share) for digit, share in enumerate(digit_K / digit_K.sum())}
  return {'covered': counted.covered(), 'reverse_kl': counted.reverse_kl(), **shares}


def _moments(image_NHWC: Any, chosen_N: np.ndarray,
             predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> frechet.Moments:
  """The moments of the features of chosen images, which are read in parts."""
  features = frechet.Features()
  for start in range(0, len(chosen_N), drawing.PART):
    features.add(predict(image_NHWC[chosen_N[start:start + drawing.PART]])[1])
  return features.moments()


def mode_metrics(centre_KD: np.ndarray, deviation: float, num_samples: int = 10_000,
                 column: str = 'point') -> tuple[Metric, ...]:
  """Modes covered, share of high-quality samples and reverse KL divergence; see `genjax.metrics.modes`.

  Args:
    centre_KD, deviation: of the mixture.
    num_samples: how many are drawn.
    column: name of the samples.
  """

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    points = modes.Points(centre_KD, deviation)
    for part in drawing.parts_of(sample, num_samples, {}):
      points.add(part[column])
    return points.modes()._asdict()

  return (Metric('modes', compute, {'num_samples': num_samples, 'modes': len(centre_KD), 'deviation': float(deviation),
                                    'high_quality': 'within 3 deviations of a centre'}),)


def trained_classifier(config: Config) -> tuple[Run, dict[str, Any]]:
  """The classifier of a config. It is trained by the training loop on first use and kept in the cache folder.

  The cache is $GENJAX_CACHE, by default ~/.cache/genjax; in it, classifiers/<data checksum>-<config hash>.

  Returns:
    The run at its last step, and the facts for a metric card: data, model, held-out accuracy.
  """
  root = _cache()
  checksum = classifier.build(config).train.fingerprint()['checksum']
  text = json.dumps([config_lib.plain(config), workdir.versions()['genjax']], sort_keys=True)
  folder = root / f'{checksum}-{hashlib.sha256(text.encode()).hexdigest()[:12]}'
  if not distributed.broadcast((folder / 'summary.json').exists(), 'whether there is a classifier'):
    logs.say(f'measures of samples need a classifier of {config.data.name}; it is trained now, for {config.steps} '
             f'steps, and kept in {folder} for the next time')
    workdir.prepare(str(root), 'GENJAX_CACHE')
    # Trained in a temporary folder and then moved, so that other processes only see finished classifiers.
    with tempfile.TemporaryDirectory(dir=root, prefix='training-') as aside:
      # Several processes train it together, in the folder of process 0.
      run_folder = f"{distributed.broadcast(aside, 'folder of the classifier')}/run"
      with logs.inside('classifier'):
        training.train(config, run_folder)
      if distributed.is_first():
        try:
          os.rename(run_folder, folder)
        except OSError:
          if not (folder / 'summary.json').exists():
            raise
      workdir.wait_for(folder / 'summary.json')
    logs.say('the classifier is trained; samples are measured now')
  heldout = assets.read_json(folder / 'summary.json')['heldout']
  _, run = workdir.open_run(str(folder))
  return run, {'data': config.data.name, 'trained_on': config.data.train, 'steps': config.steps,
               'model': config_lib.plain(config.model), 'heldout_accuracy': heldout['accuracy'],
               'heldout_examples': int(heldout['examples']), 'folder': str(folder)}


def _cache() -> pathlib.Path:
  return pathlib.Path(os.environ.get('GENJAX_CACHE') or '~/.cache/genjax').expanduser() / 'classifiers'


def _classifier_config(name: str, data: Config) -> Config:
  """The config of a classifier for a data set, with its splits and folders."""
  module, _, argument = name.partition(':')
  try:
    config = importlib.import_module(f'genjax.configs.classifiers.{module}').get_config(argument or None)
  except ModuleNotFoundError as error:
    raise UserError(f'config.evaluation.classifier must name a config in configs/classifiers/, such as '
                    f'{sorted(set(CLASSIFIERS.values()))}, got {module!r} ({error})') from error
  for key in ('name', 'train', 'heldout', 'data_dir', 'originals'):
    config.data[key] = data.get(key, config.data[key])
  if tuple(data.shape) != tuple(config.data.shape):
    raise UserError(f'classifier {module!r} takes images of {tuple(config.data.shape)}, and config.data.shape is '
                    f'{tuple(data.shape)}; name another one in config.evaluation.classifier')
  return config.lock()


def _columns(data: Config, split: str) -> dict[str, Any]:
  """The labels of a split, and its images, which are read when they are indexed."""
  source = images.open_source(data, split, seed=0)
  labels = [source.get(np.arange(start, min(start + drawing.PART, len(source))))['label']
            for start in range(0, len(source), drawing.PART)]
  return {'image': _Images(source), 'label': np.concatenate(labels)}


class _Images:
  """The images of a source as an array whose rows are read when they are asked for."""

  def __init__(self, source: Source):
    self._source = source
    self.shape = (len(source), *source.get(np.zeros(1, int))['image'].shape[1:])

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
    indices = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
    return self._source.get(indices)['image']


def _predictor(run: Run, chunk: int = 500) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Images -> (predicted classes N, features N D), `chunk` images at a time."""
  objective: Any = run.experiment.objective
  assert isinstance(objective, Classification)
  params, context = run.params(averaged=True), run.state.context(run.frozen)
  apply = jax.jit(objective.predict, out_shardings=sharding.replicated(run.mesh))

  def predict(image_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(image_NHWC), chunk):
      take = np.minimum(np.arange(start, start + chunk), len(image_NHWC) - 1)  # one shape compiles only once
      logits_BK, features_BD = jax.device_get(apply(params, context, image_NHWC[take]))
      parts.append((logits_BK.argmax(axis=-1), features_BD))
    labels, features = (np.concatenate(column)[:len(image_NHWC)] for column in zip(*parts))
    return labels, features

  return predict
