"""JSON that is written has no NaN and no Infinity, which other readers refuse."""

import ast
import json
import pathlib

import numpy as np
import pytest

from genjax.interop import files
from genjax.types import strict_json

ROOT = pathlib.Path(__file__).parent.parent
# What they make is hashed, compared or read by genjax itself, or holds text only.
OWN_USE = {
  'genjax/types.py', 'genjax/coordinator.py', 'genjax/distributed.py', 'genjax/runs/configs.py',
  'genjax/runs/same.py', 'genjax/metrics/card.py', 'genjax/data/sources.py', 'genjax/data/text/token_files.py',
  'genjax/data/text/tokenizers.py', 'genjax/data/text/tokenization.py', 'experiments/measures.py',
  'genjax/data/checking.py',
  'genjax/studies/compare.py', 'genjax/studies/names.py', 'genjax/studies/records.py', 'genjax/studies/sweeps.py',
  'genjax/studies/search.py',  # names of choices, which Optuna gives back
  'genjax/studies/report/facts.py',  # text of a page
}


def refuse(word):
  raise AssertionError(word)


def test_nan_and_infinity_become_null_at_any_depth():
  value = {
    'a': float('nan'), 'b': [1.5, float('-inf'), (np.float64('inf'), 2)], 'c': {'d': {'e': float('nan')}}, 'f': 'NaN'
  }
  read = json.loads(strict_json(value, indent=2), parse_constant=refuse)
  assert read == {'a': None, 'b': [1.5, None, [None, 2]], 'c': {'d': {'e': None}}, 'f': 'NaN'}


def test_what_is_no_json_is_an_error():
  with pytest.raises(TypeError):
    strict_json({'a': object()})


def test_public_configs_are_strict(tmp_path):
  files.write_json(tmp_path / 'config.json', {'limit': float('inf')})
  assert json.loads((tmp_path / 'config.json').read_text(), parse_constant=refuse) == {'limit': None}


def test_nothing_else_writes_json():
  users = set()
  for path in [*(ROOT / 'genjax').rglob('*.py'), *(ROOT / 'experiments').rglob('*.py')]:
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    if any(isinstance(call, ast.Attribute) and ast.unparse(call) in ('json.dump', 'json.dumps') for call in calls):
      users.add(str(path.relative_to(ROOT)))
  assert users <= OWN_USE, 'write with genjax.types.strict_json'
