"""Conditions as value objects: dropping, joining, absence and negative conditions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import conditioning
from genjax.diffusion.conditioning import Conditioner
from genjax.types import UserError

SIZE = 4000
TEXT = Conditioner(('ids', 'mask'), {'ids': np.zeros(3, np.int32), 'mask': np.array([1, 0, 0])}, 0.3,
                   lambda frozen, columns: {'tokens': frozen['table'][columns['ids']], 'tokens_mask': columns['mask']})
FROZEN = {'table': jnp.arange(20.0).reshape(10, 2)}
BATCH = {'label': jnp.arange(SIZE) % 5, 'ids': 1 + jnp.arange(3 * SIZE).reshape(SIZE, 3) % 9,
         'mask': jnp.ones((SIZE, 3), jnp.int32), 'size': jnp.ones((SIZE, 2))}


def _vector(column, channels, dropout=0.0, fill=0.0):
  null = {column: np.full(channels, fill, np.float32)}
  return Conditioner((column,), null, dropout, lambda frozen, columns: {'vector': columns[column]})


def _numbers(column, dropout=0.0):
  return Conditioner((column,), {column: np.zeros(2, np.float32)}, dropout,
                     lambda frozen, columns: {'numbers': columns[column]})


def test_each_condition_drops_its_rows_at_its_rate():
  conditioners = {'label': conditioning.classes(5, 0.1), 'text': TEXT, 'size': _numbers('size')}
  given = conditioning.given(conditioners, FROZEN, BATCH, jax.random.key(0))
  no_label, no_text = np.asarray(given['label'] == 5), np.asarray(given['tokens_mask'][:, 1] == 0)
  assert no_label.mean() == pytest.approx(0.1, abs=0.015) and no_text.mean() == pytest.approx(0.3, abs=0.022)
  assert (no_label & no_text).mean() == pytest.approx(0.03, abs=0.008)  # one does not depend on the other
  np.testing.assert_array_equal(given['label'][~no_label], BATCH['label'][~no_label])
  # All columns of a condition are dropped in the same rows, before it is encoded.
  np.testing.assert_array_equal(given['tokens'][no_text], np.broadcast_to(FROZEN['table'][0], (no_text.sum(), 3, 2)))
  np.testing.assert_array_equal(given['tokens'][~no_text], FROZEN['table'][BATCH['ids'][~no_text]])
  assert (given['numbers'] == 1).all()


def test_what_was_encoded_before_is_dropped_like_what_is_encoded_now():
  given = lambda text, batch, **joint: conditioning.given(
    {'label': conditioning.classes(5, 0.1), 'text': text}, FROZEN, batch, jax.random.key(0), **joint)
  stored = dataclasses.replace(TEXT, stored={'tokens': 'text_tokens', 'tokens_mask': 'text_mask'})
  batch = {'label': BATCH['label'], 'text_tokens': FROZEN['table'][BATCH['ids']], 'text_mask': BATCH['mask']}
  for joint in (0.0, 0.2):
    there, here = given(TEXT, BATCH, joint=joint), given(stored, batch, joint=joint)
    assert set(there) == set(here) == {'label', 'tokens', 'tokens_mask'}
    for name, values in there.items():
      np.testing.assert_array_equal(values, here[name])
  # Samples are asked for by texts, and guided away from the encoded null or from negative texts.
  asked = {'label': BATCH['label'][:2], 'ids': BATCH['ids'][:2], 'mask': BATCH['mask'][:2]}
  for more in ({}, {'negative_ids': BATCH['ids'][2:4], 'negative_mask': BATCH['mask'][2:4]}):
    both = [conditioning.branches({'label': conditioning.classes(5, 0.1), 'text': text}, FROZEN, {**asked, **more}, 2,
                                  [('text',), ()]) for text in (TEXT, stored)]
    jax.tree.map(np.testing.assert_array_equal, *both)
    assert not np.array_equal(both[1][0]['tokens'], both[1][1]['tokens'])


def test_draws_depend_on_the_name_and_the_key_alone():
  both = {'size': _numbers('size', 0.5), 'label': conditioning.classes(5, 0.5)}
  key = jax.random.key(3)
  given = conditioning.given(both, {}, BATCH, key)
  np.testing.assert_array_equal(given['label'] == 5, jax.random.bernoulli(key, 0.5, (SIZE,)))
  alone = conditioning.given({'size': both['size']}, {}, BATCH, key)
  np.testing.assert_array_equal(given['numbers'], alone['numbers'])
  other = conditioning.given({'other': both['size']}, {}, BATCH, key)
  assert (other['numbers'] != alone['numbers']).any()


def test_without_a_key_nothing_is_dropped():
  given = conditioning.given({'label': conditioning.classes(5, 0.9), 'text': TEXT}, FROZEN, BATCH)
  np.testing.assert_array_equal(given['label'], BATCH['label'])
  assert (given['tokens_mask'] == 1).all()


def test_all_conditions_drop_together_at_a_joint_rate():
  text = Conditioner(TEXT.columns, TEXT.null, 0.05, TEXT.encode)
  conditioners = {'label': conditioning.classes(5, 0.05), 'text': text, 'size': _numbers('size')}
  given = conditioning.given(conditioners, FROZEN, BATCH, jax.random.key(0), joint=0.2)
  no_label, no_text = np.asarray(given['label'] == 5), np.asarray(given['tokens_mask'][:, 1] == 0)
  expected = 0.2 + 0.8 * 0.05**2
  assert (no_label & no_text).mean() == pytest.approx(expected, abs=0.02)
  assert no_label.mean() == pytest.approx(0.2 + 0.8 * 0.05, abs=0.02)
  assert (given['numbers'] == 1).all()  # a condition that is never dropped stays


def test_conditions_of_one_mechanism_are_joined_in_their_order():
  columns = {'a': jnp.ones((2, 3)), 'b': 2 * jnp.ones((2, 1)), 'ids': jnp.ones((2, 3), int), 'mask': jnp.zeros((2, 3))}
  plain = Conditioner(('a',), {}, 0.0, lambda frozen, columns: {'tokens': jnp.zeros((2, 5, 2))})
  conditioners = {'b': _vector('b', 1), 'a': _vector('a', 3), 'plain': plain, 'text': TEXT}
  given = conditioning.given(conditioners, FROZEN, columns)
  np.testing.assert_array_equal(given['vector'], jnp.array([[2.0, 1, 1, 1]] * 2))
  assert given['tokens'].shape == (2, 8, 2)
  np.testing.assert_array_equal(given['tokens_mask'], [[1] * 5 + [0] * 3] * 2)  # tokens without a mask are all seen


def test_branches_have_nulls_where_a_condition_is_absent():
  conditioners = {'label': conditioning.classes(5), 'text': TEXT, 'size': _numbers('size')}
  columns = {name: value[:2] for name, value in BATCH.items()}
  none, label, all_ = conditioning.branches(conditioners, FROZEN, columns, 2, [['label', 'text'], ['text'], []])
  np.testing.assert_array_equal(none['label'], [5, 5])
  np.testing.assert_array_equal(label['label'], columns['label'])
  for one in (none, label):
    np.testing.assert_array_equal(one['tokens'], jnp.broadcast_to(FROZEN['table'][0], (2, 3, 2)))
    np.testing.assert_array_equal(one['tokens_mask'], [[1, 0, 0]] * 2)
  np.testing.assert_array_equal(all_['tokens'], FROZEN['table'][columns['ids']])
  assert all((one['numbers'] == 1).all() for one in (none, label, all_))


def test_negative_rows_stand_in_the_nulls_place():
  columns = {'ids': jnp.ones((2, 3), int), 'mask': jnp.ones((2, 3), int)}
  negative = {'negative_ids': jnp.full((2, 3), 7), 'negative_mask': jnp.array([[1, 1, 0]] * 2)}
  absent, all_ = conditioning.branches({'text': TEXT}, FROZEN, {**columns, **negative}, 2, [['text'], []])
  np.testing.assert_array_equal(absent['tokens'], jnp.broadcast_to(FROZEN['table'][7], (2, 3, 2)))
  np.testing.assert_array_equal(absent['tokens_mask'], negative['negative_mask'])
  np.testing.assert_array_equal(all_['tokens'], jnp.broadcast_to(FROZEN['table'][1], (2, 3, 2)))
  part = {**columns, 'negative_ids': negative['negative_ids']}
  with pytest.raises(UserError, match=r"needs all its columns \('ids', 'mask'\), got only \['ids'\]"):
    conditioning.branches({'text': TEXT}, FROZEN, part, 2, [['text'], []])
  with pytest.raises(UserError, match=r"negative conditions \['ids', 'mask'\].*takes away none.*other than 1"):
    conditioning.branches({'text': TEXT}, FROZEN, {**columns, **negative}, 2, [[]])


def test_each_condition_is_encoded_once_present_and_once_absent():
  calls = []

  def encode(frozen, columns):
    calls.append(columns['a'])
    return {'vector': columns['a']}

  condition = Conditioner(('a',), {'a': np.zeros(1)}, 0.1, encode)
  conditioners = {'one': condition, 'two': _numbers('size', 0.1)}
  columns = {'a': jnp.ones((2, 1)), 'size': jnp.ones((2, 2))}
  conditioning.branches(conditioners, {}, columns, 2, [['one', 'two'], ['two'], []])
  assert len(calls) == 2
  conditioning.branches(conditioners, {}, {'size': columns['size']}, 2, [['one']])  # absent: its columns are not read
  assert len(calls) == 3 and (calls[2] == 0).all()


def test_what_cannot_be_is_refused():
  with pytest.raises(UserError, match=r"'text' reads columns \['ids', 'mask'\], and \['mask'\] are not given"):
    conditioning.given({'text': TEXT}, FROZEN, {'ids': BATCH['ids']})
  with pytest.raises(UserError, match="conditions .* give 'label' twice"):
    conditioning.given({'one': conditioning.classes(2), 'two': conditioning.classes(2)}, {}, BATCH)
  narrow = Conditioner(('a',), {}, 0.0, lambda frozen, columns: {'tokens': jnp.zeros((SIZE, 5, 3))})
  with pytest.raises(UserError, match="'narrow' gives 'tokens' of shape .4000, 5, 3., which cannot be joined"):
    conditioning.given({'text': TEXT, 'narrow': narrow}, FROZEN, {**BATCH, 'a': BATCH['size']})
  with pytest.raises(UserError, match='dropout must lie in'):
    conditioning.classes(3, 1.0)
  with pytest.raises(UserError, match='num_classes must be'):
    conditioning.classes(0)
  with pytest.raises(UserError, match="needs a null for each of its columns"):
    Conditioner(('a',), {}, 0.1, lambda frozen, columns: {})
