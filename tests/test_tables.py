"""Tables of parts by name: what may be added, and what is refused."""

from flax import nnx
import pytest

from genjax import tables
from genjax.config import choose
from genjax.tables import Table
from genjax.types import UserError


def table():
  return Table('shape', {'circle': lambda x, y, *, size: None}, takes=('x', 'y'), keywords=('size',))


def test_added_entries_are_chosen_and_listed():
  shapes = table()
  square = lambda x, y, size, colour='red': None
  shapes.add('square', square)
  assert choose(shapes, 'square', 'config.shape') is square
  with pytest.raises(UserError, match=r"\['circle', 'square'\].*Did you mean 'square'"):
    choose(shapes, 'squar', 'config.shape')


@pytest.mark.parametrize('name, value, message', [
  ('circle', lambda x, y, size: None, 'exists already'),
  ('my circle', lambda x, y, size: None, 'letters, digits'),
  ('', lambda x, y, size: None, 'letters, digits'),
  ('square', 3, 'must be a function or a class, called with'),
  ('square', lambda x: None, 'called with'),
  ('square', lambda x, y: None, 'called with'),
  ('square', lambda x, y, z, size: None, "missing a required argument: 'z'"),
])
def test_what_does_not_fit_is_refused(name, value, message):
  shapes = table()
  with pytest.raises(UserError, match=message):
    shapes.add(name, value)
  assert list(shapes) == ['circle']


def test_the_signature_of_a_module_is_that_of_its_init():

  class Fits(nnx.Module):

    def __init__(self, x, y, *, size):
      pass

  class DoesNot(nnx.Module):

    def __init__(self, x):
      pass

  shapes = table()
  shapes.add('fits', Fits)
  with pytest.raises(UserError, match='called with'):
    shapes.add('does_not', DoesNot)


def test_a_function_that_is_defined_anew_replaces_itself():

  def define(factor):

    def square(x, y, size):
      return factor * x

    return square

  shapes = table()
  for factor in (2, 3):
    shapes.add('square', define(factor))
  assert shapes['square'](1, 0, 0) == 3


def test_tuples_have_one_length():
  pairs = Table('pair', {'first': (1, 2)})
  pairs.add('second', (3, 4))
  for wrong in ((1, 2, 3), 5):
    with pytest.raises(UserError, match='tuple of 2 parts'):
      pairs.add('third', wrong)


def test_what_was_recorded_can_be_removed():
  shapes = table()
  with tables.recorded() as added:
    shapes.add('square', lambda x, y, size: None)
  shapes.add('line', lambda x, y, size: None)
  tables.remove(added)
  assert list(shapes) == ['circle', 'line']
