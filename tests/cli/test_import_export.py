"""Runs of public models: what a run keeps, and what comes back. Bad models: tests/system/test_bad_weights.py."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from genjax import interop
from genjax.cli.main import main
from genjax.config import flatten
from genjax.data.text import tokenizers
from genjax.interop import peft
from genjax.models.transformers.decoder import TransformerConfig, llama, transformer
from genjax.nn import lora
from genjax.runs import builders, workdir

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = 'To be, or not to be, that is the question:\nWhether \'tis nobler in the mind to suffer\n' * 12
SIZES = dict(vocab=272, context=24, layers=2, heads=2, width=8)
CONFIGS = {'gpt2': TransformerConfig(**SIZES), 'llama': llama(**SIZES, kv_heads=1, mlp_width=12)}


def write_public(folder, name, dtype='float32', size=270, **options):
  """A public model with random parameters and a tokenizer."""
  params = transformer(CONFIGS[name]).init(jax.random.key(0))[0]
  interop.save(folder, CONFIGS[name], params, dtype=dtype, **options)
  for file, data in tokenizers.train('bpe', [TEXT], size).files().items():
    (folder / file).write_bytes(data)
  return folder


def fails(capsys, *argv):
  """Runs a command that must fail; returns what it said."""
  assert main([str(arg) for arg in argv]) == 2
  return capsys.readouterr().err


@pytest.fixture
def public(tmp_path):
  return write_public(tmp_path / 'public', 'gpt2')


@pytest.mark.parametrize(('name', 'dtype'), [('gpt2', 'float32'), ('llama', 'bfloat16')])
def test_round_trip_is_bitwise(tmp_path, name, dtype):
  folder = write_public(tmp_path / 'public', name, dtype)
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, 'eos_token_id': 0, 'mine': [1]}))
  assert main(['import', f'--from={folder}', f'--workdir={tmp_path / "run"}', f'--dtype={dtype}']) == 0
  kept, _ = workdir.read_config(str(tmp_path / 'run'))
  options = builders.options(kept).options  # flags reach what the config of an imported run spells, and the rest
  assert {key for key in flatten(kept) if not key.startswith('assets.')} <= {*options, 'optimizers'}
  shutil.move(folder, tmp_path / 'moved')  # a run needs nothing but itself
  assert main(['export', f'--workdir={tmp_path / "run"}', f'--to={tmp_path / "out"}']) == 0
  for file in ('model.safetensors', 'tokenizer.json', 'tokenizer_config.json'):
    assert (tmp_path / 'out' / file).read_bytes() == (tmp_path / 'moved' / file).read_bytes()
  assert json.loads((tmp_path / 'out' / 'config.json').read_text()) == {**config, 'eos_token_id': 0, 'mine': [1]}
  assert sorted(path.name for path in tmp_path.iterdir()) == ['moved', 'out', 'run']


def test_imported_run_samples_evaluates_and_is_tuned(tmp_path, public, capsys):
  (tmp_path / 'text.txt').write_text(TEXT)
  run, tuned = tmp_path / 'run', tmp_path / 'tuned'
  assert main(['import', f'--from={public}/model.safetensors', f'--workdir={run}']) == 0
  shutil.rmtree(public)
  capsys.readouterr()
  sample = ['--num=1', '--set', 'sampler.length=8']
  assert main(['sample', f'--workdir={run}', '--prompt=To be', *sample]) == 0
  assert capsys.readouterr().out.startswith('To be')
  assert main(['sample', f'--workdir={run}', *sample]) == 0
  assert capsys.readouterr().out.startswith('<|endoftext|>')
  assert 'this run has no data' in fails(capsys, 'evaluate', f'--workdir={run}')
  data = [f'data.name={tmp_path / "text.txt"}', 'data.train=train[:90%]', 'data.heldout=train[90%:]']
  assert main(['evaluate', f'--workdir={run}', '--set', *data]) == 0
  values = json.loads(capsys.readouterr().out)['metrics']
  part = TEXT[len(TEXT) * 90 // 100:]
  mean = len(part) / len(tokenizers.train('bpe', [TEXT], 270).encode(part))
  assert values['heldout/bits_per_byte'] == pytest.approx(values['heldout/loss'] / np.log(2) / mean, rel=1e-6)
  argv = [
    'train', f'--config={run}/config.json', f'--config.init_from={run}', f'--workdir={tuned}', '--config.steps=30',
    '--config.optimizers.net.name=adamw', '--config.optimizers.net.lr=0.01', '--config.data.context=12',
    *(f'--config.{item}' for item in data)
  ]
  assert main(argv) == 0 and main(argv) == 0  # the second goes on, at the end
  assert main(['export', f'--workdir={tuned}', f'--to={tmp_path / "out"}']) == 0
  assert json.loads((tuned / 'summary.json').read_text())['heldout']['loss'] < values['heldout/loss'] - 0.5
  assert interop.load(tmp_path / 'out').config.context == 24  # positions beyond the context of the data stay
  assert tokenizers.open_tokenizer(tmp_path / 'out').size == 270


@pytest.mark.slow
def test_export_of_a_run_that_was_never_public(tmp_path, capsys):
  (tmp_path / 'text.txt').write_text(TEXT)
  text = (ROOT / 'configs' / 'language' / 'shakespeare_bpe.py').read_text().replace('  if arg.smoke:',
                                                                       '  config.ema = dict(net=0.5)\n  if arg.smoke:')
  (tmp_path / 'averaged.py').write_text(text)
  run, config = tmp_path / 'run', tmp_path / 'run' / 'config.json'
  assert main([
    'train', f'--config={tmp_path}/averaged.py:smoke', f'--workdir={run}',
    f'--config.data.name={tmp_path / "text.txt"}', '--config.data.train=train[:90%]',
    '--config.data.heldout=train[90%:]', '--config.model.bias=True', '--config.data.vocabulary=char',
    '--config.data.vocabulary_size=0'
  ]) == 0
  for options, folder in ((['--raw'], 'raw'), ([], 'averaged'), (['--step=2', '--dtype=bfloat16'], 'half')):
    assert main(['export', f'--workdir={run}', f'--to={tmp_path / folder}', *options]) == 0
  assert "without a tokenizer: transformers has none for the vocabulary 'char'" in capsys.readouterr().err
  raw, averaged, half = (load_file(tmp_path / folder / 'model.safetensors') for folder in ('raw', 'averaged', 'half'))
  name = 'transformer.wte.weight'
  assert not np.array_equal(raw[name], averaged[name]) and half[name].dtype == 'bfloat16'
  np.testing.assert_array_equal(half[name], averaged[name].astype(half[name].dtype))
  assert 'no checkpoint of step 7' in fails(capsys, 'export', f'--workdir={run}', f'--to={tmp_path / "x"}', '--step=7')
  assert 'is not an empty folder' in fails(capsys, 'export', f'--workdir={run}', f'--to={tmp_path / "raw"}')
  config.write_text(config.read_text().replace('"bias": true', '"bias": false'))
  assert 'bias=False' in fails(capsys, 'export', f'--workdir={run}', f'--to={tmp_path / "x"}')


def test_pickle_file_and_workdirs_that_are_taken(tmp_path, public, capsys):
  (public / 'pytorch_model.bin').write_bytes(b'')
  assert 'pickles' in fails(capsys, 'import', f'--from={public}/pytorch_model.bin', f'--workdir={tmp_path / "run"}')
  assert 'is not a folder' in fails(capsys, 'import', f'--from={tmp_path / "absent"}', f'--workdir={tmp_path / "run"}')
  (tmp_path / 'taken').mkdir()
  (tmp_path / 'taken' / 'notes').write_text('')
  assert 'not an empty folder' in fails(capsys, 'import', f'--from={public}', f'--workdir={tmp_path / "taken"}')
  assert main(['import', f'--from={public}', f'--workdir={tmp_path / "run"}']) == 0
  assert 'holds a run already' in fails(capsys, 'import', f'--from={public}', f'--workdir={tmp_path / "run"}')
  # The run trains no step by itself, and has nothing to train on.
  assert 'this run has no data' in fails(capsys, 'train', f'--config={tmp_path}/run/config.json',
                                         f'--workdir={tmp_path / "run"}')
  (tmp_path / 'run' / 'tokenizer.json').write_text('{}')
  assert 'is not the file that the run began with' in fails(capsys, 'sample', f'--workdir={tmp_path / "run"}')


def test_adapters_of_peft_are_runs_on_their_base(tmp_path, public, capsys):
  base, run, out = tmp_path / 'base', tmp_path / 'adapter', tmp_path / 'out'
  assert main(['import', f'--from={public}', f'--workdir={base}']) == 0
  model = interop.load(public)
  options = lora.Options(3, 6.0, (r'blocks/attention/(query|key|value)/kernel', r'blocks/up/kernel'))
  kernels = lora.targets(options, {'net': model.params})['net']
  params = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape),
                        lora.init(jax.random.key(0), kernels, 3))
  peft.save(tmp_path / 'given', model, peft.Adapter(options, params))
  assert main(['import', f'--from={tmp_path / "given"}', f'--base={base}', f'--workdir={run}']) == 0
  texts = []
  for flags in (['--workdir', base], ['--workdir', run], ['--workdir', base, '--adapter', run]):
    capsys.readouterr()
    assert main(['sample', *map(str, flags), '--num=1', '--prompt=To be', '--set', 'sampler.length=12']) == 0
    texts.append(capsys.readouterr().out)
  assert texts[0] != texts[1] == texts[2]
  assert main(['export', f'--workdir={run}', f'--to={out}']) == 0
  given, back = (peft.load(folder, model) for folder in (tmp_path / 'given', out))
  assert given.options.scale == back.options.scale
  merged = [lora.merge(model.params, adapter.params, adapter.options.scale) for adapter in (given, back)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), *merged)


def test_a_run_of_another_family_is_not_exported(smoke_run, tmp_path, capsys):
  assert 'genjax.experiments.vae have no public architecture' in fails(
    capsys, 'export', f'--workdir={smoke_run("autoencoders/digits_vae")}', f'--to={tmp_path / "x"}')
