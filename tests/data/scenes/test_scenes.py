"""Captioned scenes: what captions say is what is drawn and what is read off, and relations are held out."""

import dataclasses

import numpy as np
import pytest

from genjax.data.scenes import drawing, reading
from genjax.data.scenes.grammar import COLOURS, PLACES, RELATIONS, SHAPES, Scene, Things, parse
from genjax.types import UserError

OPPOSITE = {'left of': 'right of', 'right of': 'left of', 'above': 'below', 'below': 'above'}


@pytest.fixture(scope='module')
def heldout():
  source = drawing.Scenes((36, 36, 3), 1000, seed=1, heldout=True)
  return source.get(np.arange(120))


def test_pictures_show_what_captions_say(heldout):
  for caption, image in zip(heldout['text'], heldout['image'], strict=True):
    found = reading.judge(caption, image)
    assert all(found.values()), (caption, found, reading.read(image))


def test_pictures_of_another_side_are_read_as_well():
  columns = drawing.Scenes((48, 48, 3), 100, seed=2).get(np.arange(40))
  assert all(all(reading.judge(caption, image).values()) for caption, image in zip(columns['text'], columns['image']))


def other(value, values):
  values = list(values)
  return values[(values.index(value) + 1) % len(values)]


def wrong(scene, attribute):
  """The scene with one attribute of its last group, its place or its relation changed."""
  thing = scene.things[-1]
  changed = {'number': lambda: dataclasses.replace(thing, number=thing.number % 3 + 1),
             'colour': lambda: dataclasses.replace(thing, colour=next(
               colour for colour in COLOURS if colour not in [one.colour for one in scene.things])),
             'shape': lambda: dataclasses.replace(thing, shape=other(thing.shape, SHAPES)),
             'size': lambda: dataclasses.replace(thing, size='small' if thing.size == 'large' else 'large')}
  if attribute == 'place':
    return dataclasses.replace(scene, place=other(scene.place, PLACES))
  if attribute == 'relation':
    return dataclasses.replace(scene, relation=OPPOSITE[scene.relation])
  return dataclasses.replace(scene, things=(*scene.things[:-1], changed[attribute]()))


@pytest.mark.parametrize('attribute', reading.ATTRIBUTES)
def test_the_judge_sees_what_is_wrong(heldout, attribute):
  count = 0
  for caption, image in zip(heldout['text'], heldout['image']):
    scene = parse(caption)
    asked = {'place': scene.place, 'relation': scene.relation, 'size': scene.things[-1].size}.get(attribute, True)
    if asked:
      count += 1
      assert not reading.right(wrong(scene, attribute), reading.read(image))[attribute], (caption, attribute)
  assert count > 20


def test_attributes_that_are_not_asked_for_are_not_judged(heldout):
  assert 'size' not in reading.right(parse('two red rings'), [])
  assert 'place' in reading.right(parse('a red ring in the middle'), [])
  grey = np.full((36, 36, 3), 30, np.uint8)
  assert not any(reading.judge('a red ring', grey).values())


def test_captions_are_read_back(heldout):
  assert all(str(parse(caption)) == caption for caption in heldout['text'])
  assert str(Scene((Things(1, 'small', 'red', 'star'), Things(2, '', 'blue', 'ring')), relation='left of')) == (
    'a small red star left of two blue rings')


@pytest.mark.parametrize('caption', ['', 'a red', 'two red star', 'a orange star', 'a red star left of', 'a red star!',
                                     'a red star left of a blue ring above a green ring'])
def test_other_captions_are_refused(caption):
  with pytest.raises(UserError, match='not one of scenes'):
    parse(caption)


def test_training_holds_out_relations():
  train = drawing.Scenes((36, 36, 3), 2**20, seed=0)
  scenes = [parse(caption) for caption in train.read_columns(np.arange(2000), ('text',))['text']]
  assert not any(scene.unseen for scene in scenes)
  assert 0.4 < np.mean([bool(scene.relation) for scene in scenes]) < 0.6
  heldout = drawing.Scenes((36, 36, 3), 1000, seed=1, heldout=True).read_columns(np.arange(1000), ('text',))['text']
  assert sum(parse(caption).unseen for caption in heldout) == 250


def test_a_scene_and_its_reverse_are_held_out_together(heldout):
  for caption in heldout['text']:
    scene = parse(caption)
    if scene.relation:
      assert dataclasses.replace(scene, things=scene.things[::-1], relation=OPPOSITE[scene.relation]
                                 ).unseen == scene.unseen
  for what in ('colour', 'shape'):
    shares = [len(drawing.pairs(what, relation, True)) for relation in RELATIONS]
    assert min(shares) >= 2  # each relation has some


def test_a_row_depends_on_seed_and_row_alone():
  source = drawing.Scenes((36, 36, 3), 1000, seed=3)
  many, one = source.get(np.arange(8)), source.get(np.asarray([5]))
  assert many['text'][5] == one['text'][0]
  np.testing.assert_array_equal(many['image'][5], one['image'][0])
  assert list(source.read_columns(np.arange(8), ('text',))['text']) == list(many['text'])
  assert (drawing.Scenes((36, 36, 3), 1000, seed=4).get(np.arange(8))['image'] != many['image']).any()


@pytest.mark.parametrize('shape', [(32, 32, 1), (32, 24, 3), (16, 16, 3)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(UserError, match='scenes'):
    drawing.Scenes(shape, 10)
