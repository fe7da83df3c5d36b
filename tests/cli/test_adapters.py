"""Runs with adapters on the command line: trained, resumed, sampled on their base, merged; bases that are missing or
others."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from genjax.cli.main import main
from genjax.runs import checkpoints, exporting_safetensors, workdir

ROOT = pathlib.Path(__file__).parent.parent.parent
VAE = f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'
LORA = ('--config.lora.rank=2', "--config.lora.paths=('(encoder|decoder)/layers/.*/kernel', 'decoder/dense/kernel')",
        '--config.steps=6', '--config.lora.alpha=64', '--config.checkpoint.every=3', '--config.optimizers.net.lr=0.05',
        "--config.ema.net={'evaluated': 'fast', 'fast': 0.995, 'last': {'half_life': 1}}")
QUIET = ('--config.sample_every=0', '--config.evaluate_every=0')


def train(path, *flags):
  return main(['train', VAE, f'--workdir={path}', *flags])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A base, another base of another seed, and adapters of the first."""
  root = tmp_path_factory.mktemp('adapters')
  assert train(root / 'base', *QUIET) == 0
  assert train(root / 'other', '--config.seed=5', *QUIET) == 0
  assert train(root / 'adapter', f'--config.init_from={root / "base"}', *LORA) == 0
  return root


def images(*flags, out):
  assert main(['sample', '--num=16', f'--out={out}', *map(str, flags)]) == 0
  return np.load(out)['image'].astype(int)


def test_the_checkpoint_holds_the_adapters_alone(runs):
  _, run = workdir.open_run(str(runs / 'adapter'))
  assert set(run.state.params) == {'lora'} and set(run.frozen) == {'base'}
  assert set(run.frozen['base']['params']) == {'net'}
  facts = json.loads((runs / 'adapter' / 'config.json').read_text())['assets']['parts']['base']
  assert facts['step'] == 2 and len(facts['sha256']) == 64
  saved = checkpoints.of_run(runs / 'adapter', workdir.read_config(str(runs / 'adapter'))[0])
  _, parts = saved.load(print, parts=('params', 'opt', 'mutable', 'ema'))
  saved.close()
  assert set(parts['params']) == set(parts['opt']) == {'lora'}


def test_resumes_to_the_same_bytes(runs, tmp_path):
  shutil.copytree(runs / 'adapter', tmp_path / 'adapter')
  shutil.rmtree(tmp_path / 'adapter' / 'checkpoints' / '6')
  assert train(tmp_path / 'adapter', f'--config.init_from={runs / "base"}', *LORA) == 0
  whole, resumed = (workdir.open_run(str(root / 'adapter'))[1].state for root in (runs, tmp_path))
  assert int(resumed.step) == 6
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(whole))


def test_adapters_change_under_one_base(runs):
  """What is compiled serves every adapter of its options."""
  (_, run), (_, early) = (workdir.open_run(str(runs / 'adapter'), step=step) for step in (6, 3))
  late, expected = (opened.sample(4, seed=0)['image'] for opened in (run, early))
  assert not np.array_equal(late, expected)
  run.restore(early.state)
  np.testing.assert_array_equal(run.sample(4, seed=0)['image'], expected)


def test_merged_run_samples_and_evaluates_alike_without_its_base(runs, tmp_path, capsys):
  on_base = images(f'--workdir={runs / "base"}', f'--adapter={runs / "adapter"}', out=tmp_path / 'on_base.npz')
  alone = images(f'--workdir={runs / "adapter"}', out=tmp_path / 'alone.npz')
  plain = images(f'--workdir={runs / "base"}', out=tmp_path / 'plain.npz')
  np.testing.assert_array_equal(on_base, alone)
  assert abs(alone - plain).max() > 1  # the adapters do something
  shutil.copytree(runs / 'adapter', tmp_path / 'adapter')
  assert main(['merge', f'--workdir={runs / "adapter"}', f'--out={tmp_path / "merged"}']) == 0
  assert abs(images(f'--workdir={tmp_path / "merged"}', out=tmp_path / 'merged.npz') - alone).max() <= 1
  last = [images(f'--workdir={folder}', '--average=last', out=tmp_path / 'last.npz')
          for folder in (runs / 'adapter', tmp_path / 'merged')]
  assert abs(last[1] - last[0]).max() <= 1 < abs(last[0] - alone).max()  # another average of the same adapters
  assert main(['sample', f'--workdir={runs / "adapter"}', '--average=first', f'--out={tmp_path / "x.npz"}']) == 2
  assert "no average is called 'first'; they are ['fast', 'last']" in capsys.readouterr().err
  found = []
  for folder in (runs / 'adapter', tmp_path / 'merged'):
    assert main(['evaluate', f'--workdir={folder}', '--no-samples']) == 0
    text = capsys.readouterr().out
    found.append(json.loads(text[text.index('{'):])['metrics'])
  assert found[1] == pytest.approx(found[0], rel=1e-5)
  # A merged run is a base
  assert train(tmp_path / 'second', f'--config.init_from={tmp_path / "merged"}', *LORA, *QUIET) == 0
  assert main(['merge', f'--workdir={runs / "adapter"}', f'--out={tmp_path / "merged"}']) == 2


def test_a_base_kept_in_bfloat16_is_merged_and_known_in_float32(runs, tmp_path):
  adapter = tmp_path / 'half'
  assert train(adapter, f'--config.init_from={runs / "base"}', *LORA, *QUIET, '--config.model.dtype=bfloat16') == 0
  facts = [json.loads((path / 'config.json').read_text())['assets']['parts']['base']
           for path in (runs / 'adapter', adapter)]
  assert facts[0] == facts[1]  # the checksum is that of the base, in whatever type it is kept
  _, run = workdir.open_run(str(adapter))
  kernel = run.frozen['base']['params']['net']['decoder']['dense']['kernel']
  assert kernel.dtype == 'bfloat16' and {leaf.dtype.name for leaf in jax.tree.leaves(run.state.params)} == {'float32'}
  _, base = workdir.open_run(str(runs / 'base'))
  exact = base.params(averaged=False)['net']['decoder']['dense']['kernel']
  np.testing.assert_array_equal(kernel, exact.astype('bfloat16'))
  assert main(['merge', f'--workdir={adapter}', f'--out={tmp_path / "merged"}']) == 0
  merged = workdir.open_run(str(tmp_path / 'merged'))[1].params(averaged=False)['net']['decoder']['dense']['kernel']
  a, b = (np.asarray(run.state.params['lora']['decoder']['dense']['kernel'][name], np.float64) for name in 'AB')
  assert merged.dtype == 'float32' and np.abs(32 * a @ b).max() > 0.01
  np.testing.assert_allclose(merged, exact + 32 * a @ b, rtol=1e-5, atol=1e-6)


def test_the_best_checkpoint_is_merged(runs, tmp_path):
  """The worst bound counts as the best here, so that it is not the newest."""
  best = ('--config.checkpoint.best=negative_elbo', '--config.checkpoint.mode=max', '--config.checkpoint.keep=1',
          '--config.evaluate_batches=0', '--config.optimizers.net.lr=0.01')
  assert train(tmp_path / 'adapter', f'--config.init_from={runs / "base"}', *LORA, *best,
               '--config.evaluate_every=3') == 0
  for step in ('best', '3'):
    assert main(['merge', f'--workdir={tmp_path / "adapter"}', f'--out={tmp_path / step}', f'--step={step}']) == 0
  chosen, third = (workdir.open_run(str(tmp_path / step))[1].state for step in ('best', '3'))
  assert int(chosen.step) == 3
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(chosen), jax.device_get(third))


def test_a_base_that_is_missing_or_another_one(runs, tmp_path, capsys):
  moved = tmp_path / 'moved'
  shutil.copytree(runs / 'base', moved)
  sample = ['sample', f'--workdir={runs / "adapter"}', '--num=4', f'--out={tmp_path / "x.npz"}']
  assert main([*sample, '--set', f'init_from={moved}']) == 0
  capsys.readouterr()
  for base, said in ((tmp_path / 'nowhere', 'is not there'), (runs / 'other',
                                                              'are not the ones that these adapters were trained on')):
    assert main([*sample, '--set', f'init_from={base}']) == 2
    assert said in capsys.readouterr().err
  assert main(
    ['sample', f'--workdir={runs / "base"}', f'--adapter={runs / "other"}', '--num=4',
     f'--out={tmp_path / "x.npz"}']) == 2
  assert 'is a run without adapters' in capsys.readouterr().err
  assert train(tmp_path / 'x', *LORA) == 2
  assert 'config.lora adapts the parameters of another run' in capsys.readouterr().err
  assert train(tmp_path / 'x', f'--config.init_from={runs / "adapter"}', *LORA) == 2
  assert 'is itself a run with adapters' in capsys.readouterr().err
  assert train(tmp_path / 'x', f'--config.init_from={runs / "base"}', *LORA, '--config.model.latent=4') == 2
  assert 'net/decoder/dense/kernel has shape (4, 64) here, and (3, 64) there' in capsys.readouterr().err
  assert main(['merge', f'--workdir={runs / "base"}', f'--out={tmp_path / "y"}']) == 2
  assert 'nothing to merge' in capsys.readouterr().err


@pytest.mark.slow
def test_another_text_is_read_in_the_alphabet_of_the_base(tmp_path, capsys):
  texts = {
    'base': 'the quick brown fox jumps over the lazy dog. ' * 40, 'fewer': 'a fox or a dog. ' * 80,
    'foreign': 'ÄÖÜ ' * 300
  }
  for name, text in texts.items():
    (tmp_path / f'{name}.txt').write_text(text)

  def train_on(name, path, *flags):
    return main([
      'train', f'--config={ROOT}/configs/language/shakespeare_char.py:smoke', f'--workdir={path}', *QUIET, *flags,
      f'--config.data.name={tmp_path / name}.txt', '--config.data.train=train[:80%]',
      '--config.data.heldout=train[80%:]', '--config.data.start=a', '--config.data.vocabulary=char'
    ])

  assert train_on('base', tmp_path / 'run') == 0
  lora = (f'--config.init_from={tmp_path / "run"}', '--config.lora.rank=2',
          "--config.lora.paths=('blocks/attention/.*/kernel',)")
  assert train_on('fewer', tmp_path / 'adapter', *lora) == 0
  alphabets = [
    json.loads((tmp_path / name / 'config.json').read_text())['assets']['alphabet'] for name in ('run', 'adapter')
  ]
  assert alphabets[0] == alphabets[1] and len(alphabets[0]) == 28
  capsys.readouterr()
  assert train_on('foreign', tmp_path / 'other', *lora) == 2
  assert 'Ä' in capsys.readouterr().err


def test_adapters_leave_as_safetensors(runs, tmp_path):
  out = tmp_path / 'out'
  assert main(['export', f'--workdir={runs / "adapter"}', f'--to={out}', '--format=safetensors']) == 0
  experiment, params, _ = exporting_safetensors.read(out)
  _, run = workdir.open_run(str(runs / 'adapter'))
  jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(run.params(averaged=True)))
  assert set(experiment.frozen['base']) == {'params', 'mutable'}  # of the base, where it was
  page = (out / 'README.md').read_text()
  assert 'low-rank adapters' in page and str(runs / 'base') in page
