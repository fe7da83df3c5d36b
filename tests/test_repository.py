"""The files at the root of the repository agree with each other and with the package."""

import os
import pathlib
import re
import subprocess

import yaml

import genjax

ROOT = pathlib.Path(__file__).parent.parent


def test_the_hosted_workflow_runs_the_script_that_gates_every_change():
  workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'ci.yml').read_text())
  assert {'push', 'pull_request'} <= set(workflow[True])  # YAML 1.1 reads the key `on` as true
  steps = [step for job in workflow['jobs'].values() for step in job['steps']]
  assert all(('uses' in step) != ('run' in step) for step in steps)
  assert [step['run'] for step in steps if 'run' in step] == ['.ci/run']
  assert os.access(ROOT / '.ci' / 'run', os.X_OK)
  subprocess.run(['bash', '-n', ROOT / '.ci' / 'run'], check=True)


def test_the_citation_names_this_version_and_license():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert {'cff-version', 'message', 'title', 'authors', 'version', 'license'} <= set(citation)
  assert citation['version'] == genjax.__version__
  assert f"license_expression='{citation['license']}'" in (ROOT / 'setup.py').read_text()


def test_the_changelog_begins_with_this_version():
  assert re.search(r'^## (\S+),', (ROOT / 'CHANGELOG.md').read_text(), re.M)[1] == genjax.__version__


def test_the_license_is_whole():
  text = (ROOT / 'LICENSE').read_text()
  assert 'Apache License\n' in text and 'Version 2.0, January 2004' in text
  assert [int(number) for number in re.findall(r'^   (\d)\. ', text, re.M)] == list(range(1, 10))
  assert 'END OF TERMS AND CONDITIONS' in text
