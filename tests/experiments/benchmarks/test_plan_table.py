"""The table of plans: rows from reports, kept rows, rows that fail. Reports are written by hand; `tests/cli` makes real
ones."""

import subprocess

import pytest

from genjax.experiments.benchmarks import plan_table
from genjax.planning.topology import GIB

REPORT = {
  'parameters': 7_000_000_000, 'mesh': {'fsdp': 64, 'tensor': 2}, 'fits': True, 'shortfall': 0,
  'compiler': 'libtpu 1.2', 'bytes_per_device': {
    'parameters': GIB, 'optimizer': 2 * GIB, 'averages': 0, 'mutable': 0, 'frozen': 0, 'peak': 40 * GIB,
    'limit': int(95.74 * GIB)
  }, 'collectives': {
    'all-gather': {'count': 3, 'bytes': 5 * GIB}, 'all-reduce': {'count': 1, 'bytes': 9 * GIB},
    'all-to-all': {'count': 1, 'bytes': 17}
  }, 'roofline': {'overlapped': 1.5, 'serial': 2.5, 'mfu_overlapped': 0.6, 'mfu_serial': 0.36, 'bound': 'compute'},
}


def test_a_row_of_the_table():
  cells = [
    cell.strip()
    for cell in plan_table.line(plan_table.Row('Model', 'x.py --topology=v5p:4x4x8'), REPORT).strip('|').split('|')
  ]
  assert len(cells) == plan_table.HEADER.count('|') - 1
  assert cells == [
    'Model', '`x.py --topology=v5p:4x4x8`', '7,000,000,000', 'fsdp 64, tensor 2', '40.0 of 95.74 GiB', '3.00 GiB',
    'all-reduce 9 GiB; all-gather 5 GiB', '1.50 to 2.50 s', '36% to 60% (compute)', 'yes (libtpu 1.2)'
  ]


def test_a_row_that_does_not_fit():
  changes = {'fits': False, 'shortfall': 3 * GIB, 'collectives': None, 'roofline': None}
  text = plan_table.line(plan_table.Row('Model', 'x'), REPORT | changes)
  assert 'no, 3.0 GiB too much' in text and '| - | - | - |' in text


def test_the_table_keeps_the_rows_that_are_not_planned(tmp_path, monkeypatch, capsys):
  page = tmp_path / 'plans.md'
  page.write_text(f'above\n{plan_table.BEGIN}\n{plan_table.END}\nbelow\n')
  monkeypatch.setattr(plan_table, 'ROWS', (plan_table.Row('One', 'one.py'), plan_table.Row('Two', 'two.py')))

  def run(report, *argv):
    monkeypatch.setattr(plan_table, 'report', report)
    monkeypatch.setattr('sys.argv', ['plan_table', f'--out={page}', *argv])
    return plan_table.main()

  assert run(lambda row: REPORT) == 0
  first = page.read_text()
  assert first.startswith('above\n') and first.endswith('below\n') and first.count('| yes') == 2
  assert run(lambda row: REPORT | {'parameters': 5}, '--only=TWO') == 0
  second = page.read_text()
  assert second.count('7,000,000,000') == 1 and '`two.py` | 5 |' in second and second.index('One') < second.index('Two')

  def fail(row):
    raise subprocess.CalledProcessError(2, 'plan', '', 'libtpu is missing')

  assert run(fail) == 1 and page.read_text() == second
  assert 'libtpu is missing' in capsys.readouterr().err


@pytest.mark.parametrize('row', plan_table.ROWS, ids=lambda row: row.name)
def test_every_row_names_a_config(row):
  assert (plan_table.ROOT / 'configs' / row.arguments.partition(':')[0].split()[0]).is_file()
