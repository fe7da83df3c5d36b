"""The import rules and sizes of the design, checked on the syntax trees of every file."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path for folder in ('genjax', 'experiments', 'configs') for path in (ROOT / folder).rglob('*.py'))

# package -> what of the project it may import; prefixes, so that 'genjax.nn' covers
# 'genjax.nn.attention.self_attention'
ALLOWED = {
  'genjax.types': (),
  'genjax.checks': ('genjax.types',),
  'genjax.tables': ('genjax.types',),
  'genjax.options': ('genjax.types',),
  'genjax.artifacts': ('genjax.types', 'genjax.data.audio.mel', 'genjax.data.video.films'),
  'genjax.config': ('genjax.types', 'genjax.options'),
  'genjax.sharding': ('genjax.types',),
  'genjax.products': ('genjax.types',),
  'genjax.reduction': ('genjax.types', 'genjax.sharding', 'genjax.products'),
  'genjax.cluster': ('genjax.types',),
  'genjax.distributed': ('genjax.types', 'genjax.cluster'),
  'genjax.coordinator': (),
  'genjax.nn': ('genjax.types', 'genjax.sharding', 'genjax.reduction', 'genjax.nn'),
  'genjax.models': ('genjax.types', 'genjax.sharding', 'genjax.reduction', 'genjax.nn', 'genjax.models'),
  'genjax.diffusion': ('genjax.types', 'genjax.diffusion'),
  'genjax.objectives': ('genjax.types', 'genjax.sharding', 'genjax.reduction', 'genjax.diffusion',
                        'genjax.nn.cpu', 'genjax.nn.functional', 'genjax.nn.linear', 'genjax.nn.lora',
                        'genjax.nn.quantizers',
                        'genjax.objectives'),
  'genjax.training': ('genjax.types', 'genjax.artifacts', 'genjax.sharding', 'genjax.reduction', 'genjax.distributed',
                      'genjax.objectives.base', 'genjax.training'),
  'genjax.planning': ('genjax.types', 'genjax.training', 'genjax.planning'),
  'genjax.data': ('genjax.types', 'genjax.distributed', 'genjax.data'),
  'genjax.metrics': ('genjax.types', 'genjax.metrics'),
  'genjax.interop': ('genjax.types', 'genjax.models', 'genjax.nn', 'genjax.interop'),
  'genjax.runs': ('genjax.types', 'genjax.artifacts', 'genjax.options', 'genjax.config', 'genjax.sharding',
                  'genjax.distributed', 'genjax.training',
                  'genjax.objectives.base', 'genjax.data', 'genjax.metrics', 'genjax.interop.files', 'genjax.runs',
                  'genjax.__version__'),
  'genjax.studies': ('genjax.types', 'genjax.config', 'genjax.runs', 'genjax.metrics', 'genjax.data.prepared',
                     'genjax.studies'),
  'genjax.cli': ('genjax.types', 'genjax.options', 'genjax.config', 'genjax.sharding', 'genjax.cluster',
                 'genjax.distributed',
                 'genjax.runs', 'genjax.studies',
                 'genjax.training', 'genjax.planning', 'genjax.objectives.base', 'genjax.data',
                 'genjax.metrics', 'genjax.nn.functional', 'genjax.interop.files', 'genjax.cli', 'genjax.__version__'),
  'configs': ('genjax.configs.common', 'genjax.configs.sweeps'),
}
PLAIN = ('ast', 'typing', 'math', 'collections', 'dataclasses', 'itertools', 'random')  # what configs use of Python
LAZY = ('genjax.runs.api', 'genjax.types')  # what `import genjax` gives, once it is used
EVERYWHERE = ('genjax.checks', 'genjax.tables')  # what every package but genjax.types may import
FAMILIES = re.compile(
  r'\b(gan|vae|elbo|diffusion|flow|language|lm|transformer|discriminator|generator|token|denois\w*)s?\b', re.I)


def module_name(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


def imports(path: pathlib.Path) -> set[str]:
  """Every module, and every name of a module, that a file imports; `from a import b` counts as `a.b`."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      found.update(f'{node.module}.{alias.name}' for alias in node.names)
  return found


def within(name: str, prefixes: tuple[str, ...]) -> bool:
  return any(name == prefix or name.startswith(f'{prefix}.') for prefix in prefixes)


def test_imports():
  for path in FILES:  # one test for all: each takes a hundredth of a second, and its own set-up took longer
    check_imports(path)


def check_imports(path):
  name = module_name(path)
  used = imports(path)
  assert not any(item.endswith('.*') for item in used), f'{name}: import *'
  for package, allowed in ALLOWED.items():
    if within(name, (package,)) and name != 'configs':
      own = {
        item for item in used if within(item, ('genjax', 'experiments', 'configs')) and not within(item, EVERYWHERE)
      }
      assert not {item for item in own if not within(item, allowed)}, f'{name}: {package} may import {allowed}'
  if not within(name, ('genjax.nn', 'genjax.models')):
    assert not {item for item in used if within(item, ('flax.nnx',))}, f'{name}: flax.nnx belongs to nn and models'
  if not within(name, ('configs', 'experiments', 'genjax.config', 'genjax.runs', 'genjax.cli')):
    assert not {item for item in used if within(item, ('ml_collections',))}, f'{name}: configs end at the builders'
  if within(name, ('configs',)):
    assert not {
      item for item in used if not within(item, ('ml_collections', 'genjax.configs.common', 'genjax.configs.sweeps',
                                                 *PLAIN))
    }, f'{name}: configs are numbers only'
  if name == 'genjax':
    assert not {item for item in used if within(item, ('jax', 'numpy', 'ml_collections'))}, 'import genjax is light'
    assert not {item for item in used if within(item, ('genjax',)) and not within(item, LAZY)}
  if not within(name, ('genjax.cli',)):
    assert not {item for item in used if within(item, ('genjax.cli',))}, 'commands are on top: nothing imports them'
  if not within(name, ('genjax.cli', 'genjax.studies')):
    assert not {item for item in used if within(item, ('genjax.studies',))}, 'studies stand on runs'
  if within(name, ('genjax',)):
    assert not {
      item for item in used
      if within(item, ('tensorflow', 'torch', 'experiments', 'configs', 'genjax.experiments', 'genjax.configs'))
    }, f'{name}: genjax finds builders and configs by name'


def test_sizes_and_names():
  for path in FILES:
    lines = len(path.read_text().splitlines())
    assert lines <= (150 if path.name in ('loop.py', 'step.py') else 420), path
    assert path.stem not in ('utils', 'util', 'misc', 'helpers', 'common_utils'), path


@pytest.mark.parametrize('name', ['loop.py', 'step.py', 'run.py', 'program.py', 'progress.py', 'scoring.py',
                                  'drawing.py', 'state.py', 'hooks.py', 'checkpoints/checkpoint.py'])
def test_training_names_no_family(name):
  text = (ROOT / 'genjax' / 'training' / name).read_text()
  # 'flow' and 'token' are also ordinary words; the training files have no use for them either.
  assert not FAMILIES.findall(text)


def test_nnx_constructs_only():
  """NNX transforms and its optimizer carry hidden state through jit; networks leave as pure functions."""
  banned = {
    'jit', 'grad', 'value_and_grad', 'scan', 'vmap', 'pmap', 'remat', 'Optimizer', 'Metric', 'MultiMetric', 'Dropout'
  }
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == 'nnx':
        assert node.attr not in banned, f'{path}:{node.lineno} nnx.{node.attr}'


def test_one_loop():
  """Only the train step computes gradients for training: nothing else applies optimizer updates."""
  users = [module_name(path) for path in FILES if 'apply_updates' in path.read_text()]
  assert users == ['genjax.training.step']


def test_public_docstrings():
  missing = []
  for path in FILES:
    tree = ast.parse(path.read_text())
    if path.name != '__init__.py' and not ast.get_docstring(tree):
      missing.append(f'{path.name}')
    for node in tree.body:
      public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_')
      if public and node.name != 'get_config' and not ast.get_docstring(node):
        missing.append(f'{path.name}:{node.lineno} {node.name}')
  assert not missing
