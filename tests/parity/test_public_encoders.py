"""Imported BERT models against `transformers`: random small ones, padded on either side, in and out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

SIZES = dict(vocab_size=53, hidden_size=33, num_hidden_layers=3, num_attention_heads=3, intermediate_size=47,
             max_position_embeddings=29, type_vocab_size=3, initializer_range=0.3)
CASES = {
  'BertModel': {},
  'BertForMaskedLM': {'layer_norm_eps': 1e-5, 'hidden_act': 'gelu_new'},
  'BertForPreTraining': {'hidden_act': 'relu'},
  'BertForNextSentencePrediction': {'hidden_act': 'silu'},
  'BertForSequenceClassification': {'num_labels': 5},
}
# Names of our outputs -> theirs.
OUTPUTS = {'hidden': ('last_hidden_state', ('BertModel',)), 'pooled': ('pooler_output', ('BertModel',)),
           'tokens': ('logits', ('BertForMaskedLM',)), 'next_sentence': ('logits', ('BertForNextSentencePrediction',)),
           'classes': ('logits', ('BertForSequenceClassification',))}
PRETRAINING = {'tokens': 'prediction_logits', 'next_sentence': 'seq_relationship_logits'}


def published(name, folder, dtype=torch.float32, **options):
  torch.manual_seed(0)
  model = getattr(transformers, name)(transformers.BertConfig(**{**SIZES, **options})).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.to(dtype).save_pretrained(folder)
  return model


def inputs(padding):
  rng = np.random.default_rng(0)
  mask = np.ones((3, 21), int)
  for row, size in enumerate((0, 4, 13)):
    mask[row, slice(0, size) if padding == 'left' else slice(21 - size, 21)] = 0
  return rng.integers(0, 53, (3, 21)), rng.integers(0, 3, (3, 21)), mask


@pytest.mark.parametrize('padding', ['left', 'right'])
@pytest.mark.parametrize('name', CASES)
def test_outputs(name, padding, tmp_path):
  theirs = published(name, tmp_path / 'public', **CASES[name])
  ours = interop.load(tmp_path / 'public')
  tokens, types, mask = inputs(padding)
  found, _ = jax.jit(ours.network.apply)(ours.params, ours.mutable, *map(jnp.asarray, (tokens, types, mask)))
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types))
  names = PRETRAINING if name == 'BertForPreTraining' else {
    ours: theirs for ours, (theirs, classes) in OUTPUTS.items() if name in classes
  }
  compared = 0
  for mine, other in names.items():
    ours_values, values = np.asarray(found[mine]), getattr(expected, other).numpy()
    places = mask == 1 if values.ndim == 3 else mask[:, 0] == 1  # a pooled first token that is padding means nothing
    np.testing.assert_allclose(ours_values[places], values[places], rtol=0, atol=1e-4 * np.abs(values[places]).max())
    compared += 1
  assert compared


@pytest.mark.parametrize('name', CASES)
def test_round_trip(name, tmp_path):
  published(name, tmp_path / 'public', **CASES[name])
  ours = interop.load(tmp_path / 'public')
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  models, reports = zip(*(getattr(transformers, name).from_pretrained(tmp_path / folder, output_loading_info=True)
                          for folder in ('public', 'copy')))
  assert not any(report[kind] for report in reports for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  assert models[1].config.architectures == [name]
  entries = [{key: value for key, value in model.config.to_dict().items() if key != '_name_or_path'} for model in models
            ]
  assert entries[0] == entries[1]
  interop.save(tmp_path / 'own', ours.config, ours.params)  # options and parameters alone are enough
  own = getattr(transformers, name).from_pretrained(tmp_path / 'own')
  assert all(
    torch.equal(mine, theirs) for mine, theirs in zip(own.state_dict().values(), models[0].state_dict().values()))


def test_names_of_older_files(tmp_path):
  """Norms with gamma and beta, the output layer repeated, positions counted: as bert-base-uncased has them."""
  published('BertForPreTraining', tmp_path / 'public')
  expected = interop.load(tmp_path / 'public')
  path = tmp_path / 'public' / 'model.safetensors'
  tensors = {name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): tensor
             for name, tensor in load_file(path).items()}
  tensors['cls.predictions.decoder.weight'] = tensors['bert.embeddings.word_embeddings.weight'].copy()
  tensors['bert.embeddings.position_ids'] = np.arange(29, dtype=np.float32)[None]
  save_file(tensors, path)
  jax.tree.map(np.testing.assert_array_equal, interop.load(tmp_path / 'public').params, expected.params)


def test_half_precision(tmp_path):
  published('BertForMaskedLM', tmp_path / 'public', torch.bfloat16)
  ours = interop.load(tmp_path / 'public')
  interop.save(tmp_path / 'copy', ours)
  assert {leaf.dtype for leaf in jax.tree.leaves(ours.params)} == {jnp.dtype('bfloat16')}
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  tokens, types, mask = inputs('right')
  with torch.no_grad():
    expected = transformers.BertForMaskedLM.from_pretrained(tmp_path / 'public', dtype=torch.float32).eval()(
      torch.tensor(tokens), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)).logits.numpy()
  found, _ = ours.network.apply(ours.params, ours.mutable, *map(jnp.asarray, (tokens, types, mask)))
  np.testing.assert_allclose(found['tokens'][mask == 1], expected[mask == 1], rtol=0,
                             atol=1e-4 * np.abs(expected).max())


def test_what_genjax_does_not_have(tmp_path):
  published('BertForTokenClassification', tmp_path / 'tokens')
  with pytest.raises(UserError, match='a token classifier'):
    interop.load(tmp_path / 'tokens')
