"""Rows of baselines: what they may say, what is said of their results, and how results are kept."""

import json
import pathlib
import re

import pytest

from genjax.studies import jobs, originals, reproducing, results, results_page, rows, sweeps, verdicts
from genjax.studies.baselines import Comparison, Metric, Row, outside
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
STORED = ROOT / 'docs' / 'results'


def row(name='a', metric=None, **options):
  metric = metric or Metric('heldout/loss', (None, 2.0), label='loss')
  return Row(name, 'configs/quickstart.py:smoke', (metric,), **options)


def result(name='a', values=(1.5,), metric='heldout/loss', config=None):
  found = {seed: {'values': {metric: value}, 'card': {'step': 2}, 'seconds': 61.0, 'devices': '1 x cpu'}
           for seed, value in enumerate(values)}
  return results.Result(name, config or {'steps': 2}, (), found)


def test_every_row_names_what_there_is_and_its_config_takes_its_overrides():
  table = rows.table()
  reproducing.check_table(table)
  for one in table.values():
    config = reproducing.config(table, one)
    assert config['experiment'] and 'seed' not in config
    assert not [value for value in config.values() if isinstance(value, str) and value.startswith('/')]
    assert all(metric.source or not metric.published for metric in one.metrics), one.name
    assert one.minutes is None or one.minutes >= 5 or len(one.seeds) >= 3, f'{one.name}: three seeds if they are cheap'


def test_the_small_biggan_is_compared_with_itself_before_training():
  table = rows.table()
  before, after = (reproducing.config(table, table[name])
                   for name in ('cifar10_biggan_small_initial', 'cifar10_biggan_small'))
  different = {key for key in {*before, *after} if before.get(key) != after.get(key)}
  assert different == {'steps', 'evaluation.measures'} and (before['steps'], after['steps']) == (0, 4000)
  known = {name: result(name, (value,), 'frechet/distance', {})
           for name, value in (('cifar10_biggan_small', 3.0), ('cifar10_biggan_small_initial', 10.0))}
  assert verdicts.of(table['cifar10_biggan_small'], known)[-1].state == 'inside'
  known['cifar10_biggan_small'].runs[0]['values']['frechet/distance'] = 5.0
  assert verdicts.of(table['cifar10_biggan_small'], known)[-1].state == 'outside'


def test_the_page_is_that_of_the_stored_results():
  page = (ROOT / 'docs' / 'results.md').read_text(encoding='utf-8')
  assert page == results_page.of_folder(STORED), 'run genjax reproduce --page=docs/results.md'


def test_stored_results_are_of_rows_as_they_are_now():
  table = rows.table()
  assert {path.stem for path in STORED.glob('*.json')} <= set(table)
  for name, found in results.stored(STORED, list(table)).items():
    assert not results.differences(found.config, reproducing.config(table, table[name])), name
    assert found.evaluate == table[name].evaluate
    for run in found.runs.values():
      assert run['card'] and all(run['versions'].values())
      assert {metric.name for metric in table[name].metrics} <= set(run['values'])
    assert not re.search(r'"/|"~', (STORED / f'{name}.json').read_text()), 'a path of somebody'


@pytest.mark.parametrize('wrong', [
  lambda: row('Upper case'), lambda: row(seeds=()), lambda: row(seeds=(1, 1)), lambda: Metric('a', (2.0, 1.0)),
  lambda: Comparison('a', (None, 1.0)), lambda: Comparison('a', (None, 1.0), row='b', how='product')])
def test_rows_that_make_no_sense(wrong):
  with pytest.raises(ValueError):
    wrong()


def test_how_far_outside():
  assert outside(1.0, (0.5, 1.0)) == outside(-5.0, (None, None)) == 0
  assert outside(0.25, (0.5, 1.0)) == -0.25 and outside(3.0, (None, 1.0)) == 2
  assert outside(float('nan'), (None, 1.0)) != 0


def test_a_value_outside_is_told_with_the_distance():
  one = row(metric=Metric('heldout/loss', (None, 1.4), label='loss'), seeds=(0, 1))
  known = {'a': result(values=(1.5, 1.7))}
  [found] = verdicts.of(one, known)
  assert (found.state, found.obtained, found.why) == ('outside', '1.6 (1.5 to 1.7)', 'loss is 1.6, above 1.4 by 0.2')
  low = row(metric=Metric('heldout/loss', (0.9, None), label='share', percent=True))
  assert verdicts.of(low, {'a': result(values=(0.85,))})[0].why == 'share is 85 %, below 90 % by 5 %'
  each = row(metric=Metric('heldout/loss', (None, 1.6), label='loss', each=True), seeds=(0, 1))
  assert verdicts.of(each, known)[0].why == 'loss of seed 1 is 1.7, above 1.6 by 0.1'


def test_the_mean_counts_and_not_each_seed():
  one = row(metric=Metric('heldout/loss', (None, 1.6), label='loss'), seeds=(0, 1))
  known = {'a': result(values=(1.5, 1.7))}
  assert not verdicts.complaints(one, verdicts.of(one, known), known['a'])


def test_what_is_not_measured_is_no_success():
  one = row(seeds=(0, 1, 2))
  said = verdicts.complaints(one, verdicts.of(one, {}), None)
  assert said == ['a: loss is not measured', 'a: seeds 0, 1, 2: not run']
  part = result(values=(1.5,))
  part.missing[2] = 'failed'
  said = verdicts.complaints(one, verdicts.of(one, {'a': part}), part)
  assert said == ['a: seed 1: not run', 'a: seed 2: failed']
  other = result(metric='heldout/other')
  assert 'is not in the evaluation of seed 0' in verdicts.of(one, {'a': other})[0].why
  infinite = verdicts.of(row(), {'a': result(values=(float('inf'),))})[0]
  assert infinite.state == 'outside'


@pytest.mark.parametrize('how, limits, value, state', [
  ('ratio', (None, 0.5), '0.75', 'outside'), ('ratio', (0.7, 0.8), '0.75', 'inside'),
  ('difference', (None, 0.0), '-0.5', 'inside')])
def test_rows_that_are_compared(how, limits, value, state):
  one = row('a', comparisons=(Comparison('heldout/loss', limits, row='b', how=how),))
  known = {'a': result(), 'b': result('b', values=(2.0,))}
  found = verdicts.of(one, known)[1]
  assert (found.obtained, found.state) == (value, state)
  assert found.label == f'loss {"/" if how == "ratio" else "−"} that of b'
  missing = verdicts.of(one, {'a': result()})[1]
  assert missing.state == 'not measured' and 'b is not measured' in missing.why


def test_results_are_read_as_they_were_written_and_those_of_other_machines_stay(tmp_path):
  first, second = result(values=(1.5, 1.6)), result(values=())
  second.runs[1], second.runs[2] = {**first.runs[1], 'values': {'heldout/loss': 9.0}}, first.runs[0]
  first.missing[2] = 'not begun'
  results.keep({'a': first}, tmp_path / 'new')
  assert results.read(tmp_path / 'new' / 'a.json') == first
  kept = results.keep({'a': second}, tmp_path / 'new')['a']
  assert kept.values('heldout/loss') == {0: 1.5, 1: 9.0, 2: 1.5} and not kept.missing
  empty = results.Result('a', {'steps': 3}, (), {}, {0: 'not begun'})
  assert results.merged(kept, empty) == kept  # nothing is known of another setting yet
  other = result(config={'steps': 3})
  assert results.merged(kept, other) == other
  (tmp_path / 'new' / 'a.json').write_text('{"row": "a"}')
  with pytest.raises(UserError, match='damaged'):
    results.read(tmp_path / 'new' / 'a.json')


def test_the_commit_of_a_run_stays_when_the_code_goes_on(tmp_path):
  run = tmp_path / 'a' / 'seed=0'
  run.mkdir(parents=True)
  for name, value in {'summary.json': {'step': 2, 'seconds': 1.0}, 'run.json': {'source': 'then', 'devices': '1 x cpu'},
                      'evaluation.json': {'metrics': {}, 'card': {'step': 2}}, 'job.json': {'evaluated': []}}.items():
    (run / name).write_text(json.dumps(value))
  task = jobs.Task('a/seed=0', run, 2, ('true',), ('true',))
  before = results.Result('a', {}, (), {0: {'values': {}, 'card': {}, 'source': 'then', 'commit': 'abc'}})
  found = lambda known: results.collect(row(), {}, {0: task}, {}, known).runs[0]
  assert found(before)['commit'] == 'abc' and 'commit' not in found(None)
  before.runs[0]['source'] = 'another'
  assert 'commit' not in found(before)


def test_no_paths_of_a_machine_are_kept():
  config = {'seed': 1, 'init_from': '/x/runs/b/seed=0', 'data': {'originals': '/data', 'name': 'n'}}
  flat = results.without_paths(config, {'/x/runs/b/seed=0': 'b/seed=0'})
  assert flat == {'init_from': 'b/seed=0', 'data.originals': '', 'data.name': 'n'}


def test_rows_are_chosen_by_name_pattern_and_cost():
  table = {one.name: one for one in (row('ab', minutes=1), row('ac', minutes=40),
                                     row('big', accelerator_minutes=2, seeds=(3,)))}
  pick = lambda *arguments: [one.name for one in reproducing.choose(table, *arguments)]
  assert pick(['a*'], None, False) == ['ab', 'ac'] and pick(['*'], None, False) == ['ab', 'ac', 'big']
  assert pick([], 30.0, False) == ['ab'] and pick([], 30.0, True) == ['ab', 'big']
  with pytest.raises(UserError, match="no row 'abb'. Did you mean 'ab'"):
    pick(['abb'], None, False)


def test_rows_go_after_those_that_they_stand_on():
  table = {one.name: one for one in (
    row('top', uses={'init_from': 'base'}, comparisons=(Comparison('heldout/loss', (None, 1.0), row='rival'),)),
    row('base'), row('rival', uses={'init_from': 'base'}))}
  assert [one.name for one in reproducing.with_needed(table, [table['top']])] == ['base', 'top', 'rival']
  table['base'] = row('base', uses={'init_from': 'top'})
  with pytest.raises(UserError, match='stands on itself: top on base on top'):
    reproducing.with_needed(table, [table['top']])
  with pytest.raises(UserError, match="names the row 'tip', which is not there. Did you mean 'top'"):
    reproducing.check_table({**table, 'base': row('base', uses={'init_from': 'tip'})})
  with pytest.raises(UserError, match='mnits'):
    reproducing.check_table({'a': row(data=('mnits',))})


def test_a_run_that_goes_on_elsewhere_finds_what_it_stands_on(tmp_path):
  table = {one.name: one for one in (row('base'), row('top', uses={'init_from': 'base'}))}
  before = reproducing.plan(table, table['top'], tmp_path / 'before', None)
  assert before.config['init_from'] == 'base/seed=0'
  sweeps.write(before.sweep, before.folder)
  run = before.folder / 'seed=0' / 'config.json'
  run.parent.mkdir()
  run.write_text(json.dumps(before.sweep.settings[0].config))
  (tmp_path / 'before').rename(tmp_path / 'after')
  after = reproducing.plan(table, table['top'], tmp_path / 'after', None)
  assert after.config == before.config
  reproducing._repoint(after)
  there = json.loads((after.folder / 'seed=0' / 'config.json').read_text())
  assert there['init_from'] == str(tmp_path / 'after' / 'base' / 'seed=0')
  assert there == after.sweep.settings[0].config


def test_original_files_are_found_by_folder(tmp_path):
  (tmp_path / 'fsdd').mkdir()
  assert originals.folder('free_spoken_digits', tmp_path) is None
  assert '--from' in originals.lacking('free_spoken_digits', tmp_path)
  (tmp_path / 'fsdd' / 'fsdd.npz').write_bytes(b'')
  assert originals.folder('free_spoken_digits', tmp_path) == tmp_path / 'fsdd'
  assert originals.make(['free_spoken_digits'], tmp_path) == {}
  assert list(originals.make(['free_spoken_digits'], None)) == ['free_spoken_digits']


def test_the_page_says_what_was_not_run_and_hides_results_of_other_settings():
  done = row('done', metric=Metric('heldout/loss', (None, 1.0), '0.9', 'Somebody 2020, table 1', label='loss'))
  family = {'Some': [done, row('never', minutes=50.0), row('big', accelerator_minutes=3), row('old', minutes=1.0)]}
  never = results.Result('never', {'steps': 2}, (), {}, {0: 'why'})
  now = {'done': {'steps': 2}, 'old': {'steps': 9}, 'never': {'steps': 2}, 'big': {}}
  text = results_page.page(family, {'done': result('done'), 'old': result('old'), 'never': never}, now)
  assert '| `done` | loss | 0.9 | at most 1 | **1.5, outside** | 1 | 01:01 |' in text
  assert 'Source: Somebody 2020, table 1.' in text
  absent = text[text.index('## Not run here'):]
  assert re.search(r'`never`.* why \|', absent) and re.search(r'`big`.* it needs an accelerator \|', absent)
  assert re.search(r'`old`.* of another setting \|', absent) and '`done`' not in absent


def test_the_page_has_values_of_the_seeds_and_the_evaluation_of_the_rows():
  versus = Comparison('heldout/loss', (None, 0.0), row='b', how='difference')
  family = {'Some': [row('a', comparisons=(versus,)), row('b')]}
  known = {'a': result('a', (1.5, 9.0)), 'b': result('b', (1.0, 9.0))}  # seed 1 is no longer one of the rows
  text = results_page.page(family, known, dict.fromkeys('ab', {'steps': 2}))
  assert '| loss − that of b |  | at most 0 | **0.5, outside** |' in text
  family = {'Some': [row('a', evaluate=('--step=best',))]}
  text = results_page.page(family, known, {'a': {'steps': 2}})
  assert '1.5' not in text and re.search(r'`a`.* of another setting \|', text)


def test_the_list_has_three_forms():
  table = {'a': row(minutes=2.0, data=('mnist',))}
  shown = {form: results_page.listed(table, {'a': result()}, {'mnist': 'why'}, form) for form in results_page.FORMS}
  assert shown['csv'].splitlines()[1] == 'a,configs/quickstart.py:smoke,loss,,at most 2,0,2,mnist (absent),inside,1.5'
  assert '| loss |  | at most 2 | 0 | 2 | mnist (absent) | inside | 1.5 |' in shown['markdown']
  assert 'mnist (absent)' in shown['text'] and 'inside' in shown['text']
  with pytest.raises(UserError, match='--format'):
    results_page.listed(table, {}, {}, 'html')
