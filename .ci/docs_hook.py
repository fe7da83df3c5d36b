"""Hook of mkdocs: the reference reads a copy of genjax in which links are folders, and folders are packages.

Griffe, which reads the docstrings, follows no links, and finds no folder without an `__init__.py` inside a package.
"""

import pathlib
import shutil

from mkdocs.plugins import event_priority

ROOT = pathlib.Path(__file__).parent.parent


@event_priority(100)  # before mkdocstrings looks for the copy
def on_config(config):
  """Copies the sources before the pages are built; `paths` of mkdocstrings names the copy."""
  copy = ROOT / 'build' / 'docs_sources'
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(ROOT / 'genjax', copy / 'genjax', ignore=shutil.ignore_patterns('__pycache__'))
  for folder in (copy / 'genjax').rglob('*/'):
    (folder / '__init__.py').touch()
  return config
