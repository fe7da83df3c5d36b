"""Public weights in and out, on small folders that genjax wrote and that are then damaged."""

import dataclasses
import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.interop import files
from genjax.models.transformers.decoder import TransformerConfig, llama, transformer
from genjax.types import StorageError, UserError

SIZES = dict(vocab=19, context=12, layers=2, heads=4, width=16)
SCALING = {'kind': 'llama3', 'factor': 8.0, 'low': 1.5, 'high': 5.0, 'original_context': 6}
CONFIGS = {
  'gpt2': TransformerConfig(**SIZES, mlp='gelu'),
  'gpt2_untied': TransformerConfig(**SIZES, mlp_width=17, tied=False, norm_eps=1e-3),
  'llama': llama(**SIZES, kv_heads=2, head_dim=4, mlp_width=15, attention_bias=True, mlp_bias=True,
                 rope_scaling=SCALING),
  'llama_tied': llama(**SIZES, kv_heads=4, head_dim=6, mlp_width=15, tied=True, attention_bias=False, mlp_bias=False,
                      rope_theta=77.0, rope_scaling={'kind': 'linear', 'factor': 2.0}),
  'mistral': llama(**SIZES, kv_heads=1, head_dim=4, mlp_width=15, window=5),
  'mixtral': llama(**SIZES, kv_heads=1, head_dim=4, mlp_width=15, window=5, experts=3, experts_per_token=2,
                   balance=0.02),
}


def random_params(config, dtype='float32'):
  shapes = jax.eval_shape(transformer(config).init, jax.random.key(0))[0]
  leaves, structure = jax.tree.flatten(shapes)
  noise = [
    np.random.default_rng(number).normal(size=leaf.shape).astype(jnp.dtype(dtype)) for number, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, noise)


def assert_bitwise(left, right):
  def check(one, other):
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))

  jax.tree.map(check, left, right)


def edit(path, **entries):
  """Sets entries of a JSON file; None removes one."""
  values = {**json.loads(path.read_text()), **entries}
  path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def edit_tensors(folder, change):
  tensors = load_file(folder / files.SINGLE)
  change(tensors)
  save_file(tensors, folder / files.SINGLE)


@pytest.fixture
def saved(tmp_path):
  def save(name, **options):
    folder = tmp_path / name
    interop.save(folder, CONFIGS[name], random_params(CONFIGS[name]), **options)
    return folder

  return save


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('name', CONFIGS)
def test_round_trip(name, dtype, tmp_path):
  config, params = CONFIGS[name], random_params(CONFIGS[name], dtype)
  interop.save(tmp_path / 'first', config, params)
  model = interop.load(tmp_path / 'first')
  assert model.architecture == name.split('_')[0]
  ours = {**dataclasses.asdict(config), 'mlp_width': config.mlp_width or 0}
  found = dataclasses.asdict(model.config)
  if name in ('mistral', 'mixtral'):
    assert (found['attention_bias'], found['mlp_bias']) == (None, None)
  assert found == ours
  assert_bitwise(model.params, params)
  assert model.mutable == {}
  interop.save(tmp_path / 'second', model)
  for file in ('config.json', files.SINGLE):
    assert (tmp_path / 'second' / file).read_bytes() == (tmp_path / 'first' / file).read_bytes()
  assert [path.name for path in tmp_path.iterdir() if path.name not in ('first', 'second')] == []


def test_network_is_the_one_of_the_config(saved):
  model = interop.load(saved('mistral'))
  tokens = jax.random.randint(jax.random.key(0), (2, 12), 0, 19)
  expected = transformer(CONFIGS['mistral']).apply(random_params(CONFIGS['mistral']), {}, tokens)[0]
  np.testing.assert_array_equal(model.network.apply(model.params, model.mutable, tokens)[0], expected)


def test_layouts_of_tensors(saved):
  """Conv1D keeps (in, out) and fuses queries, keys and values; linear layers are (out, in)."""
  params, tensors = random_params(CONFIGS['gpt2']), load_file(saved('gpt2') / files.SINGLE)
  attention = params['blocks']['attention']
  fused = np.concatenate([attention[name]['kernel'][1] for name in ('query', 'key', 'value')], axis=1)
  np.testing.assert_array_equal(tensors['transformer.h.1.attn.c_attn.weight'], fused)
  assert 'lm_head.weight' not in tensors
  params, tensors = random_params(CONFIGS['llama']), load_file(saved('llama') / files.SINGLE)
  np.testing.assert_array_equal(tensors['model.layers.1.self_attn.k_proj.weight'],
                                params['blocks']['attention']['key']['kernel'][1].T)
  np.testing.assert_array_equal(tensors['lm_head.weight'], params['head']['out']['kernel'].T)
  params, tensors = random_params(CONFIGS['mixtral']), load_file(saved('mixtral') / files.SINGLE)
  for theirs, ours in (('w1', 'gate'), ('w2', 'down'), ('w3', 'up')):
    np.testing.assert_array_equal(tensors[f'model.layers.1.block_sparse_moe.experts.2.{theirs}.weight'],
                                  params['blocks']['experts'][f'{ours}_kernel'][1, 2].T)


def test_shards(saved, tmp_path):
  folder = saved('llama', shard_bytes=2000)
  index = json.loads((folder / files.INDEX).read_text())
  shards = sorted(folder.glob('model-*-of-*.safetensors'))
  assert len(shards) > 2 and not (folder / files.SINGLE).exists()
  held = [load_file(shard) for shard in shards]
  assert {name: shard.name for shard, tensors in zip(shards, held) for name in tensors} == index['weight_map']
  sizes = [[tensor.nbytes for tensor in tensors.values()] for tensors in held]
  assert all(sum(shard) <= 2000 or len(shard) == 1 for shard in sizes)
  assert index['metadata']['total_size'] == sum(sum(shard) for shard in sizes)
  assert_bitwise(interop.load(folder).params, random_params(CONFIGS['llama']))


def test_types_asked_for(saved, tmp_path):
  params = random_params(CONFIGS['gpt2'])
  low = interop.load(saved('gpt2'), dtype='bfloat16')
  assert_bitwise(low.params, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
  interop.save(tmp_path / 'low', low)
  assert json.loads((tmp_path / 'low' / 'config.json').read_text())['torch_dtype'] == 'bfloat16'
  high = interop.load(tmp_path / 'low', dtype='float32')
  assert {leaf.dtype for leaf in jax.tree.leaves(high.params)} == {jnp.dtype('float32')}
  interop.save(tmp_path / 'again', high, dtype='bfloat16')
  assert (tmp_path / 'again' / files.SINGLE).read_bytes() == (tmp_path / 'low' / files.SINGLE).read_bytes()
  with pytest.raises(UserError, match="dtype must be one of .*'int8'"):
    interop.load(tmp_path / 'low', dtype='int8')


def test_numbers_too_large_for_the_type(saved):
  folder = saved('llama')
  edit_tensors(folder, lambda tensors: tensors.update({'model.norm.weight': np.full(16, 1e6, np.float32)}))
  with pytest.raises(UserError, match=r"model\.norm\.weight has numbers beyond float16's 65504"):
    interop.load(folder, dtype='float16')
  params = interop.load(folder, dtype='bfloat16').params
  assert float(params['head']['norm']['scale'][0]) == pytest.approx(1e6, rel=0.01)


def test_names_without_prefix_masks_and_repeated_embeddings(saved):
  """The forms of older public files."""
  folder = saved('gpt2')

  def change(tensors):
    for name in list(tensors):
      tensors[name.removeprefix('transformer.')] = tensors.pop(name)
    tensors['h.0.attn.bias'] = np.tril(np.ones((1, 1, 12, 12), np.float32))
    tensors['h.1.attn.masked_bias'] = np.float32([-1e4])
    tensors['lm_head.weight'] = tensors['wte.weight'].copy()

  edit_tensors(folder, change)
  assert_bitwise(interop.load(folder).params, random_params(CONFIGS['gpt2']))
  edit_tensors(folder, lambda tensors: tensors['lm_head.weight'].__setitem__((3, 4), 0.5))
  with pytest.raises(UserError, match=r'lm_head\.weight and transformer\.wte\.weight differ.*tie_word_embeddings'):
    interop.load(folder)


def test_yarn_without_a_factor_and_with_its_amplitude_as_a_quotient(saved):
  """transformers takes null for an entry that is absent; the factor is then that of the contexts."""
  folder = saved('llama')
  scaling = {
    'rope_type': 'yarn', 'factor': None, 'original_max_position_embeddings': SIZES['context'] // 4,
    'attention_factor': None, 'mscale': 2.0, 'mscale_all_dim': 1.0
  }
  edit(folder / 'config.json', rope_scaling=scaling)
  found = interop.load(folder).config.rope_scaling
  assert found.factor == SIZES['context'] / (SIZES['context'] // 4)
  growth = 0.1 * np.log(found.factor)
  assert found.amplitude == pytest.approx((2 * growth + 1) / (growth + 1))


@pytest.mark.parametrize(
  ('entries', 'theta', 'kind'),
  [({'rope_theta': 5e5, 'rope_scaling': None}, 5e5, None), ({'rope_theta': None, 'rope_scaling': None}, 1e4, None),
   ({'rope_theta': 5e5, 'rope_scaling': {'type': 'linear', 'factor': 2}}, 5e5, 'linear'),
   ({'rope_theta': None, 'rope_scaling': None, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 3e4}
    }, 3e4, None),
   ({
     'rope_theta': None, 'rope_scaling': None, 'rope_parameters':
       {'rope_type': 'llama3', 'rope_theta': 3e4, 'factor': 2, 'low_freq_factor': 1, 'high_freq_factor': 4}
   }, 3e4, 'llama3'),])
def test_rope_entries_of_every_version(entries, theta, kind, saved, tmp_path):
  folder = saved('llama')
  edit(folder / 'config.json', **entries)
  model = interop.load(folder)
  assert model.config.rope_theta == theta
  assert getattr(model.config.rope_scaling, 'kind', None) == kind
  if kind == 'llama3':
    assert model.config.rope_scaling.original_context == SIZES['context']
  interop.save(tmp_path / 'copy', model)
  assert interop.load(tmp_path / 'copy').config == model.config
  assert 'rope_parameters' not in json.loads((tmp_path / 'copy' / 'config.json').read_text())


def test_entries_without_an_option_are_kept(saved, tmp_path):
  folder = saved('gpt2')
  edit(folder / 'config.json', eos_token_id=7, resid_pdrop=0.3, summary_type='last', activation_function='gelu_fast')
  model = interop.load(folder)
  interop.save(tmp_path / 'copy', model)
  written = json.loads((tmp_path / 'copy' / 'config.json').read_text())
  assert written['activation_function'] == 'gelu_fast'  # not what the same option is called otherwise
  assert (written['eos_token_id'], written['resid_pdrop'], written['summary_type']) == (7, 0.3, 'last')
  interop.save(tmp_path / 'changed', dataclasses.replace(model, config=dataclasses.replace(model.config, mlp='gelu')))
  assert json.loads((tmp_path / 'changed' / 'config.json').read_text())['activation_function'] == 'gelu'


def truncate(path, keep):
  path.write_bytes(path.read_bytes()[:keep])


def unlink_shard(folder):
  sorted(folder.glob('model-0*'))[1].unlink()


def as_pickle(folder):
  (folder / files.SINGLE).rename(folder / 'pytorch_model.bin')


BAD = {
  'no folder': ('llama', lambda folder: folder.rename(folder.with_name('elsewhere')), 'is not a folder'),
  'no config': ('llama', lambda folder: (folder / 'config.json').unlink(), 'config.json does not exist'),
  'no json': ('llama', lambda folder: truncate(folder / 'config.json', 30), 'cannot be read as JSON'),
  'json list': ('llama', lambda folder: (folder / 'config.json').write_text('[]'), 'must hold a JSON object, got list'),
  'architecture': ('llama', lambda folder: edit(folder / 'config.json', model_type='mamba'),
                   "'mamba'.*gpt2.*llama.*mistral"),
  'no architecture': ('llama', lambda folder: edit(folder / 'config.json', model_type=None), 'lacks model_type'),
  'no size': ('llama', lambda folder: edit(folder / 'config.json', hidden_size=None), 'lacks hidden_size'),
  'size': ('llama', lambda folder: edit(folder / 'config.json', num_hidden_layers='2'),
           "num_hidden_layers must be a whole number .*'2'"),
  'no flag': ('llama', lambda folder: edit(folder / 'config.json', tie_word_embeddings=1),
              'tie_word_embeddings must be true or false'),
  'heads': ('llama', lambda folder: edit(folder / 'config.json', num_key_value_heads=3),
            'must be a multiple of kv_heads'),
  'activation': ('llama', lambda folder: edit(folder / 'config.json', hidden_act='relu2'),
                 r"hidden_act is 'relu2'.*silu"),
  'gpt2 activation': ('gpt2', lambda folder: edit(folder / 'config.json', activation_function='tanh'),
                      "activation_function is 'tanh'"),
  'gpt2 scores': ('gpt2', lambda folder: edit(folder / 'config.json', scale_attn_by_inverse_layer_idx=True),
                  'scale_attn_by_inverse'),
  'longrope': ('llama', lambda folder: edit(folder / 'config.json', rope_scaling={'type': 'longrope'}),
               "type is 'longrope'"),
  'su': ('mistral', lambda folder: edit(folder / 'config.json', rope_parameters={'rope_type': 'su'}),
         "rope_type is 'su'"),
  'half rotary': ('llama', lambda folder: edit(folder / 'config.json', partial_rotary_factor=0.5),
                  'partial_rotary_factor is 0.5'),
  'layer types': ('mistral', lambda folder: edit(folder / 'config.json', layer_types=['full_attention']),
                  'layer_types'),
  'jitter': ('mixtral', lambda folder: edit(folder / 'config.json', router_jitter_noise=0.1),
             'router_jitter_noise is 0.1'),
  'experts': ('mixtral', lambda folder: edit(folder / 'config.json', num_experts_per_tok=4), 'between 1 and experts'),
  'missing expert': ('mixtral', lambda folder: edit_tensors(folder, lambda tensors: tensors.pop(
    'model.layers.1.block_sparse_moe.experts.2.w3.weight')),
    r'1 missing: model\.layers\.1\.block_sparse_moe\.experts\.2\.w3'),
  'pickle': ('llama', as_pickle, r'pickle files \(pytorch_model\.bin\).*can run any code'),
  'no weights': ('llama', lambda folder: (folder / files.SINGLE).unlink(), 'neither model.safetensors nor'),
  'truncated': ('llama', lambda folder: truncate(folder / files.SINGLE, -10),
                r'model\.safetensors is not a complete safetensors file'),
  'truncated header': ('llama', lambda folder: truncate(folder / files.SINGLE, 100),
                       r'is not a complete safetensors file'),
  'empty': ('llama', lambda folder: truncate(folder / files.SINGLE, 0), r'is not a complete safetensors file'),
  'missing tensors': ('llama', lambda folder: edit_tensors(folder, lambda tensors: [
    tensors.pop(f'model.layers.{layer}.mlp.up_proj.weight') for layer in (0, 1)]),
    r'2 missing: .*layers\.0\.mlp.up_proj.*layers\.1\.'),
  'unmapped tensors': ('llama', lambda folder: edit_tensors(folder, lambda tensors: tensors.update(
    {'score.weight': np.ones((2, 2), np.float32)})), r'1 without a place in the model: score\.weight'),
  'more layers': ('gpt2', lambda folder: edit(folder / 'config.json', n_layer=1),
                  r'12 without a place.*h\.1\.attn\.c_attn'),
  'shape': ('gpt2', lambda folder: edit(folder / 'config.json', vocab_size=20),
            r'transformer\.wte\.weight has \(19, 16\).*\(20, 16\)'),
  'bias': ('mistral', lambda folder: edit_tensors(folder, lambda tensors: tensors.update(
    {'model.layers.0.self_attn.q_proj.bias': np.ones(16, np.float32)})), r'without a place.*q_proj\.bias'),
  'type': ('llama', lambda folder: edit_tensors(folder, lambda tensors: tensors.update(
    {'model.norm.weight': np.ones(16, np.int8)})), r'types other than .*model\.norm\.weight \(I8\)'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_folders(name, saved):
  config, damage, message = BAD[name]
  folder = saved(config)
  damage(folder)
  with pytest.raises(UserError, match=message):
    interop.load(folder)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [(unlink_shard, r'lacks 1 of the \d+ shards .*model-00002-of'),
   (lambda folder: truncate(sorted(folder.glob('model-0*'))[1], -4),
    r'model-00002-of-\d+\.safetensors is not a complete safetensors file'),
   (lambda folder: edit(folder / files.INDEX, weight_map={'model.norm.weight': '../secret.safetensors'}),
    'outside of its folder'),
   (lambda folder: edit(folder / files.INDEX, weight_map={'ghost': 'model-00001-of-00002.safetensors'}),
    'lack tensors.*ghost'), (lambda folder: edit(folder / files.INDEX, weight_map=3), 'must have a weight_map'),])
def test_bad_shards(damage, message, saved):
  folder = saved('gpt2', shard_bytes=24_000)
  assert len(list(folder.glob('model-0*'))) == 2
  damage(folder)
  with pytest.raises(UserError, match=message):
    interop.load(folder)


@pytest.mark.parametrize(
  ('config', 'architecture', 'message'),
  [(llama(**SIZES, window=5,
          attention_bias=True), None, r'no public architecture.*gpt2.*llama has no window=5.*mistral has no attention'),
   (llama(**SIZES, window=5), 'llama', r'llama has no window=5'),
   (CONFIGS['mixtral'], 'mistral', r'mistral has no experts=3'),
   (CONFIGS['mistral'], 'mixtral', r'mixtral has no experts=0'),
   (llama(**SIZES), 'gpt2', r"gpt2 has no positions='rope' \(it has 'learned'\)"),
   (TransformerConfig(**SIZES, bias=False), 'gpt2', 'gpt2 has no bias=False'),
   (llama(**SIZES), 'bloom', r'architecture must be one of .*bloom'),])
def test_configs_that_an_architecture_does_not_have(config, architecture, message, tmp_path):
  with pytest.raises(UserError, match=message):
    interop.save(tmp_path / 'out', config, random_params(config), architecture=architecture)
  assert list(tmp_path.iterdir()) == []


def test_parameters_of_another_config(tmp_path):
  params = random_params(CONFIGS['llama'])
  params['blocks'].pop('gate')
  params['extra'] = np.zeros(3, np.float32)
  params['head']['norm']['scale'] = np.zeros(5, np.float32)
  with pytest.raises(
      UserError, match=r'missing: blocks/gate/bias, .*unknown: extra; of another shape: head/norm/scale has \(5,\)'):
    interop.save(tmp_path / 'out', CONFIGS['llama'], params)
  assert list(tmp_path.iterdir()) == []


def test_folders_are_never_overwritten_and_never_half_written(saved, tmp_path, monkeypatch):
  folder = saved('llama')
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  model = interop.load(folder)
  with pytest.raises(UserError, match='exists and is not an empty folder'):
    interop.save(folder, model)
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

  def full(*args, **options):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(files, 'save_file', full)
  with pytest.raises(StorageError, match='No space left'):
    interop.save(tmp_path / 'new', model)
  assert [path.name for path in tmp_path.iterdir()] == ['llama']
  monkeypatch.undo()
  (tmp_path / 'empty').mkdir()
  interop.save(tmp_path / 'empty', model)
  assert_bitwise(interop.load(tmp_path / 'empty').params, model.params)


def test_memory_of_an_import(tmp_path):
  """The model and little more."""
  config = llama(vocab=1000, context=64, layers=12, heads=4, width=256)
  params = random_params(config, 'bfloat16')
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  interop.save(tmp_path / 'model', config, params, shard_bytes=size // 3)
  del params
  interop.load(tmp_path / 'model')  # imports and tracing
  tracemalloc.start()
  model = interop.load(tmp_path / 'model')
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert size == sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
  assert size < peak < 1.2 * size
