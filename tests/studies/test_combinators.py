"""Combinators of sweeps, and the names of runs."""

import math

import pytest

from genjax.configs import sweeps
from genjax.studies import names


def test_product_has_every_combination_and_the_last_axis_is_fastest():
  found = sweeps.product({'a': (1, 2), 'b': ('x', 'y')}, sweeps.seeds(2))
  assert len(found) == 8
  assert found[:3] == [{'a': 1, 'b': 'x', 'seed': 0}, {'a': 1, 'b': 'x', 'seed': 1}, {'a': 1, 'b': 'y', 'seed': 0}]


def test_zipped_goes_through_axes_together():
  assert sweeps.zipped({'a': (1, 2), 'b': (3, 4)}, sweeps.seeds(2, first=5)) == [
    {'a': 1, 'b': 3, 'seed': 5}, {'a': 2, 'b': 4, 'seed': 6}]
  with pytest.raises(ValueError, match=r'one length, got \[2, 3\]'):
    sweeps.zipped({'a': (1, 2)}, sweeps.seeds(3))


def test_an_ablation_is_the_base_and_one_change_at_a_time():
  base = {'depth': 4, 'width': 8}
  found = sweeps.one_at_a_time(base, {'depth': (2, 4), 'width': (16,)}, [{'depth': 1, 'width': 1}])
  assert found == [base, {'depth': 2, 'width': 8}, {'depth': 4, 'width': 16}, {'depth': 1, 'width': 1}]


def test_chain_and_nesting():
  found = sweeps.product(sweeps.chain([{}], {'a': (1,)}), sweeps.seeds(2))
  assert found == [{'seed': 0}, {'seed': 1}, {'a': 1, 'seed': 0}, {'a': 1, 'seed': 1}]


def test_random_settings_lie_in_their_ranges_and_stay_when_more_are_drawn():
  ranges = {'lr': sweeps.log_uniform(1e-5, 1e-2), 'rate': sweeps.uniform(0, 0.5), 'depth': sweeps.integers(2, 4),
            'name': sweeps.choice(('adam', 'lion'))}
  few, many = sweeps.random(20, ranges, seed=1), sweeps.random(200, ranges, seed=1)
  assert many[:20] == few
  assert sweeps.random(20, {'lr': ranges['lr']}, seed=1) == [{'lr': setting['lr']} for setting in few]
  assert sweeps.random(20, ranges, seed=2) != few
  assert {setting['depth'] for setting in many} == {2, 3, 4}
  assert {setting['name'] for setting in many} == {'adam', 'lion'}
  assert all(1e-5 <= setting['lr'] <= 1e-2 and 0 <= setting['rate'] <= 0.5 for setting in many)
  # A third of the draws lies in each third of the logarithm.
  thirds = [sum(start <= math.log10(setting['lr']) < start + 1 for setting in many) for start in (-5, -4, -3)]
  assert all(40 < count < 95 for count in thirds)


@pytest.mark.parametrize(('make', 'said'), [
  (lambda: sweeps.product({'a': 3}), "gives 'a' a list of values, got 3"),
  (lambda: sweeps.product({'a': 'xy'}), "a list of values, got 'xy'"),
  (lambda: sweeps.product(['a']), "got 'a' in a list"),
  (lambda: sweeps.product({'a': (1,)}, {'a': (2,)}), "two axes set 'a', one to 1 and one to 2"),
  (lambda: sweeps.seeds(0), 'at least 1, got 0'),
  (lambda: sweeps.log_uniform(0, 1), 'above 0'),
  (lambda: sweeps.uniform(1, 0), 'smallest and then a largest'),
  (lambda: sweeps.choice(()), 'got none'),
  (lambda: sweeps.random(2, {'a': (1, 2)}), "draws 'a' from uniform"),
])
def test_bad_axes(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_labels_are_as_short_as_they_can_be():
  keys = ['optimizers.net.lr', 'objective.process.name', 'seed', 'arg.model', 'data.seed']
  assert names.labels(keys, {}) == {'optimizers.net.lr': 'lr', 'objective.process.name': 'process', 'seed': 'seed',
                                    'arg.model': 'model', 'data.seed': 'data.seed'}
  both = names.labels(['optimizers.net.lr', 'optimizers.critic.lr'], {})
  assert both == {'optimizers.net.lr': 'net.lr', 'optimizers.critic.lr': 'critic.lr'}


def test_labels_stay_when_a_sweep_grows():
  before = names.labels(['optimizers.net.lr'], {})
  after = names.labels(['optimizers.critic.lr', 'lr', 'optimizers.net.lr'], before)
  assert after == {'optimizers.net.lr': 'lr', 'optimizers.critic.lr': 'critic.lr', 'lr': 'config.lr'}


def test_names_are_readable_and_safe():
  known = names.labels(['lr', 'data.path', 'flip', 'shape', 'seed'], {})
  setting = {'seed': 0, 'lr': 1e-4, 'data.path': '/a b/c@1', 'flip': True, 'shape': [8, 8, 1]}
  assert names.name(setting, known) == 'lr=0.0001,path=-a-b-c-1,flip=true,shape=8x8x1,seed=0'
  assert names.name({}, known) == 'base'
  assert names.name({'lr': 0.1234567}, known) == 'lr=0.1234567'


def test_long_names_are_cut_and_told_apart_by_a_hash():
  known = {'text': 'text'}
  first, second = (names.name({'text': 'x' * 300 + end}, known) for end in 'ab')
  assert first != second and len(first) == len(second) == names.LONGEST
  assert first == names.name({'text': 'x' * 300 + 'a'}, known)
