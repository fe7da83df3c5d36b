"""Conditions of a config: what they make of data, what they tell the network, what sampling takes, and what they
refuse."""

import importlib
import json

import jax
import numpy as np
from PIL import Image
import pytest

from genjax import config as config_lib
from genjax.data import folder
from genjax.data.audio.mel import LogMel
from genjax.experiments import conditions, diffusion
from genjax.objectives.base import Context
from genjax.runs import assets, builders
from genjax.training.experiment import encoded
from genjax.training.monitoring import logs
from genjax.types import UserError
from tests.experiments.condition_data import SIZE, TEXT, columns_of, config_of, everything, made_of, told

pytestmark = pytest.mark.usefixtures('source')


def test_each_kind_gives_its_columns_and_tells_the_network():
  made = made_of(dict(
    caption=TEXT, kind_of=dict(kind='classes', num_classes=4), sketch=dict(kind='image', column='sketch'),
    hole=dict(kind='mask'), size=dict(kind='numbers', column=('height', 'width'), low=0.0, high=200.0),
    vector=dict(kind='vector', column='embedding', width=5)))
  raw, columns = everything(None, 'train').get(np.arange(4)), columns_of(made, range(4))
  given = told(made, columns)
  assert bytes(np.asarray(given['ids'][1])[:9].astype(np.uint8)).decode() == 'picture 1'
  assert given['ids'][1][9] == 256 and given['ids_mask'].sum(axis=1).tolist() == [10, 10, 10, 60]
  assert given['label'].tolist() == [0, 1, 2, 3]
  small = [np.asarray(Image.fromarray(sketch).resize((8, 8), Image.Resampling.BILINEAR)) for sketch in raw['sketch']]
  hole = (raw['mask'] > 127).astype(np.float32)
  np.testing.assert_allclose(given['image'], np.concatenate([hole, np.stack(small) / 127.5 - 1], -1), atol=1e-6)
  np.testing.assert_allclose(given['numbers'], np.stack([raw['height'], raw['width']], -1) * 5, rtol=1e-6)
  np.testing.assert_allclose(given['vector'], raw['embedding'], rtol=1e-6)
  assert made.network == {'vocabulary': 257, 'text_length': 60, 'num_classes': 4, 'image_channels': 4, 'numbers': 2,
                          'vector_width': 5}
  for name, row in made.example.items():
    assert columns[name].shape[1:] == row.shape and columns[name].dtype == row.dtype, name
  for condition in made.conditioners.values():
    for column, null in condition.null.items():
      assert np.asarray(null).shape == made.example[column].shape and not (columns[column] == null).all()


def test_clips_are_joined_frame_by_frame_and_sounds_are_attended_to():
  made = made_of(dict(past=dict(kind='clip', frames=2, channels=1),
                      song=dict(kind='sound', seconds=0.1, rate=8000, bands=16, window=200, hop=80)))
  raw, columns = everything(None, 'train').get(np.arange(2)), columns_of(made, range(2))
  given = told(made, columns)
  np.testing.assert_allclose(given['image'][..., 1], raw['clip'][:, 1, ..., 0] / 127.5 - 1, atol=1e-6)
  np.testing.assert_allclose(given['tokens'][1], LogMel(8000, 16, 200, 80)(raw['sound'][1]))
  assert given['tokens'].shape == (2, 10, 16) and made.network == {'image_channels': 2, 'token_width': 16}
  assert made.conditions['past'].convert(raw['clip'][0]).shape == (2, 8, 8, 1)
  for wrong in (np.zeros((1, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 1), np.float32)):
    with pytest.raises(UserError, match='at least 2 frames'):
      made.conditions['past'].convert(wrong)


def test_pictures_of_conditions_are_mirrored_with_the_images():
  config = config_of(dict(mask=dict(kind='mask', column='mask')), data__flip=True)
  experiment = diffusion.build(config)
  raw, batch = everything(None, 'train').get(np.arange(SIZE)), experiment.train.batch(0)
  mirrored = 0
  for image, mask in zip(batch['image'], batch['mask_pixels']):
    row = [np.array_equal(image, other) for other in raw['image']]
    flipped = [np.array_equal(image[:, ::-1], other) for other in raw['image']]
    place = (row if any(row) else flipped).index(True)
    np.testing.assert_array_equal(mask if any(row) else mask[:, ::-1], raw['mask'][place])
    mirrored += not any(row)
  assert 0 < mirrored < len(batch['image'])


def test_a_label_is_a_condition_as_before_and_by_name():
  quick = importlib.import_module('genjax.configs.quickstart').get_config('smoke')
  before = diffusion.build(quick.lock())
  named = importlib.import_module('genjax.configs.quickstart').get_config('smoke')
  named.conditions = dict(label=dict(kind='classes', dropout=0.1))
  after = diffusion.build(named.lock())
  assert set(before.conditions) == {'label'} and set(after.conditions) == {'label', 'negative_label'}
  assert not before.files and before.train.fingerprint() == {
    key: value for key, value in after.train.fingerprint().items() if key != 'conditions'}
  losses = []
  for experiment in (before, after):
    variables = experiment.objective.init(jax.random.key(0), {})
    context = Context(step=0, mutable={}, ema={}, frozen={})
    batch = experiment.train.batch(0)
    losses.append(float(experiment.objective.loss(variables.params, context, batch, jax.random.key(1)).loss))
  assert losses[0] == losses[1]


def test_absence_is_what_the_run_keeps(tmp_path):
  made = made_of(dict(caption=TEXT, hole=dict(kind='mask')))
  (tmp_path / conditions.FILE).write_bytes(made._nulls())
  kept = dict(np.load(tmp_path / conditions.FILE))
  assert kept['caption_ids'].tolist() == [256] * 60 and kept['caption_ids_mask'].sum() == 1
  np.savez(tmp_path / conditions.FILE, **{**kept, 'hole_pixels': np.full((8, 8, 1), 7, np.uint8)})
  again = made_of(dict(caption=TEXT, hole=dict(kind='mask')), assets=dict(folder=str(tmp_path)))
  assert (again.conditioners['hole'].null['hole_pixels'] == 7).all(), 'the run goes before what would be made now'
  np.testing.assert_array_equal(again.conditioners['caption'].null['caption_ids'], kept['caption_ids'])


def test_a_learned_tokenizer_is_kept_in_the_run(tmp_path):
  options = dict(kind='text', vocabulary='wordpiece', vocabulary_size=80, length=12)
  experiment = diffusion.build(config_of(dict(text=options)))
  assert set(experiment.files) == {'text_tokenizer.json', conditions.FILE}
  for name, data in experiment.files.items():
    (tmp_path / name).write_bytes(data)
  (tmp_path / 'text_tokenizer.json').write_bytes(
    experiment.files['text_tokenizer.json'].replace(b'"picture"', b'"pikture"'))
  kept = dict(folder=str(tmp_path), **experiment.assets)
  again = diffusion.build(config_of(dict(text=options), assets=kept))
  ids = [encoded(each.conditions, {'text': np.asarray(['picture'])})['text_ids'] for each in (experiment, again)]
  assert (ids[0] != ids[1]).any(), 'the tokenizer of the run is read, not trained again'
  with pytest.raises(UserError, match=r'config.conditions.text.vocabulary_size .* must be at least'):
    made_of(dict(text=dict(options, vocabulary_size=3)))


def test_parameters_of_another_run_come_with_its_tokenizer(tmp_path):
  options = dict(kind='text', vocabulary='wordpiece', vocabulary_size=80, length=12)
  first = diffusion.build(config_of(dict(text=options)))
  for name, data in first.files.items():
    (tmp_path / name).write_bytes(data.replace(b'"picture"', b'"pikture"'))
  facts = assets.described(first.assets, {name: (tmp_path / name).read_bytes() for name in first.files})
  (tmp_path / 'config.json').write_text(json.dumps(
    {**config_lib.plain(config_of(dict(text=options))), 'assets': facts}))
  tuned = diffusion.build(config_of(dict(text=options), init_from=f'{tmp_path}@7'))
  assert b'"pikture"' in tuned.files['text_tokenizer.json'], 'it is not learned anew'
  other = diffusion.build(config_of(dict(text=dict(options, vocabulary='bpe', vocabulary_size=300)),
                                    init_from=str(tmp_path)))
  assert b'pikture' not in other.files['text_tokenizer.json']


@pytest.mark.parametrize(('given', 'words'), [
  (dict(kind='numbers', column='text'), r"c reads the column 'text', which must hold finite numbers, .* 'picture 0'"),
  (dict(kind='classes', column='text', num_classes=4), "column 'text', which must hold whole numbers.*'picture 0'"),
  (dict(kind='classes', column='height', num_classes=4), "column 'height', which must hold whole numbers"),
  (dict(kind='classes', column='width', num_classes=5),
   "c has 5 classes, and the column 'width' of the data has values from 0 to 5; set config.conditions.c.num_classes to "
   'at least 6')])
def test_columns_of_another_type(given, words):
  made = made_of(dict(c=given))
  with pytest.raises(UserError, match=words):
    columns_of(made, np.arange(6))


def test_numbers_of_several_counts_and_nan():
  made = made_of(dict(c=dict(kind='numbers', column='height')))._made['c']
  uneven = np.empty(2, object)
  uneven[:] = [np.zeros(2), np.zeros(1)]
  for values in (uneven, np.asarray([1.0, np.nan]), np.asarray(['1', 'x'], object)):
    with pytest.raises(UserError, match='must hold finite numbers, as many in each row'):
      made.take({'height': values})


def test_a_tokenizer_is_learned_without_decoding_pictures(tmp_path, monkeypatch):
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path / 'cache'))
  for row in range(40):
    Image.new('RGB', (8, 8), (row, row, row)).save(tmp_path / f'{row}.png')
    (tmp_path / f'{row}.txt').write_text(f'picture {row}')
  decoded = []
  decode = folder.Decoded._decode
  monkeypatch.setattr(folder.Decoded, '_decode', lambda *given: decoded.append(given[1]) or decode(*given))
  made_of(dict(text=dict(kind='text', vocabulary='wordpiece', vocabulary_size=80)), data__name=str(tmp_path),
          data__train='train', data__heldout='train')
  assert len(decoded) <= 3, 'the first, to see that it fits'


def test_a_long_text_is_cut_off_and_said_once_or_refused(monkeypatch):
  lines = []
  monkeypatch.setattr(logs, 'say', lines.append)
  made = made_of(dict(text=dict(kind='text', length=20)))
  for _ in range(3):
    columns = columns_of(made, range(SIZE))
  assert columns['text_ids_mask'][3].all() and len(lines) == 1
  assert "condition 'text'" in lines[0] and '63 tokens, and 20 are read' in lines[0] and 'cut off' in lines[0]
  strict = made_of(dict(text=dict(kind='text', length=20, truncate=False)))
  with pytest.raises(UserError, match=r"'text'.* has 63 tokens, and 20 are read; shorten it, or set .*truncate=True"):
    columns_of(strict, [3])
  with pytest.raises(UserError, match='has 31 tokens, and 20 are read'):
    strict.conditions['text'].parse('x' * 30)


def test_defaults_are_those_of_the_config_or_of_heldout_data():
  made = made_of(dict(text=dict(TEXT, default=('one', 'two')), size=dict(kind='numbers', column='height')))
  text, size = made.conditions['text'], made.conditions['size']
  assert [str(text.default(row)) for row in range(3)] == ['one', 'two', 'one']
  assert size.default(SIZE + 1) == everything(None, 'heldout').get(np.asarray([1]))['height'][0].astype(np.float32)
  config = config_of(dict(text=TEXT), data__heldout='heldout')

  def missing(split, columns):
    raise UserError('the disk is gone')

  lost = conditions.of(config, (8, 8, 3), missing)
  with pytest.raises(UserError, match='no text is given, and the held-out data .* the disk is gone'):
    lost.conditions['text'].default(0)


@pytest.mark.parametrize(('given', 'changes', 'words'), [
  (dict(text=dict(kind='txt')), {}, "config.conditions.text.kind must be one of .*Did you mean 'text'"),
  (dict(text=dict(length=3)), {}, 'must be a dict with a kind'),
  (dict(text=dict(kind='text', lenght=3)), {}, "config.conditions.text.lenght .*Did you mean 'length'"),
  (dict(text=dict(kind='text', dropout=1.0)), {}, r'config.conditions.text.dropout must lie in \[0, 1\)'),
  (dict(text=dict(kind='text', length=1)), {}, 'length must be at least 2'),
  (dict(text=dict(kind='text', pooled=True)), {}, 'pooled needs a part'),
  (dict(text=dict(kind='text', vocabulary='bite')), {}, "vocabulary must be 'byte', one of .*got 'bite'"),
  (dict(image=dict(kind='mask')), {}, 'needs a name .* none of'),
  (dict(negative_x=dict(kind='mask')), {}, "does not begin with 'negative_'"),
  (dict(label=dict(kind='mask')), {}, "label must be of kind 'classes'"),
  (dict(kind_of=dict(kind='classes')), {}, 'kind_of.num_classes or config.data.num_classes'),
  (dict(a=dict(kind='classes', num_classes=3), b=dict(kind='classes', num_classes=3)), {},
   'several conditions of kind'),
  (dict(a=TEXT, b=TEXT), {}, "'a' and 'b' both set vocabulary"),
  (dict(a=dict(kind='numbers', column='height', low=3.0, high=3.0)), {}, 'high must be above low'),
  (dict(a=dict(kind='vector', column='embedding')), {}, "config.conditions.a lacks .'width'"),
  (dict(a=dict(kind='clip', frames=0)), {}, 'config.conditions.a.frames must be'),
  (dict(a=dict(kind='sound', seconds=0.001, rate=8000)), {}, 'less than one frame needs'),
  (dict(text=dict(TEXT, dropout=0.0)), dict(sampler__guidance=2.0),
   "guidance=2.0 needs a condition that training leaves out .* config.conditions.text.dropout above 0 .*'text'"),
  (dict(text=TEXT, hole=dict(kind='mask', dropout=0.0)), dict(sampler__guidances=dict(hole=2.0)),
   'guidances.hole=2.0 needs the condition .hole. left out .*config.conditions.hole.dropout'),
  (dict(text=TEXT), dict(sampler__guidances=dict(txt=2.0)), "guidances must be one of .*Did you mean 'text'"),
  ({}, dict(sampler__guidance=2.0), 'needs a condition, such as classes'),
  (dict(text=TEXT), dict(sampler__rescale=1.5), 'config.sampler.rescale must be at least 0 and at most 1'),
])
def test_what_a_config_may_not_say(given, changes, words):
  with pytest.raises(UserError, match=words):
    diffusion.build(config_of(given, **changes))


@pytest.mark.parametrize(('given', 'words'), [
  (dict(words=dict(kind='text', column='caption')), "'caption', and the data 'everything' has the columns .*'text'"),
  (dict(words=dict(kind='text', column='label')), "'label' must hold texts, got .*int"),
  (dict(size=dict(kind='numbers', column='height', count=2)), r"count is 2, and the columns \['height'\] hold 1"),
  (dict(e=dict(kind='vector', column='embedding', width=4)), "'embedding' takes 4 numbers a row, got 5"),
  (dict(sketch=dict(kind='image', column='embedding')), 'takes uint8 pixels'),
  (dict(song=dict(kind='sound', seconds=0.2, rate=8000)), 'takes 1600 float samples'),
])
def test_data_that_lacks_what_a_condition_reads(given, words):
  with pytest.raises(UserError, match=words):
    diffusion.build(config_of(given)).train.batch(0)


def test_captions_are_missing_from_data_without_them():
  config = config_of(dict(text=TEXT), data__name='random_images', data__shape=(8, 8, 3))
  with pytest.raises(UserError, match=r"config.conditions.text reads the column 'text', and the data 'random_images' "
                                      r"has the columns \['image'\].*metadata.jsonl"):
    diffusion.build(config).train.fingerprint()


def test_options_are_listed_and_set_by_flag():
  known = builders.options(config_of(dict(text=TEXT), num_classes=4))
  assert known.options['conditions.text.length'].default == 0
  assert {'sampler.guidances.text', 'sampler.guidances.label', 'sampler.rescale', 'conditions'} <= set(known.options)
  assert known.options['sampler.guidances.text'].read('7.5') == 7.5
  assert known.computed['model.token_width'] == 'config.conditions'
  assert 'kind=vector' in known.elsewhere['conditions.text.width']
