"""Generation against `generate` of transformers: padding on either side, prompts of several lengths, greedy and by
beams."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import interop
from genjax.models.transformers import decoder
from genjax.objectives.base import Context
from genjax.objectives.decoding import END, SamplerOptions
from genjax.objectives.language import LanguageModel
from tests.parity.test_public_decoders import CASES, published

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
pytestmark = pytest.mark.slow
NAMES = ['gpt2', 'llama3_scaling', 'mistral_window', 'llama_tied_odd']
LENGTH = {'gpt2': 39}  # 9 more fill the context; others go on for 64


def case(name, folder):
  """A public model here and there, and prompts of lengths 9, 4 and 6 with zeros on the left."""
  length = LENGTH.get(name, 64)
  config = CASES[name]()
  if name != 'gpt2':
    config.max_position_embeddings = 80
  theirs = published(config, folder)
  tokens = np.random.default_rng(3).integers(1, 51, (3, 9))
  mask = np.arange(9) >= np.array([[0], [5], [3]])
  return theirs, interop.load(folder), tokens * mask, mask, length


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('name', NAMES)
def test_padding(name, side, tmp_path):
  theirs, ours, tokens, mask, _ = case(name, tmp_path)
  if side == 'right':
    tokens, mask = tokens[:, ::-1].copy(), mask[:, ::-1].copy()
  positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens), attention_mask=torch.tensor(mask).long(),
                      position_ids=torch.tensor(positions)).logits.numpy()
  found = jax.jit(ours.network.apply)(ours.params, ours.mutable, jnp.asarray(tokens),
                                      segments_BT=jnp.asarray(mask, jnp.int32), positions_BT=jnp.asarray(positions))[0]
  np.testing.assert_allclose(np.asarray(found)[mask], expected[mask], rtol=0, atol=1e-4 * np.abs(expected[mask]).max())


OPTIONS = [{}, {'repetition_penalty': 1.3}, {'beams': 3}, {'beams': 4, 'length_penalty': 0.5, 'stops': 2}]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('name', NAMES)
def test_same_tokens(name, options, tmp_path):
  theirs, ours, tokens, mask, length = case(name, tmp_path)
  options = dict(options)
  stop = [7, 23][:options.pop('stops', 1 if 'beams' in options else 0)]
  expected = theirs.generate(torch.tensor(tokens), attention_mask=torch.tensor(mask).long(), max_new_tokens=length,
                             do_sample=False, num_beams=options.get('beams', 1), length_penalty=options.get(
                               'length_penalty', 1.0), repetition_penalty=options.get('repetition_penalty', 1.0),
                             eos_token_id=stop or None, pad_token_id=1)
  expected = expected[:, 9:].numpy()
  sampler = SamplerOptions(length=length, temperature=0, stop=tuple(stop), **options)
  objective = LanguageModel(ours.network, functools.partial(decoder.init_cache, ours.config), ours.config.context,
                            sampler)
  prompts = np.stack([np.concatenate([row[keep], np.full(9 - keep.sum(), END)]) for row, keep in zip(tokens, mask)])
  context = Context(step=0, mutable=ours.mutable, ema={}, frozen={})
  found = jax.jit(objective.sample)({'net': ours.params}, context, jax.random.split(jax.random.key(0), 3),
                                    {'prompt': jnp.asarray(prompts)})
  for row, size, reference in zip(np.asarray(found['tokens']), mask.sum(axis=1), expected):
    new = row[size:][row[size:] >= 0]
    np.testing.assert_array_equal(new, reference[:len(new)])
    np.testing.assert_array_equal(reference[len(new):], 1)
