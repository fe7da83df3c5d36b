"""Warm start: which leaf goes where, what is said of it, and that nothing is left out in silence."""

import jax
import numpy as np
import pytest

from genjax.training import hooks, loop
from genjax.training.checkpoints import warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.types import UserError

THERE = {'net/stem/w': np.arange(6.0).reshape(2, 3), 'net/head/w': np.ones((3, 10)), 'net/head/b': np.zeros(10)}
HERE = {'net/body/w': (2, 3), 'net/head/w': (3, 4), 'net/head/b': (4,)}
RULES = (('rename', r'net/stem/(.*)', r'net/body/\1'), ('drop', 'net/head/.*'), ('keep', 'net/head/.*'))


def test_rules_rename_drop_and_keep():
  chosen, report = warm_start.match(THERE, HERE, RULES, strict=True)
  assert list(chosen) == ['net/body/w'] and chosen['net/body/w'] is THERE['net/stem/w']
  assert report.loaded == ['net/body/w'] and report.renamed == ['net/stem/w -> net/body/w']
  assert report.dropped == ['net/head/w', 'net/head/b'] and report.kept == ['net/head/w', 'net/head/b']
  text = '\n'.join(report.lines())
  assert 'loaded 1, of these 1 renamed and 0 reshaped; dropped 2; kept initial 2' in text
  assert 'net/stem/w -> net/body/w' in text


def test_reshape_needs_a_rule_and_as_many_entries():
  with pytest.raises(UserError, match=r'net/stem/w has shape \(3, 2\) here, and \(2, 3\) there'):
    warm_start.match({'net/stem/w': THERE['net/stem/w']}, {'net/stem/w': (3, 2)}, (), strict=True)
  chosen, report = warm_start.match({'net/stem/w': THERE['net/stem/w']}, {'net/stem/w': (3, 2)},
                                    (('reshape', '.*stem.*'),), strict=True)
  np.testing.assert_array_equal(chosen['net/stem/w'], [[0, 1], [2, 3], [4, 5]])
  assert report.reshaped == ['net/stem/w (2, 3) -> (3, 2)']
  with pytest.raises(UserError, match='reshape it, or drop'):
    warm_start.match({'net/stem/w': THERE['net/stem/w']}, {'net/stem/w': (3, 3)}, (('reshape', '.*stem.*'),),
                     strict=True)


def test_strict_lists_every_leaf_that_no_rule_covers():
  with pytest.raises(UserError) as error:
    warm_start.match(THERE, HERE, (), strict=True)
  text = str(error.value)
  assert 'net/stem/w there has no place here' in text and 'net/body/w here gets no value' in text
  assert 'net/head/w has shape (3, 4) here, and (3, 10) there' in text and 'net/head/b has shape' in text


def test_not_strict_leaves_out_and_says_so():
  chosen, report = warm_start.match(THERE, HERE, (), strict=False)
  assert not chosen and report.dropped == ['net/stem/w', 'net/head/w', 'net/head/b']
  assert report.kept == ['net/body/w', 'net/head/w', 'net/head/b']


@pytest.mark.parametrize(('rules', 'words'), [
  ((('drop', 'net/typo/.*'),), 'matches nothing'), ((('forget', 'x'),), 'expected'), ((('rename', 'x'),), 'expected'),
  ((('drop', '('),), 'no regular expression'), (('drop',), 'expected'),
  ((('rename', 'net/head/[wb]', 'net/body/w'), ('keep', 'net/head/.*')), 'are both called net/body/w'),
])
def test_bad_rules(rules, words):
  with pytest.raises(UserError, match=words):
    warm_start.match(THERE, HERE, rules, strict=True)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return tmp_path_factory.mktemp('source') / 'checkpoints'


@pytest.mark.parametrize('averaged', [False, True])
def test_parameters_averages_and_mutable_variables_are_taken(source, small_run, averaged):
  checkpoints = Checkpoints(source)
  trained = small_run()
  if not checkpoints.steps():
    loop.train(trained, [hooks.Save(checkpoints, 4, {})])
  trained.restore(checkpoints.restore(trained.target, pytest.fail, 8))
  run, said = small_run(seed=5), []
  report = warm_start.apply(run, checkpoints, 8, said.append, averaged=averaged)
  checkpoints.close()
  expected = trained.state.ema['a']['w'] if averaged else trained.state.params['a']['w']
  np.testing.assert_array_equal(run.state.params['a']['w'], expected)
  np.testing.assert_array_equal(run.state.ema['a']['w'], expected)
  np.testing.assert_array_equal(run.state.params['b']['w'], trained.state.params['b']['w'])
  np.testing.assert_array_equal(run.state.mutable['mean'], trained.state.mutable['mean'])
  assert run.step == 0 and int(run.state.step) == 0 and sorted(report.loaded) == ['a/w', 'b/w', 'mutable/mean']
  assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(run.state.opt))
  assert 'beginning with step 8' in said[-1]
  loop.train(run, [])  # every buffer stands once in the state, or donating it would fail


def test_another_model_does_not_fit_in_silence(source, small_run):
  checkpoints = Checkpoints(source)
  if not checkpoints.steps():
    loop.train(small_run(), [hooks.Save(checkpoints, 4, {})])
  run = small_run()
  before = np.asarray(run.state.params['b']['w'])
  with pytest.raises(UserError, match='no checkpoint of step 5'):
    warm_start.apply(run, checkpoints, 5, pytest.fail)
  warm_start.apply(run, checkpoints, None, lambda line: None, rules=(('drop', 'b/w'), ('keep', 'b/w')))
  np.testing.assert_array_equal(run.state.params['b']['w'], before)
  checkpoints.close()
