"""`genjax plan` as a command: fake devices and TPU slices, each in a process of its own; exit codes; agreement with
`inspect`."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from genjax.cli.main import main

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIGS = ROOT / 'configs'
STATE = ('parameters', 'optimizer', 'averages', 'mutable', 'frozen')

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is absent (pip install libtpu)')


def genjax(*argv, **environment):
  """Runs a command in a process of its own -> (exit code, stdout, stderr)."""
  run = subprocess.run([sys.executable, '-m', 'genjax.cli.main', *argv], cwd=ROOT, capture_output=True, text=True,
                       timeout=600, env={**os.environ, 'PYTHONPATH': str(ROOT), **environment}, check=False)
  return run.returncode, run.stdout, run.stderr


def inspected(capsys, *argv):
  assert main(['inspect', *argv, '--json']) == 0
  return json.loads(capsys.readouterr().out)


def test_eight_fake_devices(capsys):
  config = f'--config={CONFIGS}/quickstart.py:smoke'
  code, out, err = genjax('plan', config, '--topology=cpu:8', '--mesh=fsdp:8', '--json')
  assert code == 0, err
  report = json.loads(out)
  expected = inspected(capsys, config, '--mesh=fsdp:8')
  assert report['parameters'] == expected['total'] and report['devices'] == 8 and report['mesh'] == {'fsdp': 8}
  assert report['bytes'] == expected['bytes']
  assert {name: report['bytes_per_device'][name] for name in STATE} == expected['bytes_per_device']
  assert report['fits'] is None and report['roofline'] is None
  assert report['collectives']['all-gather']['count'] > 0  # parameters that are spread are gathered
  sizes = report['bytes_per_device']
  assert sizes['peak'] >= sum(sizes[name] for name in (*STATE, 'batch', 'temporaries'))
  assert report['flops']['model'] == report['flops']['step'] > 0


def test_two_phases_and_a_readable_table(capsys, tmp_path):
  assert main(['plan', f'--config={CONFIGS}/gans/digits_gan.py:smoke', '--topology=cpu:1',
               f'--hlo={tmp_path / "step.txt"}']) == 0
  assert '\nENTRY ' in (tmp_path / 'step.txt').read_text()
  text = capsys.readouterr().out
  for part in ('cpu:1: 1 x cpu', 'parameters', 'optimizer', 'EMA', 'temporaries', 'peak', 'without rematerialisation',
               'the body of a loop counts once', 'collectives', 'nothing bounds the memory'):
    assert part in text


def test_a_run_directory_is_planned(tmp_path, capsys):
  assert main(['train', f'--config={CONFIGS}/quickstart.py:smoke', f'--workdir={tmp_path / "run"}']) == 0
  capsys.readouterr()
  assert main(['plan', f'--workdir={tmp_path / "run"}', '--topology=cpu:1', '--json']) == 0
  report = json.loads(capsys.readouterr().out)
  assert report['batch_size'] == 8 and report['phases'] == ['diffusion']


@pytest.mark.parametrize('arguments, message', [
  (('--topology=v7:2x2',), "got 'v7:2x2'"),
  ((), '--topology=NAME is needed'),
  (('--topology=cpu:1', '--mesh=fsdp:3'), 'does not fit 1 devices'),
  (('--topology=cpu:1', '--mesh=width:1'), '--mesh takes axis:size'),
  (('--topology=cpu:1', '--config.microbatches=3'), 'config.batch_size=8 must be a multiple of 3'),
  (('--topology=gpu',), '--topology=gpu needs a GPU'),
  (('--topology=cpu:1', '--workdir=there'), 'give one of them'),
  (('--topology=cpu:1', '--hlo=nowhere/step.txt'), 'its folder does not exist'),
  (('--topology=cpu:1', '--config.model.depht=1'), "Did you mean 'model.depth'"),
])
def test_bad_input_exits_2(arguments, message, capsys):
  assert main(['plan', f'--config={CONFIGS}/quickstart.py:smoke', *arguments]) == 2
  assert message in capsys.readouterr().err


def test_no_run_directory_and_no_library(tmp_path, capsys, monkeypatch):
  assert main(['plan', f'--workdir={tmp_path}', '--topology=cpu:1']) == 2
  assert 'no run directory' in capsys.readouterr().err

  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, 'version', absent)
  assert main(['plan', f'--config={CONFIGS}/quickstart.py:smoke', '--topology=v5e:2x2']) == 2
  assert "pip install 'genjax-research[tpu]'" in capsys.readouterr().err


@needs_libtpu
@pytest.mark.slow
def test_a_tpu_slice_that_is_not_there(capsys):
  model = ('--config.model.layers=2', '--config.model.width=256', '--config.data.context=256',
           '--config.model.dtype=bfloat16')
  config = (f'--config={CONFIGS}/language/gpt3.py:smoke', *model)
  code, out, err = genjax('plan', *config, '--topology=v5e:2x2', '--mesh=fsdp:4', '--json')
  assert code == 0, err
  report = json.loads(out)
  assert report['kind'] == 'TPU v5 lite' and report['compiler'].startswith('libtpu') and report['fits'] is True
  expected = inspected(capsys, *config, '--mesh=fsdp:4')
  assert report['bytes'] == expected['bytes']
  assert {name: report['bytes_per_device'][name] for name in STATE} == expected['bytes_per_device']
  assert report['bytes_per_device']['limit'] == int(15.75 * 2**30)
  assert report['collectives'] and all(kind['count'] and kind['bytes'] for kind in report['collectives'].values())
  bound = report['roofline']
  assert 0 < bound['mfu_serial'] <= bound['mfu_overlapped'] <= 1 and bound['overlapped'] <= bound['serial']


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_exits_4():
  large = ('--config.model.layers=2', '--config.model.width=2048', '--config.model.heads=16',
           '--config.data.context=4096', '--config.batch_size=512', '--config.data.vocabulary_size=50257')
  code, out, err = genjax('plan', f'--config={CONFIGS}/language/gpt3.py:smoke', *large, '--topology=v5e:2x2',
                          '--mesh=fsdp:4')
  assert code == 4, err
  assert 'does not fit: needs' in out and 'a device has 15.75 GiB' in out and 'too much' in out
  assert '--config.microbatches=' in out and '--config.model.dtype=bfloat16' in out


@needs_libtpu
def test_a_slice_that_libtpu_does_not_know():
  code, _, err = genjax('plan', f'--config={CONFIGS}/quickstart.py:smoke', '--topology=v5p:3x3x3')
  assert code == 2 and '--topology=v5p:3x3x3 is no slice that libtpu knows' in err


@needs_libtpu
@pytest.mark.slow
def test_adapters_take_4_bytes_of_one_chip_a_parameter_of_their_base():
  """A LLaMA of 206.6 million parameters, 1,024 tokens a step; full training takes 18."""
  shape = ('layers=16', 'width=1024', 'heads=16', 'kv_heads=16', 'mlp_width=2816')
  code, out, err = genjax('plan', f'--config={CONFIGS}/language/llama.py:context=512,batch=2',
                          *(f'--config.model.{entry}' for entry in shape), '--config.data.vocabulary_size=512',
                          '--config.lora.rank=16', "--config.lora.paths=('blocks/.*kernel',)", '--topology=v5e:1x1',
                          '--json')
  assert code == 0, err
  report = json.loads(out)
  parameters = 206_603_264
  assert report['devices'] == 1 and report['dtype'] == 'bfloat16' and report['remat'] == 'full'
  assert 2.0 * parameters < report['bytes_per_device']['frozen'] < 2.02 * parameters
  assert report['bytes_per_device']['peak'] < 4.0 * parameters
