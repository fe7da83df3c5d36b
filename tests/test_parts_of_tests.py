"""`pytest --part=I/N` runs an N-th of the cases that go through every network, and all other tests."""

import pytest

from tests import conftest


class Item:
  def __init__(self, name: str, marked: bool):
    self.name, self.marked = name, marked

  def get_closest_marker(self, name: str):
    return name == 'each_network' and self.marked


class Config:
  def __init__(self, part: str | None):
    self.part, self.hook, self.left_out = part, self, []

  def getoption(self, name: str) -> str | None:
    return {'--part': self.part}[name]

  def pytest_deselected(self, items) -> None:
    self.left_out += items


ITEMS = [Item(f'test_of_networks[{index}]', True) for index in range(40)] + [Item('test_of_anything', False)]


def kept(part: str | None) -> set[str]:
  items, config = list(ITEMS), Config(part)
  conftest.pytest_collection_modifyitems(config, items)
  assert len(items) + len(config.left_out) == len(ITEMS)
  return {item.name for item in items}


def test_every_case_is_in_one_part_and_other_tests_are_in_all():
  everything = {item.name for item in ITEMS}
  assert kept(None) == everything
  parts = [kept(f'{index}/3') for index in range(3)]
  assert set.union(*parts) == everything
  assert set.intersection(*parts) == {'test_of_anything'}
  assert sum(map(len, parts)) == len(everything) + 2 and all(len(part) > 5 for part in parts)


@pytest.mark.parametrize('part', ['3/3', '-1/3', '1', 'a/b'])
def test_bad_parts(part):
  with pytest.raises(pytest.UsageError, match='expected'):
    kept(part)
