"""Installed in four ways, genjax runs in a folder that has `configs` and `experiments` of the user's own.

The environments are new, and see the packages of the test environment but no genjax of it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
SOURCES = ('genjax', 'configs', 'experiments', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')
CONFIG = """
from genjax.configs import quickstart
from configs.mine_too import SEED

def get_config(arg=None):
  config = quickstart.get_config('smoke')
  config.experiment = 'experiments.mine'
  config.seed = SEED
  return config
"""
BUILDER = """
import pathlib
from experiments import images  # a name that genjax has too

def build(config):
  pathlib.Path('built.txt').write_text(images.WHOSE)
  from genjax.experiments import diffusion
  return diffusion.build(config)
"""
SCRIPT = """
import configs, configs.mine, experiments.images, genjax, pathlib
assert experiments.images.WHOSE == 'theirs'
print(*configs.__path__, sep='|')
print(pathlib.Path(genjax.__file__).parent)
"""


def run(*argv, cwd, **environment):
  """Standard output of a command that must succeed."""
  kept = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
  done = subprocess.run([str(arg) for arg in argv], cwd=cwd, capture_output=True, text=True, timeout=300,
                        env={**kept, **environment})
  assert done.returncode == 0, f'{argv}\n{done.stdout}\n{done.stderr}'
  return done.stdout


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  """A copy of what is packaged, so that no build leaves files in the checkout or finds those of an earlier one."""
  folder = tmp_path_factory.mktemp('packaging') / 'checkout'
  folder.mkdir()
  for name in SOURCES:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(ROOT / name, folder)
  return folder


@pytest.fixture(scope='module')
def source_archive(sources):
  """The source distribution."""
  code = "import setuptools.build_meta as backend; backend.build_sdist('sdist')"
  run(sys.executable, '-c', code, cwd=sources)
  return next((sources / 'sdist').glob('*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(source_archive, tmp_path_factory):
  """The wheel, built from the source distribution as an index would serve it."""
  folder = tmp_path_factory.mktemp('wheel')
  run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--wheel-dir', folder, source_archive, cwd=folder)
  return next(folder.glob('genjax_research-*.whl'))


@pytest.fixture
def users_folder(tmp_path):
  """A folder with a config and a builder of the user's own; its folders have no `__init__.py`, as most have none."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'experiments').mkdir()
  (tmp_path / 'configs' / 'mine.py').write_text(CONFIG)
  (tmp_path / 'configs' / 'mine_too.py').write_text('SEED = 7\n')
  (tmp_path / 'experiments' / 'mine.py').write_text(BUILDER)
  (tmp_path / 'experiments' / 'images.py').write_text("WHOSE = 'theirs'\n")
  return tmp_path


def environment(folder, install=()):
  """The Python of a new environment in which `pip install` ran with these arguments."""
  venv.create(folder, with_pip=False)
  python = folder / 'bin' / 'python'
  site = run(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
  # A folder named by a .pth file has its own .pth files ignored, editable installs of genjax among them
  pathlib.Path(site, 'packages_of_tests.pth').write_text(sysconfig.get_path('purelib') + '\n')
  if install:
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--ignore-installed', *install,
        cwd=folder)
  return python


def python_files(folder):
  """Modules of a folder and of the folders in it, relative to it."""
  return {path.relative_to(folder).as_posix() for path in folder.rglob('*.py')}


@pytest.mark.slow
def test_a_wheel_and_a_source_archive_hold_genjax_alone(wheel, source_archive, sources):
  names = zipfile.ZipFile(wheel).namelist()
  metadata = next(name for name in names if name.endswith('.dist-info/METADATA'))
  assert {name.partition('/')[0] for name in names} == {'genjax', metadata.partition('/')[0]}
  modules = {name.removeprefix('genjax/') for name in names if name.endswith('.py')}
  linked = {f'{link}/{name}' for link in ('configs', 'experiments') for name in python_files(sources / link)}
  assert modules == python_files(sources / 'genjax') | linked
  assert {f'genjax/studies/report/templates/page.{ending}' for ending in ('html.jinja', 'css', 'js')} <= set(names)
  lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
  for line in ('Name: genjax-research', 'License-Expression: Apache-2.0', 'License-File: LICENSE',
               'Requires-Python: >=3.11'):
    assert line in lines
  with tarfile.open(source_archive) as archive:
    members = archive.getmembers()
  assert not [member.name for member in members if member.issym()]
  assert not [member.name for member in members if '/tests' in member.name]


@pytest.mark.slow
@pytest.mark.parametrize('way', ['wheel', 'plain', 'editable', 'checkout'])
def test_runs_beside_folders_of_the_users(way, request, sources, users_folder, tmp_path_factory):
  install = {
    'wheel': lambda: [request.getfixturevalue('wheel')], 'plain': lambda: [sources],
    'editable': lambda: ['--editable', sources], 'checkout': list
  }[way]()
  python = environment(tmp_path_factory.mktemp(way), install)
  paths = {} if install else {'PYTHONPATH': str(sources)}
  genjax = [python.with_name('genjax')] if install else [python, '-m', 'genjax.cli.main']

  assert run(*genjax, '--version', cwd=users_folder, **paths).startswith('genjax 0.')
  run(*genjax, 'train', '--config=configs/mine.py', '--workdir=run', cwd=users_folder, **paths)
  assert (users_folder / 'built.txt').read_text() == 'theirs'
  assert '"seed": 7' in (users_folder / 'run' / 'config.json').read_text()
  assert 'parameters' in run(*genjax, 'inspect', '--config=configs/quickstart.py:smoke', cwd=users_folder, **paths)

  (users_folder / 'script.py').write_text(SCRIPT)
  folders, origin = run(python, 'script.py', cwd=users_folder, **paths).strip().splitlines()
  theirs, *others = folders.split('|')
  assert theirs == str(users_folder / 'configs')
  if way in ('wheel', 'plain'):
    assert not others and pathlib.Path(origin).is_relative_to(python.parents[1])
    code = "from importlib.util import find_spec; print([find_spec(name) for name in ('configs', 'experiments')])"
    assert run(python, '-c', code, cwd=python.parent).strip() == '[None, None]'
    check = subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'check'], capture_output=True, text=True)
    assert 'genjax' not in check.stdout
  else:
    assert pathlib.Path(origin) == sources / 'genjax'
