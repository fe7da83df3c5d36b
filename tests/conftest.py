"""Fixtures of all tests, and the compilation cache that makes a second run quick."""

import fcntl
import gc
import importlib.util
import json
import mmap
import os
import pathlib
import zlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path('~/.cache/genjax/xla').expanduser()))

# Most of a test is compilation, of programs that run for milliseconds: it takes an eighth of the time without LLVM's
# passes and with XLA's older code for fused loops. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run, as .ci/run
# does for trainings, the README's commands, and exact resume and meshes of diffusion.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
gc.set_threshold(50_000, 20, 100)  # tracing makes many objects that stay: look for cycles among them less often


def _library_has(flag: bytes) -> bool:
  """Whether jaxlib knows a flag of XLA: one that it does not know would stop every process."""
  folder = pathlib.Path(importlib.util.find_spec('jaxlib').origin).parent
  for library in folder.glob('libjax_common*'):
    with open(library, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
      return content.find(flag) >= 0
  return False


# XLA reads its flags when the first program is compiled.
_FLAGS = os.environ.get('XLA_FLAGS', '')
if (os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1' and 'use_fusion_emitters' not in _FLAGS
    and _library_has(b'xla_cpu_use_fusion_emitters')):
  os.environ['XLA_FLAGS'] = f'{_FLAGS} --xla_cpu_use_fusion_emitters=false'.strip()


def pytest_addoption(parser):
  parser.addoption('--update-golden', action='store_true',
                   help='write the golden numbers instead of comparing with them')
  parser.addoption('--part', metavar='I/N', default=os.environ.get('GENJAX_TEST_PART'),
                   help='of the tests that are marked each_network, the I-th of N parts, from 0 to N - 1; else all')


def pytest_collection_modifyitems(config, items):
  """Leaves out what --part=I/N does not name. A case stays in its part when others are added."""
  if not (part := config.getoption('--part')):
    return
  try:
    index, count = map(int, part.split('/'))
  except ValueError:
    raise pytest.UsageError(f'--part={part}: expected I/N, for example 0/3') from None
  if not 0 <= index < count:
    raise pytest.UsageError(f'--part={part}: expected 0 <= I < N')
  other = [item for item in items
           if item.get_closest_marker('each_network') and zlib.crc32(item.name.encode()) % count != index]
  config.hook.pytest_deselected(items=other)
  items[:] = [item for item in items if item not in other]


def pytest_xdist_auto_num_workers(config):
  """A process for each core, at most 4; none beside this one for single files and tests, which begin sooner so."""
  single = config.args and all('.py' in arg for arg in config.args)
  if single or config.getoption('--update-golden'):  # golden numbers of several processes would overwrite each other
    return 0
  return min(4, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)


@pytest.fixture(scope='module', autouse=True)
def few_programs():
  """After a file of tests, forgets compiled programs if the process has more than 4 GiB; thousands fill the memory."""
  yield
  statistics = pathlib.Path('/proc/self/statm')
  if statistics.exists() and int(statistics.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') > 2**32:
    jax.clear_caches()


@pytest.fixture
def shared_data() -> pathlib.Path:
  """The folder of standard data sets in their original files; tests skip where it is absent."""
  folder = pathlib.Path(os.environ.get('GENJAX_SHARED', ROOT.parent / 'shared' / 'data'))
  if not folder.is_dir():
    pytest.skip(f'standard data sets are absent: {folder} is no folder (set GENJAX_SHARED)')
  return folder


@pytest.fixture(scope='session')
def smoke_run(tmp_path_factory):
  """smoke_run('quickstart') -> the folder of the finished run of a config's smoke variant, trained once for all tests.

  It has checkpoints of steps 1 and 2. Tests only read it; one that changes something copies it first. All processes of
  a test run share it.
  """
  base = tmp_path_factory.getbasetemp()
  root = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'smoke_runs'
  root.mkdir(exist_ok=True)

  def train(name: str) -> pathlib.Path:
    from genjax.cli.main import main
    folder = root / name.replace('/', '_')
    with open(root / f'{folder.name}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not (folder / 'summary.json').exists():
        flags = [f'--config={ROOT}/configs/{name}.py:smoke', '--config.checkpoint.every=1']
        assert main(['train', *flags, f'--workdir={folder}']) == 0
    return folder

  return train


@pytest.fixture
def golden(request):
  """golden(name, values): compares with the numbers in tests/golden, or writes them under --update-golden."""
  path = ROOT / 'tests' / 'golden' / 'smoke.json'

  def check(name: str, values: dict[str, float]) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    if request.config.getoption('--update-golden'):
      known[name] = {key: float(f'{value:.7g}') for key, value in sorted(values.items())}
      path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + '\n')
      return
    assert name in known, f'no golden numbers for {name}; run pytest --update-golden and look at the difference'
    assert values == pytest.approx(known[name], rel=2e-4, abs=1e-6)

  return check
