"""The worked example of docs/family.md, a family of one's own in three files, trains, and its run samples."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def three_files(tmp_path):
  files = re.findall(r'```python\n# (\w+\.py)\n(.*?)```', (ROOT / 'docs' / 'family.md').read_text(), re.S)
  assert len(files) == 3
  for name, text in files:
    (tmp_path / name).write_text(text)
  return tmp_path


def genjax(*argv, cwd):
  done = subprocess.run([sys.executable, '-m', 'genjax.cli.main', *argv], cwd=cwd, capture_output=True, text=True,
                        timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stderr
  return done


def test_a_family_of_ones_own_trains_and_samples(three_files):
  argv = ('train', '--config=adversarial_digits.py', '--workdir=run', '--config.steps=300',
          '--config.checkpoint.every=150', '--config.sample_every=150')
  genjax(*argv, cwd=three_files)
  assert len(list((three_files / 'run' / 'samples').iterdir())) == 2
  lines = [json.loads(line) for line in (three_files / 'run' / 'metrics.jsonl').read_text().splitlines()]
  errors = [line['autoencoder/error'] for line in lines if 'autoencoder/error' in line]
  assert errors[-1] < errors[0] / 2
  assert all('critic/loss' in line for line in lines if 'autoencoder/error' in line)
  genjax('sample', '--workdir=run', '--num=4', '--out=x.png', cwd=three_files)
  assert (three_files / 'x.png').exists()


def test_a_builder_of_ones_own_tells_its_options(three_files):
  listed = genjax('inspect', '--config=adversarial_digits.py', '--options=model', '--json', cwd=three_files).stdout
  rows = {row['option']: row for row in json.loads(listed)['options']}
  assert set(rows) == {
    'model.latent', 'model.hidden', 'model.dtype', 'model.activation', 'model.num_classes', 'model.vector_width',
    'model.numbers', 'model.number_features'}
  assert all(row['meaning'] for row in rows.values())
