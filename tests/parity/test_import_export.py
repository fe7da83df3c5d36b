"""A GPT-2 that `transformers` made becomes a run, is tuned on Shakespeare, and goes back to `transformers`."""

import json

import numpy as np
import pytest

from genjax.cli.main import main
from genjax.data.text import tokenizers

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')


def test_there_and_back(tmp_path, shared_data, capsys):
  text = shared_data / 'tinyshakespeare' / 'input.txt'
  torch.manual_seed(0)
  config = transformers.GPT2Config(vocab_size=304, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
                                   eos_token_id=0)
  theirs = transformers.GPT2LMHeadModel(config).eval()
  theirs.save_pretrained(tmp_path / 'public')
  bpe = tokenizers.train('bpe', [text.read_text()[:50_000]], 300)
  for name, data in bpe.files().items():
    (tmp_path / 'public' / name).write_bytes(data)
  run, tuned = tmp_path / 'run', tmp_path / 'tuned'
  assert main(['import', f'--from={tmp_path / "public"}', f'--workdir={run}']) == 0
  assert main(['export', f'--workdir={run}', f'--to={tmp_path / "copy"}']) == 0
  same, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / 'copy', output_loading_info=True)
  assert not report['missing_keys'] and not report['unexpected_keys'] and same.config.eos_token_id == 0
  before = theirs.state_dict()
  assert before.keys() == same.state_dict().keys()
  assert all(torch.equal(before[name], value) for name, value in same.state_dict().items())
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'copy')
  assert again('Speak, speak.')['input_ids'] == bpe.encode('Speak, speak.').tolist() and again.eos_token_id == 0

  argv = [
    f'--config={run}/config.json', f'--config.init_from={run}', f'--workdir={tuned}', '--config.steps=40',
    '--config.log_every=40', '--config.optimizers.net.name=adamw', '--config.optimizers.net.lr=0.003',
    '--config.data.context=16', f'--config.data.name={text}', '--config.data.train=train[:90%]',
    '--config.data.heldout=train[99%:]'
  ]
  assert main(['train', *argv]) == 0
  loss = json.loads((tuned / 'summary.json').read_text())['heldout']['loss']
  assert loss < 5.4 < np.log(304)
  assert main(['export', f'--workdir={tuned}', f'--to={tmp_path / "tuned_public"}']) == 0
  model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / 'tuned_public').eval()
  stream = bpe.encode(text.read_text()[len(text.read_text()) * 99 // 100:]).astype(np.int64)
  windows = torch.tensor(stream[:(len(stream) - 1) // 16 * 16].reshape(-1, 16))
  targets = torch.tensor(stream[1:(len(stream) - 1) // 16 * 16 + 1].reshape(-1, 16))
  with torch.no_grad():
    logits = model(windows).logits
  assert torch.nn.functional.cross_entropy(logits.flatten(0, 1),
                                           targets.flatten()).item() == pytest.approx(loss, abs=1e-4)
