"""The commands on finished runs: outputs, resume, evaluation, inspection."""

import json
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from genjax.cli.main import main

ROOT = pathlib.Path(__file__).parent.parent.parent
FLOW = f'--config={ROOT}/configs/quickstart.py:smoke'


@pytest.fixture(scope='module')
def run(tmp_path_factory, smoke_run):
  return shutil.copytree(smoke_run('quickstart'), tmp_path_factory.mktemp('runs') / 'flow')


def test_a_run_describes_itself(run):
  description = json.loads((run / 'run.json').read_text())
  assert description['versions']['jax'] and description['seed'] == 0 and description['data']['examples'] > 0
  lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  assert {line['step'] for line in lines} == {1, 2}
  assert any('heldout/loss' in line for line in lines) and any('model_flops_per_second' in line for line in lines)
  assert list((run / 'tensorboard').iterdir()) and list((run / 'samples').glob('*.png'))
  summary = json.loads((run / 'summary.json').read_text())
  assert summary['step'] == 2 and summary['heldout']['loss'] > 0


def test_resume_of_a_finished_run_changes_nothing(run, capsys):
  before = (run / 'metrics.jsonl').read_text()
  assert main(['train', FLOW, '--config.checkpoint.every=1', f'--workdir={run}']) == 0
  assert 'resuming' in capsys.readouterr().err
  assert (run / 'metrics.jsonl').read_text() == before


def test_samples_as_arrays_follow_conditions_and_seed(run, tmp_path):
  def draw(name, *argv):
    assert main(['sample', f'--workdir={run}', f'--out={tmp_path / name}', *argv]) == 0
    return np.load(tmp_path / name)

  some = draw('a.npz', '--num=5', '--conditions=label=3,7')
  assert some['label'].tolist() == [3, 7, 3, 7, 3]
  assert some['image'].shape == (5, 8, 8, 1) and some['image'].dtype == np.uint8
  np.testing.assert_array_equal(draw('b.npz', '--num=5', '--conditions=label=3,7', '--chunk=2')['image'], some['image'])
  later = draw('f.npz', '--num=3', '--start=2', '--conditions=label=3,7')
  assert later['label'].tolist() == [3, 7, 3]
  np.testing.assert_array_equal(later['image'], some['image'][2:])
  assert draw('c.npz', '--num=12')['label'].tolist() == [*range(10), 0, 1]
  assert draw('d.npz', '--num=3', '--conditions=label=4-6')['label'].tolist() == [4, 5, 6]
  assert not np.array_equal(draw('e.npz', '--num=5', '--conditions=label=3,7', '--seed=1')['image'], some['image'])


def test_samples_as_a_picture(run, tmp_path):
  assert main(['sample', f'--workdir={run}', '--num=4', f'--out={tmp_path / "x.png"}', '--set', 'sampler.steps=2']) == 0
  with Image.open(tmp_path / 'x.png') as picture:
    assert picture.size[0] > 16


def test_evaluation_has_a_card(run, tmp_path, capsys):
  assert main(['evaluate', f'--workdir={run}', '--no-samples']) == 0
  report = json.loads(capsys.readouterr().out)
  assert report == json.loads((run / 'evaluation.json').read_text())
  assert report['metrics']['heldout/loss'] > 0
  assert {'data', 'examples', 'seed', 'parameters', 'sampler', 'step', 'versions'} <= set(report['card'])
  assert "averaged ['net']" in report['card']['parameters']
  assert main(['evaluate', f'--workdir={run}', '--no-samples', '--raw', f'--per-example={tmp_path / "each.npz"}']) == 0
  each = np.load(tmp_path / 'each.npz')['loss']
  assert each.shape == (report['card']['examples'],) and each.min() < each.mean() < each.max()
  assert json.loads(capsys.readouterr().out)['card']['parameters'] == 'raw'


def test_each_value_of_an_option_is_a_line(run, tmp_path, capsys):
  folder = shutil.copytree(run, tmp_path / 'run')
  (folder / 'evaluation.json').unlink(missing_ok=True)
  argv = ['evaluate', f'--workdir={folder}', '--each=evaluation.num_samples=2,30']
  assert main([*argv, '--set', 'evaluation.measures=neighbours']) == 0
  header, rule, *lines = [line.split(' | ') for line in capsys.readouterr().out.strip('\n').splitlines()]
  assert header[0] == '| evaluation.num_samples' and header[1].startswith('neighbours/') and len(rule) == len(header)
  assert [line[0] for line in lines] == ['| 2', '| 30'] and lines[0][1:] != lines[1][1:]
  kept = [folder / 'evaluations' / f'evaluation.num_samples={value}.json' for value in (2, 30)]
  found = [json.loads(path.read_text()) for path in kept]
  assert [one['card']['measures']['neighbours']['num_samples'] for one in found] == [2, 30]
  assert f'{found[1]["metrics"][header[1]]:.4g}' == lines[1][1]
  assert not (folder / 'evaluation.json').exists()
  assert main(['compare', *map(str, kept)]) == 8
  assert main(['compare', *map(str, kept), '--allow=num_samples']) == 0


@pytest.mark.parametrize(('flags', 'said'), [
  (['--each=sampler.steps'], 'takes an option and its values'), (['--each=sampler.steps=1,'], 'takes an option and'),
  (['--each=sampler.steps=1,1'], 'each once'), (['--each=sampler.stepz=1,2'], 'sampler.stepz'),
  (['--each=sampler.steps=1,two'], "'two'"), (['--each=sampler.steps=1,2', '--set', 'sampler.steps=3'], 'by --each'),
  (['--each=sampler.steps=1,2', '--per-example=x.npz'], '--per-example')])
def test_values_that_cannot_be_evaluated_are_known_first(run, tmp_path, monkeypatch, capsys, flags, said):
  monkeypatch.chdir(tmp_path)
  assert main(['evaluate', f'--workdir={run}', '--no-samples', *flags]) == 2
  assert said in capsys.readouterr().err
  assert not (run / 'evaluations').exists()


def test_the_best_checkpoint_is_evaluated_sampled_and_exported(run, tmp_path, capsys):
  """The worst loss counts as the best here, so that it is not the newest."""
  folder = tmp_path / 'run'
  assert main([
    'train', f'--config={ROOT}/configs/language/python_code.py:smoke', f'--workdir={folder}', '--config.steps=3',
    '--config.checkpoint.every=1', '--config.checkpoint.keep=1', '--config.evaluate_every=1', '--config.sample_every=0',
    '--config.checkpoint.best=loss', '--config.checkpoint.mode=max', '--config.optimizers.net.lr=0.01'
  ]) == 0
  assert sorted(path.name for path in (folder / 'checkpoints').iterdir() if path.is_dir()) == ['1', '3']
  capsys.readouterr()
  found = []
  for step in ('best', '1', '3'):
    assert main(['evaluate', f'--workdir={folder}', '--no-samples', f'--step={step}']) == 0
    report = json.loads(capsys.readouterr().out)
    assert main(['sample', f'--workdir={folder}', '--num=1', f'--out={tmp_path / step}.npz', f'--step={step}']) == 0
    assert main(['export', f'--workdir={folder}', f'--to={tmp_path / step}', f'--step={step}']) == 0
    said = capsys.readouterr().err
    found.append((report['card']['step'], report['metrics'], np.load(tmp_path / f'{step}.npz')['tokens'].tolist(),
                  (tmp_path / step / 'model.safetensors').read_bytes(), f'step {report["card"]["step"]}' in said))
  assert found[0] == found[1] and found[0][0] == 1 and found[0][4]
  assert all(best != newest for best, newest in zip(found[0][:4], found[2]))
  for command, out in (('evaluate', []), ('sample', [f'--out={tmp_path / "x.npz"}'])):
    assert main([command, f'--workdir={run}', '--step=best', *out]) == 2
    assert 'without config.checkpoint.best' in capsys.readouterr().err
  with pytest.raises(SystemExit, match='2'):
    main(['evaluate', f'--workdir={folder}', '--step=bets'])
  assert "expected the number of a step, or 'best', got 'bets'" in capsys.readouterr().err


def test_inspect_counts_and_lays_out_without_memory(capsys):
  argv = [
    'inspect', f'--config={ROOT}/configs/language/python_code.py', '--json', '--mesh=fsdp:2,tensor:2',
    '--config.model.layers=80', '--config.model.heads=64', '--config.model.kv_heads=8', '--config.model.width=8192',
    '--config.model.mlp_width=28672', '--config.model.unroll=False'
  ]
  assert main(argv) == 0
  report = json.loads(capsys.readouterr().out)
  # Llama 2 70B with a vocabulary of bytes instead of 32,000 tokens.
  assert report['total'] == 68_976_648_192 - 2 * (32_000 - 256) * 8192
  down = next(row for row in report['parameters'] if row['path'] == 'blocks/down/kernel')
  assert (down['layout'], down['shape'], down['optimizer']) == ('- tensor fsdp', [80, 28672, 8192], 'adamw')
  assert report['optimizer'] > 2 * report['total'] and report['averages'] == report['total']
  cost = report['flops_per_example']['lm']
  assert cost['forward_backward'] == pytest.approx(3 * cost['forward'], rel=0.01)
  assert main(['inspect', FLOW]) == 0
  assert 'parameters in total' in capsys.readouterr().out
