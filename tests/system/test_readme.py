"""What the README and the docs show works: the commands of the tour in their order, the table of configs, the pages."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
README = (ROOT / 'README.md').read_text()
TOUR = README.partition('\n## A tour')[2].partition('\n## ')[0]
SHORTER = 50  # the test divides all numbers of training steps by it, and warms up for one step; it changes nothing else
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def commands(text):
  """The commands of the bash blocks of a page, in their order."""
  blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
  return [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line]


def shorter(command):
  """A command with its training steps divided by `SHORTER`; the quickstart's stand in its config."""
  if command.endswith('--config=configs/quickstart.py --workdir=runs/quickstart'):
    command += ' --config.steps=1400'
  return re.sub(r'(--config\.steps=)(\d+)', lambda found: (
    f'{found[1]}{int(found[2]) // SHORTER} --config.optimizers.net.warmup=1'), command)


@pytest.mark.slow
def test_the_tour_in_its_order(tmp_path):
  """All commands, from an empty folder and home; `pip install` ran before the tests did."""
  program = tmp_path / 'bin' / 'genjax'
  program.parent.mkdir()
  program.write_text(f'#!/bin/sh\nexec {sys.executable} -m genjax.cli.main "$@"\n')
  program.chmod(0o755)
  (tmp_path / 'home').mkdir()
  cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', '')
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HOME': str(tmp_path / 'home'),
                 'PATH': f'{program.parent}:{os.environ["PATH"]}', 'JAX_COMPILATION_CACHE_DIR': cache}
  first = next(line for line in commands(README) if line.startswith('pip install -e . && '))
  tour = [first.partition('&& ')[2], *commands(TOUR)]
  assert len(tour) > 8 and all(command.startswith('genjax ') for command in tour)
  for command in map(shorter, tour):
    done = subprocess.run(['bash', '-c', command], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
  for written in ('digits.png', 'digits.npz', 'vae.png', 'runs/quickstart/evaluation.json'):
    assert (tmp_path / written).stat().st_size > 0
  assert list((tmp_path / 'runs/quickstart/samples').iterdir())


def test_the_readme_is_short_and_the_test_command_is_where_ci_finds_it():
  assert len(README.splitlines()) <= 200
  assert re.search(r"^pip install -e '\.\[test\]' && pytest -m 'not slow'$", README, re.M)


def test_every_config_is_listed_and_every_listed_config_exists():
  listed = set(re.findall(r'configs/([\w/]+)\.py', (ROOT / 'docs' / 'configs.md').read_text()))
  files = [path for path in (ROOT / 'configs').rglob('*.py') if path.stem not in ('__init__', 'common')]
  assert listed == {path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in files}


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_configs_and_links_of_a_page_exist(page):
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.S)
  for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text):
    assert (page.parent / link).exists(), link
  for config in re.findall(r'\bconfigs/[\w/]+\.py', page.read_text()):
    assert (ROOT / config).exists() or page.stem in ('extending', 'family', 'options'), config


def test_every_page_is_in_the_navigation():
  pages = {path.relative_to(ROOT / 'docs').as_posix() for path in (ROOT / 'docs').rglob('*.md')}
  named = set(re.findall(r': ([\w/]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.M))
  assert pages == named
