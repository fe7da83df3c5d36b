"""What docs/python.md and the notebooks show works, in the order given, from any folder."""

import os
import pathlib
import re

from nbclient import NotebookClient
import nbformat
import pytest

import genjax

ROOT = pathlib.Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / 'docs' / 'notebooks').glob('*.ipynb'))


@pytest.mark.slow
def test_the_examples_of_the_python_page(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'python.md').read_text(), re.S)
  assert len(blocks) > 9
  names = {}
  for block in blocks:
    exec(compile(block, 'docs/python.md', 'exec'), names)
  assert names['run'].step == 2 and names['images'].shape == (16, 8, 8, 1)
  assert names['samples']['label'].tolist() == [0, 1, 2] * 3 and names['files'] == [pathlib.Path('pictures/grid.png')]
  assert len(names['losses']) == 6 and names['quick'].config.sampler.steps == 4
  assert (tmp_path / 'public' / 'model.safetensors').is_file()
  assert len((tmp_path / 'losses.txt').read_text().splitlines()) == 2


@pytest.mark.filterwarnings('ignore::DeprecationWarning:(jupyter_client|zmq|tornado|nbclient).*')
@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_are_kept_without_results(path, tmp_path, monkeypatch):
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
  notebook = nbformat.read(path, as_version=4)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert code and not any(cell.outputs or cell.execution_count for cell in code)
  NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}).execute()
  pictures = [output for cell in code for output in cell.outputs if 'image/png' in output.get('data', {})]
  assert len(pictures) == 2 and (tmp_path / 'runs' / 'notebook' / 'evaluation.json').is_file()
  trainings = [cell.source for cell in code if 'genjax.train(' in cell.source]
  logs = sorted((tmp_path / 'runs').glob('*/metrics.jsonl'))
  before = [log.read_bytes() for log in logs]
  monkeypatch.chdir(tmp_path)
  for source in trainings:  # again: the runs are finished
    exec(source, {'genjax': genjax})
  assert len(trainings) == len(logs) == 2 and [log.read_bytes() for log in logs] == before
