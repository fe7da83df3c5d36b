"""Measures that config.evaluation.measures names: values, cards, refusals; with small networks as extractors."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from genjax.data import sources
from genjax.experiments import clips, images, measures
from genjax.experiments.measuring import accuracy, chosen, extracting, options, samples
from genjax.metrics import frechet, inception_score, kernel, manifold
from genjax.objectives import kinds
from genjax.training import drawing
from genjax.types import UserError

ALL = options.FEATURES


def config(shape=(8, 8, 1), name='random_images', conditions=None, num_classes=0, **evaluation):
  data = dict(name=name, train='train', heldout='heldout', shape=shape, num_classes=num_classes, data_dir='',
              originals='')
  given = dict(experiment='my_builder', seed=0, data=data, conditions=conditions or {},
               evaluation={'num_samples': 100, 'extractor': 'net', 'parts': {'net': 'runs/net'}, **evaluation})
  return ml_collections.ConfigDict(given).lock()


def features(shape=(8, 8, 1), name='small', resize='none', classes=4):
  """Means of the four quarters of rows, in units of one; logits are 10 times these."""

  def extract(group, rows):
    flat_NP = rows.reshape(len(rows), 4, -1).astype(jnp.float32) / 255
    return flat_NP.mean(axis=-1) * group['scale']

  return kinds.Features(shape, 4, classes, extract, lambda group, rows: 10 * extract(group, rows), name, resize)


@pytest.fixture
def opened(monkeypatch):
  """opened(kind=functions, ...): these are what extractors are; returns the calls."""

  def give(**by_kind):
    calls = []

    def fake(config, name, kind, key):
      calls.append((name, kind, key))
      functions = by_kind[kind]
      card = {'part': name, 'kind': kind, 'name': functions.name, 'sha256': 'abc', 'step': None,
              'resize': functions.resize, 'folder': '/x'}
      return extracting.Extractor(functions, {'scale': jnp.ones(())}, card)

    monkeypatch.setattr(extracting, 'open', fake)
    return calls

  return give


class Draw:
  """Rows as a run draws them, counted."""

  def __init__(self, **columns):
    self.columns, self.drawn = columns, 0

  def parts(self, num, conditions, size=1000):
    self.drawn += 1
    yield from drawing.cut([{name: column[:num] for name, column in self.columns.items()}], 37)


def rows(count, seed, shape=(8, 8, 1), most=256):
  return np.random.default_rng(seed).integers(0, most, (count, *shape), np.uint8)


def compute(metrics, draw, seed=0):
  for metric in metrics:
    metric.check()
  return {metric.name: metric.compute(draw, seed) for metric in metrics}


def test_values_are_those_of_the_features_and_one_draw_serves_all(opened):
  calls = opened(features=features())
  given = config(measures=ALL, splits=5)
  metrics = chosen.of_images(given, measures.config_lib.build(measures.Options, given.evaluation, 'x'), None, float)
  assert [metric.name for metric in metrics] == list(ALL) and not calls  # nothing is opened yet
  image_NHWC, draw = rows(100, 0, most=200), Draw(image=rows(100, 0, most=200))
  found = compute(metrics, draw)
  assert draw.drawn == 1 and calls == [('net', 'features', 'extractor')]
  real = images.open_data(given, 'heldout').get(np.arange(64))['image']
  apply = jax.jit(lambda x: features().extract({'scale': 1.0}, x))
  x_ND, y_ND = (np.asarray(apply(side)) for side in (image_NHWC, real))
  expected = frechet.distance(frechet.moments(x_ND), frechet.moments(y_ND))
  assert found['frechet'] == {'distance': pytest.approx(expected, rel=1e-5)}
  distance = kernel.distance(x_ND, y_ND)
  assert found['kernel'] == pytest.approx({'distance': distance.mean, 'error': distance.error}, rel=1e-5)
  assert found['inception_score'] == pytest.approx(inception_score.score(10 * x_ND, 5)._asdict(), rel=1e-5)
  assert found['precision_recall'] == manifold.precision_recall(x_ND, y_ND)._asdict()
  assert found['density_coverage'] == manifold.density_coverage(x_ND, y_ND)._asdict()
  metrics[0].compute(draw, 1)
  assert draw.drawn == 2  # another seed draws anew


def test_neighbours_in_pixels_and_features_and_shares_of_classes(opened, monkeypatch):
  """Half of the samples are training pictures; three of four classes come, by the brightest quarter."""
  calls = opened(features=features())
  monkeypatch.setattr(images, 'NOISE_SPLIT_SIZES', {'train': 90, 'heldout': 64})
  given = config(measures=('neighbours', 'class_shares'), compared=80)
  train = images.open_data(given, 'train').get(np.arange(80))['image']
  fresh = rows(40, 5)
  fresh[:, 6:] = 0  # far from all training pictures, and never brightest in the last quarter
  draw = Draw(image=np.concatenate([train[:40], fresh]))
  options_of = lambda given: measures.config_lib.build(measures.Options, given.evaluation, 'x')
  found = compute(chosen.of_images(given, options_of(given), None, float), draw)
  assert calls == [('net', 'features', 'extractor')] and draw.drawn == 1
  near = found['neighbours']
  assert near['copies'] == near['feature_copies'] == 0.5
  assert 0 < near['feature_distance_train'] < 1 < near['distance_train']
  shares = found['class_shares']
  label_N = features().predict({'scale': 1.0}, draw.columns['image']).argmax(-1)
  assert [shares[f'share_{number}'] for number in range(4)] == pytest.approx(np.bincount(label_N, minlength=4) / 80)
  assert shares['covered'] == len(np.unique(label_N)) and 0 < shares['away'] < 1
  alone = config(measures=('neighbours',), compared=80, extractor='')
  assert set(compute(chosen.of_images(alone, options_of(alone), None, float), draw)['neighbours']) == {
    'copies', 'distance', 'distance_train'}
  nothing = config(measures=('class_shares',))
  opened(features=features(classes=0))
  with pytest.raises(UserError, match='class_shares needs classes'):
    compute(chosen.of_images(nothing, options_of(nothing), None, float), draw)


def test_cards_say_how(opened):
  opened(features=features(resize='tf bilinear 299', shape=(299, 299, 3)))
  given = config(measures=('frechet', 'kernel', 'inception_score'), reference='train')
  metrics = chosen.of_images(given, measures.config_lib.build(measures.Options, given.evaluation, 'x'), None, float)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(images, 'NOISE_SPLIT_SIZES', {'train': 90, 'heldout': 64})
    for metric in metrics:
      metric.check()
  card = {metric.name: metric.card for metric in metrics}
  assert card['frechet']['extractor'] == {
    'part': 'net', 'kind': 'features', 'name': 'small', 'sha256': 'abc', 'step': None, 'resize': 'tf bilinear 299',
    'folder': '/x', 'grey': 'repeated'}
  assert card['frechet']['num_samples'] == 100 and card['frechet']['of'] == 'samples'
  assert card['frechet']['pictures'] == {'shape': [8, 8, 1], 'resize': '', 'crop': False}
  assert card['frechet']['reference']['split'] == 'train' and card['frechet']['reference']['examples'] == 90
  assert card['kernel']['subsets'] == 100 and card['inception_score']['splits'] == 10
  assert 'reference' not in card['inception_score']  # it has none


def test_only_published_inception_gives_fid(opened):
  draw = Draw(image=rows(100, 0))
  for name, keys in (('fid', ('fid', 'kid')), ('inception', ('distance', 'distance'))):
    opened(features=features(name=name))
    given = config(measures=('frechet', 'kernel'))
    metrics = chosen.of_images(given, measures.config_lib.build(measures.Options, given.evaluation, 'x'), None, float)
    found = compute(metrics, draw)
    assert (next(iter(found['frechet'])), next(iter(found['kernel']))) == keys


def test_clips_have_a_frechet_distance_on_any_extractor_of_clips(opened):
  data = dict(name='random_clips', train='train', heldout='heldout', frames=4, shape=(6, 6, 3), rate=8.0)
  given = ml_collections.ConfigDict(dict(experiment='video', data=data, evaluation=dict(
    num_samples=20, measures=('frechet', 'precision_recall'), extractor='net', parts=dict(net='x')))).lock()
  opened(features=features((4, 6, 6, 3)))
  metrics = chosen.of_clips(given)
  found = compute(metrics, Draw(clip=rows(20, 0, (4, 6, 6, 3))))
  assert metrics[0].card['pictures']['rate'] == 8.0 and metrics[0].card['reference']['examples'] == 16
  real = clips.open_source(given, 'heldout').get(np.arange(16))['clip']
  x_ND, y_ND = (np.asarray(features().extract({'scale': 1.0}, jnp.asarray(side))) for side in
                (rows(20, 0, (4, 6, 6, 3)), real))
  expected = frechet.distance(frechet.moments(x_ND), frechet.moments(y_ND))
  assert found['frechet']['distance'] == pytest.approx(expected, rel=1e-4)
  opened(features=features((8, 6, 6, 3)))
  with pytest.raises(UserError, match=r'samples of this run are of shape \(4, 6, 6, 3\), and .*net reads \(8, 6, 6, 3'):
    chosen.of_clips(given)[0].check()
  with given.unlocked():
    given.evaluation.measures = ('clip_score',)
  with pytest.raises(UserError, match="'clip_score', which needs pictures that texts describe; models of video have"):
    chosen.of_clips(given)


def joint():
  """Texts 'left' and 'right', pictures that are bright there."""

  def tokenize(texts, truncate):
    assert truncate
    return np.array([[text == 'right'] for text in texts], np.int32), np.ones((len(texts), 1), bool)

  def text(group, ids, mask):
    return jnp.concatenate([1 - ids, ids], axis=1).astype(jnp.float32) * group['scale']

  def image(group, image_BHWC):
    half = image_BHWC.shape[2] // 2
    sides = [image_BHWC[:, :, :half], image_BHWC[:, :, half:]]
    vector = jnp.stack([side.astype(jnp.float32).mean(axis=(1, 2, 3)) for side in sides], axis=1) * group['scale']
    return vector / jnp.linalg.norm(vector, axis=1, keepdims=True)

  return kinds.Joint((8, 8, 3), 2, 1, tokenize, image, text, lambda group: group['scale'])


def test_pictures_are_compared_with_the_texts_that_they_were_drawn_for(opened):
  calls = opened(joint=joint())
  given = config((8, 8, 3), conditions=dict(caption=dict(kind='text'), depth=dict(kind='image')), recall_at=(1, 2),
                 measures=('clip_score', 'retrieval'))
  metrics = chosen.of_images(given, measures.config_lib.build(measures.Options, given.evaluation, 'x'), None, float)
  texts = np.array(['left', 'right'] * 50)
  image_NHWC = np.full((100, 8, 8, 3), 10, np.uint8)
  image_NHWC[::2, :, :4] = image_NHWC[1::2, :, 4:] = 200
  found = compute(metrics, Draw(image=image_NHWC, caption=texts))
  assert calls == [('clip', 'joint', 'joint')]
  cosine = 200 / np.hypot(200, 10)
  assert found['clip_score'] == {'mean': pytest.approx(100 * cosine, rel=1e-6)}
  assert found['retrieval'] == {f'{side}_{k}': 1.0 for side in ('text_of_image', 'image_of_text') for k in (1, 2)}
  assert "condition 'caption'" in metrics[0].card['texts'] and metrics[1].card['recall_at'] == [1, 2]
  wrong = compute(metrics, Draw(image=image_NHWC, caption=np.roll(texts, 1)))
  assert wrong['clip_score']['mean'] < 10 and wrong['retrieval']['text_of_image_2'] == 0.0


class Samples:
  """What pairs need of a run: held-out pictures come in padded batches."""

  averaged = True

  def __init__(self, image_NHWC):
    self.run = self
    self.experiment, self.heldout, self.program, self.state = self, self, self, self
    self.image, self.batch_size, self.frozen = image_NHWC, 8, {}
    self.mesh = measures.sharding.make_mesh({'data': 1}, jax.devices()[:1])

  def on_mesh(self, function):
    return function

  def params(self, averaged):
    return {}

  def context(self, frozen):
    return {}

  def rows(self, size):
    return slice(None)

  def epoch(self, rows):
    for start in range(0, len(self.image), 8):
      image = self.image[start:start + 8]
      padded = np.concatenate([image, np.zeros((8 - len(image), *image.shape[1:]), np.uint8)])
      yield {'image': padded, 'mask': (np.arange(8) < len(image)).astype(np.float32)}


def reconstruct(params, context, image_BHWC):
  return (image_BHWC // 2).astype(jnp.uint8)


def test_reconstructions_are_compared_with_their_originals(opened):
  from genjax.metrics import pictures
  lpips = kinds.Perceptual(None, lambda group, a, b: jnp.abs(
    a.astype(jnp.float32) - b.astype(jnp.float32)).mean(axis=(1, 2, 3)) * group['scale'], 'vgg', least=8)
  calls = opened(perceptual=lpips, features=features((12, 12, 1)))
  given = config((12, 12, 1), measures=('psnr', 'ssim', 'lpips', 'frechet'))
  metrics = chosen.of_autoencoder(given, reconstruct)
  image_NHWC = images.open_data(given, 'heldout').get(np.arange(64))['image'][:, ::-1]
  sample = Samples(image_NHWC[:21])
  found = compute(metrics, sample)
  half = image_NHWC[:21] // 2
  assert found['psnr'] == {'mean': pytest.approx(pictures.psnr(image_NHWC[:21], half).mean())}
  assert found['ssim'] == {'mean': pytest.approx(pictures.ssim(image_NHWC[:21], half).mean())}
  assert found['lpips'] == {'mean': pytest.approx((image_NHWC[:21] - half).mean(), rel=1e-5)}
  assert found['frechet']['distance'] > 0.1
  card = {metric.name: metric.card for metric in metrics}
  assert card['frechet']['of'] == card['psnr']['of'] == 'reconstructions' and card['psnr']['num_samples'] == 64
  assert card['lpips']['extractor']['grey'] == 'repeated' and ('lpips', 'perceptual', 'perceptual') in calls
  small = chosen.of_autoencoder(config(measures=('ssim',)), reconstruct)
  with pytest.raises(UserError, match='at least 11 x 11 pixels, got 8 x 8'):
    small[0].check()
  opened(perceptual=kinds.Perceptual(None, lpips.distance, least=32))
  with pytest.raises(UserError, match='reads pictures of at least 32 x 32'):
    chosen.of_autoencoder(config((12, 12, 1), measures=('lpips',)), reconstruct)[0].check()


def test_a_model_that_generates_and_reconstructs_has_both():
  metrics = chosen.of_autoencoder(config((12, 12, 1), measures=('frechet', 'psnr')), reconstruct, generates=True)
  assert [metric.name for metric in metrics] == ['frechet', 'psnr']
  assert chosen.of_autoencoder(config(), reconstruct) == ()


def test_a_classifier_that_learns_from_samples_is_tested_on_real_pictures():
  """Samples that are real pictures score as those; wrong labels score as chance. The table of sources is left as it
  was."""
  judge = measures._classifier_config('digits_classifier', config(name='digits').data)
  with judge.unlocked():
    judge.data.update(train='train', heldout='test', shape=(8, 8, 1))
    judge.update(steps=60)
    judge.model.update(width=8, layers=1)
  train = images.open_source(judge.data, 'train', seed=0).get(np.arange(600))
  before = dict(sources.SOURCES)
  right = accuracy.trained_on(judge, sources.Arrays(train))
  mistaken = sources.Arrays({**train, 'label': (train['label'] + 1) % 10})
  with judge.unlocked():
    judge.data.heldout = 'train'  # real pictures are held out, whatever their split is called
  wrong = accuracy.trained_on(judge, mistaken)
  assert right > 0.75 and wrong < 0.25
  assert sources.SOURCES == before


def test_accuracy_score_is_wired(monkeypatch):
  given = config(name='digits', num_classes=10, measures=('accuracy_score',), classifier='digits_classifier:smoke')
  with given.unlocked():
    given.data.update(heldout='test')
  learnt = []
  monkeypatch.setattr(accuracy, 'trained_on', lambda judge, made: learnt.append(made) or 0.5)
  monkeypatch.setattr(measures, 'trained_classifier', lambda judge: (None, {'heldout_accuracy': 0.75}))
  (metric,) = measures.image_metrics(given)
  found = compute([metric], Draw(image=rows(100, 0), label=np.arange(100) % 10))
  assert found == {'accuracy_score': {'accuracy': 0.5, 'accuracy_of_real': 0.75}}
  assert len(learnt[0]) == 100 and metric.card['reference']['split'] == 'test'
  assert metric.card['classifier']['model']['features'] == 8
  with pytest.raises(UserError, match='needs samples with the label'):
    metric.compute(Draw(image=rows(100, 0)), 1)


def test_nothing_chosen_leaves_what_there_was():
  given = config(name='digits', num_classes=10)
  assert [metric.name for metric in measures.image_metrics(given)] == ['samples']
  with given.unlocked():
    given.evaluation.measures = ('frechet',)
  assert [metric.name for metric in measures.image_metrics(given)] == ['frechet']
  with given.unlocked():
    given.evaluation.measures = ('frechet', 'samples')
  assert [metric.name for metric in measures.image_metrics(given)] == ['samples', 'frechet']


@pytest.mark.parametrize(('evaluation', 'message'), [
  (dict(measures=('frechett',)), "must be one of .*Did you mean 'frechet'"),
  (dict(measures=('kid',)), "a value of the measure 'kernel'"),
  (dict(measures=('psnr',)), "names 'psnr', which needs an autoencoder; models of my_builder have accuracy_score"),
  (dict(measures=('samples',)), "'samples', which needs pictures with a classifier of them"),
  (dict(measures=('accuracy_score',)), 'needs labels, and config.data.num_classes is 0'),
  (dict(measures='frechet'), "measures must be a list of names, got 'frechet'"),
  (dict(kernel_size=1), 'kernel_size must be 0, or at least 2'),
  (dict(recall_at=()), 'recall_at must name at least one number'),
  (dict(splits=0), 'splits must be a whole number of at least 1|splits must be at least 1')])
def test_bad_options(evaluation, message):
  with pytest.raises(UserError, match=message):
    measures.image_metrics(config(**evaluation))


@pytest.mark.parametrize(('evaluation', 'given', 'message'), [
  (dict(measures=('frechet',), num_samples=4), {}, r'4 features of .*net. needs more than 4 rows.*got 4 samples'),
  (dict(measures=('kernel',), kernel_size=50), {}, r'two subsets of config.evaluation.kernel_size=50.*64 real ones'),
  (dict(measures=('precision_recall',), nearest=64), {}, 'neighbour 64 needs more than 64'),
  (dict(measures=('inception_score',)), dict(classes=0), "inception_score needs classes, .*'net' has none"),
  (dict(measures=('inception_score',), splits=101), {}, 'over 101 splits needs at least one sample in each, got 100'),
  (dict(measures=('clip_score',)), {}, r"config.evaluation.text='' must name a condition that is a text.*none"),
  (dict(measures=('frechet',)), dict(shape=(9, 9, 1)), r'shape \(8, 8, 1\), and config.evaluation.parts.net reads'),
])
def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(opened, evaluation, given, message):
  opened(features=features(**given))
  (metric,) = measures.image_metrics(config(**evaluation))
  with pytest.raises(UserError, match=message):
    metric.check()


def test_latents_and_several_shapes_need_pictures_as_reference(opened):
  opened(features=features())
  given = config(measures=('frechet',))
  for change, message in (({'content': 'latents'}, 'evaluation.reference_data=NAME'),
                          ({'content': 'pixels', 'buckets': ((8, 8),)}, 'data.buckets="\\(\\)"')):
    with given.unlocked():
      given.data.update(change)
    with pytest.raises(UserError, match=message):
      measures.image_metrics(given)[0].check()
  with given.unlocked():
    given.data.update(content='latents', buckets=(), name='encoded')
    given.evaluation.reference_data = 'random_images'
  (metric,) = measures.image_metrics(given)
  metric.check()
  assert metric.card['reference']['examples'] == 64
  with pytest.raises(UserError, match='images as uint8, got float32.*config.parts.autoencoder'):
    metric.compute(Draw(image=rows(100, 0).astype(np.float32)), 0)


def test_the_reference_that_is_named_goes_before_a_mixture(opened):
  opened(features=features())
  given = config(measures=('frechet',), reference_data='random_images')
  with given.unlocked():
    given.data.update(name='both', mixture={'one': 1.0, 'other': 2.0})
  (metric,) = measures.image_metrics(given)
  metric.check()
  assert metric.card['reference']['name'] == 'random_images'


def test_names_of_measures_are_told_by_the_options():
  told = measures.EVALUATION.options('evaluation')
  assert all(name in told['evaluation.measures'].meaning for name in samples.NAMES)
