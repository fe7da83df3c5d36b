"""Public weights and runs of them as parts: text encoders and features, equal to the networks themselves."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.cli import inspect
from genjax.config import build, plain
from genjax.configs.classifiers import digits_classifier
from genjax.configs.language import multi30k
from genjax.data.text import tokenizers
from genjax.experiments import classifier, encoders, parts, seq2seq
from genjax.models.transformers.bert import BertConfig
from genjax.models.transformers.bert import encoder as bert
from genjax.models.transformers.decoder import llama, transformer
from genjax.models.transformers.t5 import t5_1_1
from genjax.models.transformers.vit import VitConfig
from genjax.models.transformers.vit import encoder as vit
from genjax.objectives import kinds
from genjax.runs import bases, importing, sources
from genjax.types import UserError, named_leaves

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 12
TEXTS = ('to be', 'whether it is nobler in the mind')
SIZES = dict(vocab=300, context=24, layers=2, heads=2, width=8)
MODELS = {
  'bert': (bert, BertConfig(**SIZES, pooler=False)),
  'bert_masked_lm': (bert, BertConfig(**SIZES, pooler=False, masked_lm=True)),
  't5_encoder': (seq2seq.seq2seq.seq2seq, t5_1_1('small', **SIZES, head_dim=4, decoder_layers=0, tied=True)),
  't5': (seq2seq.seq2seq.seq2seq, t5_1_1('small', **SIZES, head_dim=4, decoder_layers=1)),
  'llama': (transformer, llama(**SIZES, kv_heads=1, mlp_width=12)),
  'vit': (vit, VitConfig((8, 8, 1), 10, patch=4, layers=2, heads=2, width=8)),
}


@pytest.fixture
def public(tmp_path):
  """name -> a folder of public weights with a tokenizer."""

  def save(name):
    network, options = MODELS[name]
    folder = tmp_path / name
    interop.save(folder, options, network(options).init(jax.random.key(1))[0], architecture=name.split('_')[0])
    if name != 'vit':
      for file, data in tokenizers.train('bert' if 'bert' in name else 'bpe', [TEXT], 280).files().items():
        (folder / file).write_bytes(data)
    if 't5' in name:
      described = json.loads((folder / 'config.json').read_text())
      (folder / 'config.json').write_text(json.dumps({**described, 'n_positions': 24, 'eos_token_id': 1}))
    return folder

  return save


def opened(where, kind, **more):
  """A part, and its frozen group with arrays."""
  config = digits_classifier.get_config('smoke')
  config.parts.part = {'path': str(where), **more}
  part = parts.open(config.lock(), 'part', kind)
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(part.shapes))
  experiment = parts.attach(classifier.build(config), part)
  found = bases.attach(config, experiment)
  return part, found.frozen['part'], found.assets['parts']['part']


def hidden(name, params, ids_BL, mask_BL):
  network, options = MODELS[name]
  apply = network(options).apply
  if 'bert' in name:
    return apply(params, {}, ids_BL, mask_BT=mask_BL)[0]['hidden']
  if name == 'llama':
    return apply(params, {}, ids_BL, project=False)[0][0]
  return apply(params, {}, ids_BL, None, mask_BL)[0]


@pytest.mark.parametrize('name', [name for name in MODELS if name != 'vit'])
def test_public_text_encoders(name, public):
  folder = public(name)
  part, group, facts = opened(folder, 'text_encoder')
  encoder = part.functions
  assert facts['step'] is None and part.folder == folder and (encoder.width, encoder.length) == (8, 24)
  assert not any('decoder' in path or 'heads/' in path for path in named_leaves(group))
  ids_BL, mask_BL = encoder.tokenize(TEXTS, False)
  assert ids_BL.shape == mask_BL.shape == (2, 24) and ids_BL.dtype == np.int32 and mask_BL.dtype == bool
  assert 0 < mask_BL[0].sum() < mask_BL[1].sum() and not ids_BL[~mask_BL].any() or name == 't5'
  told = jax.jit(encoder.encode)(group, ids_BL, mask_BL)
  expected = np.where(mask_BL[..., None], hidden(name, interop.load(folder).params, ids_BL, mask_BL), 0)
  np.testing.assert_allclose(told['tokens'], expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(told['pooled'][0], expected[0][mask_BL[0]].mean(axis=0), rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match='tokens, and the encoder reads at most 24'):
    encoder.tokenize(['to be ' * 30], False)
  cut_L, = encoder.tokenize(['to be ' * 30], True)[0]
  whole_L = encoders.tokenizer(lambda text: encoder.tokenize([text], True)[0][0], 30)(['to be ' * 30], True)[0][0]
  assert cut_L.tolist() == whole_L[:24].tolist() and (name == 'llama' or cut_L[-1] == ids_BL[0][mask_BL[0]][-1])


@pytest.mark.parametrize('name', ['bert_masked_lm', 't5'])
def test_an_imported_run_is_the_same_part(name, public, tmp_path):
  folder = public(name)
  importing.import_model(folder, tmp_path / 'run')
  (there, group, _), (here, same, facts) = (opened(path, 'text_encoder') for path in (folder, tmp_path / 'run'))
  jax.tree.map(np.testing.assert_array_equal, group, same)
  assert facts['step'] == 0 and there.axes == here.axes and jax.tree.map(str, there.shapes) == jax.tree.map(
    str, here.shapes)
  np.testing.assert_array_equal(there.functions.tokenize(TEXTS, False)[0], here.functions.tokenize(TEXTS, False)[0])


def test_public_features_and_another_kind(public):
  folder = public('vit')
  part, group, _ = opened(folder, 'features', dtype='bfloat16')
  assert {leaf.dtype.name for leaf in jax.tree.leaves(group)} == {'bfloat16'}
  part, group, facts = opened(folder, 'features')
  image_BHWC = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
  network, options = MODELS['vit']
  outputs, _ = network(options).apply(interop.load(folder).params, {}, image_BHWC / np.float32(127.5) - 1)
  np.testing.assert_allclose(part.functions.predict(group, image_BHWC), outputs['classes'], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(part.functions.extract(group, image_BHWC), outputs['hidden'][:, 0], rtol=1e-4, atol=1e-5)
  assert (part.functions.width, part.functions.classes, part.functions.shape) == (8, 10, (8, 8, 1))
  for kind, more, said in (
      ('text_encoder', {}, 'is no text_encoder: its builder is genjax.experiments.classifier, .* are features'),
      ('features', {'path': f'{folder}@3'}, 'is a folder of public weights, which has no steps; leave @3 out'),
      ('features', {'averaged': True}, 'has no averaged parameters')):
    with pytest.raises(UserError, match=said):
      opened(folder, kind, **more)


def test_a_folder_that_is_damaged_or_no_model(public, tmp_path):
  folder = public('bert')
  described = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**described, 'hidden_size': 10}))
  with pytest.raises(UserError, match='of another shape'):
    opened(folder, 'text_encoder')
  (folder / 'config.json').write_text('{}')
  with pytest.raises(UserError, match='lacks model_type'):
    opened(folder, 'text_encoder')


def test_words_as_tokens(tmp_path):
  """A run of translation reads sentences in its own words."""
  for split in ('train', 'test'):
    (tmp_path / f'{split}.de').write_text('Ein Hund läuft.\nEine Katze läuft!\n')
    (tmp_path / f'{split}.en').write_text('A dog runs.\nA cat runs!\n')
  config = multi30k.get_config('smoke')
  config.data.update(name=str(tmp_path), heldout='test', least_count=1)
  experiment = seq2seq.build(config.lock())
  encoder = seq2seq.text_encoder(config, experiment)
  ids_BL, mask_BL = encoder.tokenize(['ein Hund läuft.', 'eine Katze'], False)
  np.testing.assert_array_equal(ids_BL, [np.pad(experiment.conditions['source'].parse(text), (0, 12 - size),
                                                constant_values=1)
                                         for text, size in (('ein Hund läuft.', 6), ('eine Katze', 4))])
  params = experiment.objective.init(jax.random.key(0), {}).params
  told = encoder.encode({'params': params}, ids_BL, mask_BL)
  assert told['tokens'].shape == (2, 12, config.model.width) and not told['tokens'][1, 4:].any()
  assert all(np.abs(row).max() > 0 for row in told['pooled'])


def test_what_is_offered_and_read():
  assert set(parts.offered(classifier)) == {'features', 'perceptual'}
  assert set(parts.offered(seq2seq)) == {'text_encoder'}
  shapes = {'params': {'net': {'a': 1, 'b': {'c': 2}}, 'other': {'d': 3}}, 'mutable': {'net': {}}, 'frozen': {}}
  assert parts._read_only(shapes, ('params/net/b/.*',), 'x') == {'params': {'net': {'b': {'c': 2}}},
                                                                 'mutable': {'net': {}}, 'frozen': {}}
  assert parts._read_only(shapes, kinds.ALL, 'x') == shapes
  with pytest.raises(UserError, match=r"x reads \['params/met/.*'\], which match nothing of the part"):
    parts._read_only(shapes, ('params/met/.*',), 'x')
  table = parts.inside(shapes['params'], {'net': (('a', ('mlp',)), ('.*', (None,)))}, 'params')
  assert parts._matching(table, {'params': {'net': {'b': {'c': 2}}}}) == (('params/net/(?:.*)', (None,)),)
  fields = {field.name for field in dataclasses.fields(sources.Options)}
  assert plain(dataclasses.asdict(build(sources.Options, {'path': 'x'}, 'parts.x'))).keys() == fields


def test_several_parts_lie_on_a_mesh_by_their_own_rules(public):
  config = digits_classifier.get_config('smoke')
  config.parts = {'text': str(public('bert')), 'eyes': str(public('vit')), 'unused': ''}
  found = [parts.open(config.lock(), name, kind) for name, kind in (('text', 'text_encoder'), ('eyes', 'features'))]
  experiment = parts.attach(classifier.build(config), *found)
  assert set(experiment.frozen) == set(experiment.sources) == {'text', 'eyes'} == set(sources.names(config))
  for mesh, path, layout in (
      ('tensor:2', 'params/net/embedding/token/embedding', 'tensor -'),  # the rule of the encoder's vocabulary
      ('tensor:2', 'params/net/blocks/up/kernel', '- - tensor'),
      ('data:2,fsdp:4', 'params/net/embedding/token/embedding', 'fsdp -')):
    report = inspect.inspect(experiment, 0, inspect.abstract_mesh(mesh), {})
    rows = {row['path']: row['layout'] for row in report['parameters'] if row['group'] == 'text'}
    assert rows[path] == layout
  assert report['parts']['text']['per_device'] < report['parts']['text']['bytes'] / 3
  frozen = bases.attach(config, experiment).frozen
  jax.tree.map(lambda leaf, shape: (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype) or pytest.fail(str(shape)),
               frozen, dict(experiment.frozen))
