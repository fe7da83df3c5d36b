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
NAVIGATION = (ROOT / 'mkdocs.yml').read_text()
TUTORIAL = (ROOT / 'docs' / 'tutorial.md').read_text()
# The tests of commands divide numbers of training steps by this, and warm up for one step. They change nothing else.
SHORTER = 50
QUICKSTART_STEPS = 1400
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def commands(text):
  """The commands of the bash blocks of a page, in their order."""
  blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
  return [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line]


def shorter(command):
  """A command with fewer training steps. Where it names none it trains those of the quickstart's config."""
  if command.startswith('genjax train') and 'steps=' not in command and ':smoke' not in command:
    command += f' --config.steps={QUICKSTART_STEPS}'
  fewer = re.sub(r'(?<=--config\.steps=)\d+', lambda steps: str(int(steps[0]) // SHORTER), command)
  warms_up = fewer != command and 'configs/gans/' not in command  # GANs have no group `net`
  return f'{fewer} --config.optimizers.net.warmup=1' if warms_up else fewer


@pytest.fixture
def shell(tmp_path):
  """Runs commands in an empty folder with an empty home, where `genjax` is the code under test."""
  program = tmp_path / 'bin' / 'genjax'
  program.parent.mkdir()
  program.write_text(f'#!/bin/sh\nexec {sys.executable} -m genjax.cli.main "$@"\n')
  program.chmod(0o755)
  (tmp_path / 'home').mkdir()
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HOME': str(tmp_path / 'home'),
                 'PATH': f'{program.parent}:{os.environ["PATH"]}'}

  def run(command):
    done = subprocess.run(['bash', '-c', command], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'

  return run


@pytest.mark.slow
def test_the_tour_in_its_order(shell, tmp_path):
  first = next(line for line in commands(README) if line.startswith('pip install -e . && '))
  tour = [first.partition('&& ')[2], *commands(TOUR)]
  assert len(tour) > 8 and all(command.startswith('genjax ') for command in tour)
  for command in tour:
    shell(shorter(command))
  for written in ('digits.png', 'digits.npz', 'vae.png', 'runs/quickstart/evaluation.json'):
    assert (tmp_path / written).stat().st_size > 0
  assert list((tmp_path / 'runs/quickstart/samples').iterdir())


@pytest.mark.slow
def test_the_tutorial_in_its_order(shell, tmp_path):
  for name, text in re.findall(r'```python\n# (\w+\.py)\n(.*?)```', TUTORIAL, re.S):
    (tmp_path / name).write_text(text)
  tutorial = [command for command in commands(TUTORIAL) if command != 'pip install -e .']
  assert len(tutorial) > 12 and all(command.startswith('genjax ') for command in tutorial)
  for command in tutorial:
    shell(shorter(command))
  for written in ('digits.png', 'euler.png', 'gan.png', 'runs/diffusion/summary.json'):
    assert (tmp_path / written).stat().st_size > 0


def test_the_readme_is_short_and_the_test_command_is_where_ci_finds_it():
  assert len(README.splitlines()) <= 200
  assert re.search(r"^pip install -e '\.\[test\]' && pytest -m 'not slow'$", README, re.M)


def test_every_config_is_listed_and_every_listed_config_exists():
  listed = set(re.findall(r'configs/([\w/]+)\.py', (ROOT / 'docs' / 'configs.md').read_text()))
  files = [path for path in (ROOT / 'configs').rglob('*.py') if path.stem not in ('__init__', 'common', 'sweeps')]
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
  named = set(re.findall(r': ([\w/]+\.md)$', NAVIGATION, re.M))
  assert pages == named


def test_pages_have_one_name_in_their_title_the_navigation_and_the_tables():
  names = {page: name for name, page in re.findall(r'^ *- (.+): ([\w/]+\.md)$', NAVIGATION, re.M)}
  titles = {page: (ROOT / 'docs' / page).read_text().partition('\n')[0] for page in names}
  assert titles == {page: f'# {name}' for page, name in names.items()} | {'index.md': '# genjax'}
  for text in (README, (ROOT / 'docs' / 'index.md').read_text()):
    rows = ''.join(re.findall(r'^\|.*\|$', text, re.M))
    links = re.findall(r'\[([^\]]+)\]\((?:docs/)?([\w/]+\.md)(?:#[\w-]+)?\)', rows)
    assert len(links) > 10 and all(names[page] == name for name, page in links)


def test_every_module_is_in_the_reference():
  pages = ''.join(page.read_text() for page in (ROOT / 'docs' / 'reference').glob('*.md'))
  named = {name.split('.')[1] for name in re.findall(r'^::: (genjax\.[\w.]+)$', pages, re.M)}
  there = {path.stem for path in (ROOT / 'genjax').iterdir() if path.is_dir() or path.suffix == '.py'}
  assert named == there - {'__init__', '__pycache__'}
