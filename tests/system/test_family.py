"""The worked examples of docs/family.md and docs/own_gan.md, a family and a GAN of one's own in three files, train, and
their runs sample."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def written(page, folder):
  """The folder with the three files of a page."""
  files = re.findall(r'```python\n# (\w+\.py)\n(.*?)```', (ROOT / 'docs' / page).read_text(), re.S)
  assert len(files) == 3
  for name, text in files:
    (folder / name).write_text(text)
  return folder


@pytest.fixture
def three_files(tmp_path):
  return written('family.md', tmp_path)


@pytest.fixture
def own_gan(tmp_path):
  return written('own_gan.md', tmp_path)


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


def test_a_gan_of_ones_own_trains_with_its_term_and_its_loss(own_gan):
  """In the first step runs with two weights of the term draw the same pictures, so that the losses differ by what the
  term says. What a run keeps is enough to sample it."""
  losses, ratios = [], []
  for name, seeking in (('run', 0.5), ('other', 0.25)):
    genjax('train', '--config=my_config.py:smoke', f'--workdir={name}', '--config.steps=1',
           f'--config.objective.seeking={seeking}', '--config.sample_every=0', cwd=own_gan)
    lines = [json.loads(line) for line in (own_gan / name / 'metrics.jsonl').read_text().splitlines()]
    first = next(line for line in lines if 'generator/ratio' in line)
    losses.append(first['generator/loss'])
    ratios.append(first['generator/ratio'])
  assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)
  assert losses[0] - losses[1] == pytest.approx(0.25 / (ratios[0] + 1e-5), rel=1e-4)
  for name in ('my_networks.py', 'my_gan.py', 'my_config.py'):
    (own_gan / name).unlink()
  genjax('sample', '--workdir=run', '--num=4', '--out=x.png', cwd=own_gan)
  assert (own_gan / 'x.png').exists()


@pytest.mark.slow
def test_the_commands_of_a_gan_of_ones_own(own_gan):
  """All commands of the page in their order, with two steps of training."""
  page = (ROOT / 'docs' / 'own_gan.md').read_text()
  lines = [line.partition('#')[0] for block in re.findall(r'```bash\n(.*?)```', page, re.S)
           for line in block.splitlines()]
  assert len(lines) == 6
  for line in lines:
    program, *argv = shlex.split(line)
    assert program == 'genjax'
    genjax(*argv, *(['--config.steps=2'] if argv[0] == 'train' else []), cwd=own_gan)
  assert (own_gan / 'mine.png').exists() and (own_gan / 'ways.png').exists()


def test_options_of_a_gan_of_ones_own_have_meanings(own_gan):
  listed = genjax('inspect', '--config=my_config.py', '--options=objective', '--json', cwd=own_gan).stdout
  row = next(row for row in json.loads(listed)['options'] if row['option'] == 'objective.seeking')
  assert row['meaning'] == 'weight of the term.'
