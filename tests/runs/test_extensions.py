"""Imported files: executed once, kept with what they import, and refused with a message that helps."""

import json
import sys

import pytest

from genjax.nn.blocks import ACTIVATIONS
from genjax.runs import code, extensions
from genjax.training.hooks import HOOKS
from genjax.types import UserError

MINE = 'from genjax.nn.blocks import ACTIVATIONS\nACTIVATIONS.add({name!r}, lambda x: {factor} * x)\n'


@pytest.fixture(autouse=True)
def clean(monkeypatch):
  """The import path, modules and tables of before."""
  monkeypatch.setattr(sys, 'path', list(sys.path))
  modules = set(sys.modules)
  yield
  extensions.unload()
  for name in set(sys.modules) - modules:
    if name.startswith('own_'):
      del sys.modules[name]
  assert not {name for name in ACTIVATIONS if name.startswith('own')} and not HOOKS


def keep(workdir, imports):
  """A run directory that keeps imports, and what it has of them."""
  workdir.mkdir(exist_ok=True)
  record = extensions.keep(workdir, imports)
  (workdir / 'run.json').write_text(json.dumps({'paths': [], 'data': {}, **record}))
  return record


def test_a_file_is_executed_once_and_anew_when_it_changed(tmp_path):
  mine = tmp_path / 'own_file.py'
  mine.write_text(MINE.format(name='own', factor=2))
  extensions.load([str(mine)])
  first = ACTIVATIONS['own']
  extensions.load([str(mine)])
  assert ACTIVATIONS['own'] is first and first(3) == 6
  mine.write_text(MINE.format(name='own', factor=5))
  extensions.load([str(mine)])
  assert ACTIVATIONS['own'](3) == 15


def test_what_a_file_imports_from_its_folder_is_kept_and_found(tmp_path):
  for number in (2, 5):
    folder = tmp_path / f'folder{number}'
    (folder / 'own_package').mkdir(parents=True)
    (folder / 'own_file.py').write_text('import numpy\nfrom own_numbers import FACTOR\n'
                                        + MINE.format(name='own', factor='FACTOR'))
    (folder / 'own_numbers.py').write_text('from own_package.inner import FACTOR\n')
    (folder / 'own_package' / '__init__.py').write_text('')
    (folder / 'own_package' / 'inner.py').write_text(f'FACTOR = {number}\n')
    (folder / 'own_other.py').write_text('raise RuntimeError\n')
    record = keep(tmp_path / f'run{number}', [str(folder / 'own_file.py')])
    assert [name for name, _ in record['code']] == [
      'own_file.py', 'own_numbers.py', 'own_package/__init__.py', 'own_package/inner.py']
  for number in (2, 5, 2):  # each run uses its own files
    extensions.load_kept(tmp_path / f'run{number}')
    assert ACTIVATIONS['own'](3) == 3 * number


def test_a_module_of_a_package_is_kept_with_it(tmp_path):
  package = tmp_path / 'folder' / 'own_package'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text('')
  (package / 'factors.py').write_text('FACTOR = 7\n')
  (package / 'parts.py').write_text('from .factors import FACTOR\n' + MINE.format(name='own', factor='FACTOR'))
  sys.path.insert(0, str(package.parent))
  extensions.load(['own_package.parts'])
  assert ACTIVATIONS['own'](1) == 7
  record = keep(tmp_path / 'run', ['own_package.parts'])
  assert record['imports'] == ['own_package.parts'] and len(record['code']) == 3
  extensions.unload()
  for name in [name for name in sys.modules if name.startswith('own_package')]:
    del sys.modules[name]
  sys.path.remove(str(package.parent))
  extensions.load_kept(tmp_path / 'run')
  assert sys.modules['own_package.parts'].__file__ == str(tmp_path / 'run' / 'imports' / 'own_package' / 'parts.py')


def test_installed_packages_are_named_and_not_copied(tmp_path):
  assert keep(tmp_path / 'run', ['optax.contrib']) == {'imports': ['optax.contrib'], 'code': []}
  assert extensions.kept(tmp_path / 'run') == ['optax.contrib']


@pytest.mark.parametrize('text, message', [
  ('x = 1\n\ny = 1 / 0\n', r'own_file.py failed, line 3: ZeroDivisionError'),
  ('def f(:\n', r'own_file.py is not valid Python'),
  (MINE.format(name='own', factor=1) + MINE.format(name='relu', factor=1), r"own_file.py: .*'relu' exists already"),
])
def test_a_file_that_fails_adds_nothing(tmp_path, text, message):
  (tmp_path / 'own_file.py').write_text(text)
  with pytest.raises(UserError, match=message):
    extensions.load([str(tmp_path / 'own_file.py')])
  assert 'own' not in ACTIVATIONS and 'own_file' not in sys.modules


@pytest.mark.parametrize('name, message', [
  ('nothing.py', 'no such file'), ('own_nothing', 'no such module'), ('own-nothing', 'no such module')])
def test_what_is_not_there(name, message):
  with pytest.raises(UserError, match=message):
    extensions.load([name])


@pytest.mark.parametrize('name', ['random.py', 'numpy.py', 'own-file.py'])
def test_names_of_other_modules_are_refused(tmp_path, name):
  (tmp_path / name).write_text('')
  with pytest.raises(UserError, match='rename the file'):
    extensions.load([str(tmp_path / name)])


def test_a_hook_belongs_to_the_runs_that_import_it(tmp_path):
  mine = tmp_path / 'own_file.py'
  mine.write_text('from genjax.training.hooks import HOOKS\nHOOKS.add("own", lambda workdir: workdir)\n')
  extensions.load([str(mine)])
  assert extensions.hooks(tmp_path, [str(mine)]) == [tmp_path]
  assert extensions.hooks(tmp_path, []) == []
  HOOKS.add('by_hand', lambda workdir: 'made')
  assert extensions.hooks(tmp_path, []) == ['made']
  del HOOKS['by_hand']


def test_files_of_one_name_and_changed_files_are_refused(tmp_path):
  for number in (1, 2):
    (tmp_path / str(number)).mkdir()
    (tmp_path / str(number) / 'own_file.py').write_text(f'NUMBER = {number}\n')
  with pytest.raises(UserError, match=r'two different files are called own_file\.py'):
    code.keep(tmp_path / 'run', [tmp_path / '1' / 'own_file.py', tmp_path / '2' / 'own_file.py'])
  kept = code.keep(tmp_path / 'run', [tmp_path / '1' / 'own_file.py'])
  code.check(tmp_path / 'run', kept)
  (tmp_path / 'run' / 'imports' / 'own_file.py').write_text('NUMBER = 2\n')
  with pytest.raises(UserError, match='is not the file that the run began with'):
    code.check(tmp_path / 'run', kept)
  (tmp_path / 'run' / 'imports' / 'own_file.py').unlink()
  with pytest.raises(UserError, match='is missing'):
    code.check(tmp_path / 'run', kept)
  with pytest.raises(UserError, match='outside of'):
    code.check(tmp_path / 'run', [['../run.json', '']])
