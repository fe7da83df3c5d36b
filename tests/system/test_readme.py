"""What the documentation shows works: the worked example of a family of one's own, and the list of configs."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
README = (ROOT / 'README.md').read_text()
FAMILY = (ROOT / 'docs' / 'family.md').read_text()


@pytest.fixture
def three_files(tmp_path):
  files = re.findall(r'```python\n# (\w+\.py)\n(.*?)```', FAMILY, re.S)
  assert len(files) == 3
  for name, text in files:
    (tmp_path / name).write_text(text)
  return tmp_path


def genjax(*argv, cwd):
  done = subprocess.run([sys.executable, '-m', 'genjax.cli.main', *argv], cwd=cwd, capture_output=True, text=True,
                        timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stderr
  return done


def test_a_family_of_ones_own_trains_resumes_and_samples(three_files):
  argv = ('train', '--config=adversarial_digits.py', '--workdir=run', '--config.steps=300',
          '--config.checkpoint.every=150')
  genjax(*argv, cwd=three_files)
  lines = [json.loads(line) for line in (three_files / 'run' / 'metrics.jsonl').read_text().splitlines()]
  errors = [line['autoencoder/error'] for line in lines if 'autoencoder/error' in line]
  assert errors[-1] < errors[0] / 2
  assert all('critic/loss' in line for line in lines if 'autoencoder/error' in line)
  genjax('sample', '--workdir=run', '--num=4', '--out=x.png', cwd=three_files)
  assert (three_files / 'x.png').exists()


def test_every_config_is_listed_and_every_listed_config_exists():
  listed = set(re.findall(r'configs/([\w/]+)\.py', README))
  files = [path for path in (ROOT / 'configs').rglob('*.py') if path.stem not in ('__init__', 'common')]
  there = {path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in files}
  assert listed == there
