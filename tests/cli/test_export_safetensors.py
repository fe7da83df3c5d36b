"""Any model leaves as safetensors, and the page beside it is right."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from genjax.cli.main import main
from genjax.interop import files
from genjax.runs import assets, exporting_safetensors, workdir
from genjax.types import UserError, named_leaves


def follow(page: str) -> dict:
  """Runs the code of a README in the current folder; its variables."""
  names: dict = {}
  for code in re.findall(r'```python\n(.*?)```', page, re.S):
    exec(code, names)
  return names


@pytest.mark.parametrize('name', ['quickstart', 'gans/digits_gan'])  # with averages; with mutable variables, two groups
@pytest.mark.parametrize('raw', [False, True])
def test_the_page_reads_what_the_run_has(name, raw, smoke_run, tmp_path, monkeypatch, capsys):
  run_folder, out = smoke_run(name), tmp_path / 'out'
  argv = ['export', f'--workdir={run_folder}', f'--to={out}', '--format=safetensors', *(['--raw'] if raw else [])]
  assert main(argv) == 0
  assert 'README.md says how to read it' in capsys.readouterr().err
  assert (out / 'config.json').read_bytes() == (run_folder / 'config.json').read_bytes()
  page = (out / 'README.md').read_text()
  monkeypatch.chdir(out)
  read = follow(page)
  _, run = workdir.open_run(str(run_folder))
  wanted = jax.device_get({'params': run.params(averaged=not raw), 'mutable': run.state.mutable})
  assert read['tensors'].keys() == named_leaves(wanted).keys()
  jax.tree.map(np.testing.assert_array_equal, {'params': read['params'], 'mutable': read['mutable']}, wanted)
  assert read['samples']['image'].shape == (4, 8, 8, 1)
  assert ('are averages over training' in page) == (not raw) and f'step {run.step}' in page
  for tensor, leaf in named_leaves(wanted).items():
    assert f'| `{tensor}` | {" x ".join(map(str, leaf.shape))} | {leaf.dtype.name} |' in page


def test_the_page_samples_a_model_of_texts(smoke_run, tmp_path, monkeypatch):
  run_folder, out = smoke_run('diffusion/captioned_flow'), tmp_path / 'out'
  assert main(['export', f'--workdir={run_folder}', f'--to={out}', '--format=safetensors']) == 0
  assert main(['sample', f'--workdir={run_folder}', '--num=4', f'--out={tmp_path}/x.npz']) == 0
  monkeypatch.chdir(out)
  read = follow((out / 'README.md').read_text())
  wanted = np.load(tmp_path / 'x.npz')
  assert read['rows']['text'].tolist() == wanted['text'].tolist()
  assert read['samples']['image'].shape == wanted['image'].shape


def test_types_shards_and_what_does_not_fit(smoke_run, tmp_path):
  run_folder, out = smoke_run('quickstart'), tmp_path / 'half'
  argv = ['export', f'--workdir={run_folder}', '--format=safetensors', '--dtype=bfloat16']
  assert main([*argv, f'--to={out}']) == 0
  tensors = load_file(out / 'model.safetensors')
  assert {value.dtype.name for value in tensors.values()} == {'bfloat16'}
  config = assets.read_config(run_folder)
  params = {'net': {'kernel': np.ones((3, 4), np.float32), 'bias': np.ones(4, np.float32)}}
  exporting_safetensors.write(tmp_path / 'shards', run_folder, config, 2, params, {}, shard_bytes=50)
  shards = sorted(path.name for path in (tmp_path / 'shards').glob('*.safetensors'))
  assert shards == ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
  index = json.loads((tmp_path / 'shards' / files.INDEX).read_text())
  assert set(index['weight_map']) == {'params/net/kernel', 'params/net/bias'}
  with pytest.raises(UserError, match='tensor params/net/.* is missing.*not of one export'):
    exporting_safetensors.read(tmp_path / 'shards')
  assert main([*argv, f'--to={out}']) == 2  # it is there already


def test_a_model_without_a_public_layout_is_told_of_this_format(smoke_run, tmp_path, capsys):
  assert main(['export', f'--workdir={smoke_run("gans/digits_gan")}', f'--to={tmp_path / "out"}']) == 2
  said = capsys.readouterr().err
  assert 'have no public architecture' in said and '--format=safetensors writes any model' in said
  assert not (tmp_path / 'out').exists()
