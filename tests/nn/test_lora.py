"""Low-rank adapters of kernels: what they compute, which kernels are chosen, how they begin."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.transformer import TransformerConfig, axes, llama, transformer
from genjax.nn import lora
from genjax.nn.conv import conv
from genjax.nn.functional import count
from genjax.types import UserError, named_leaves

SHAPES = {'dense': (6, 5), 'stack': (3, 6, 5), 'conv': (3, 3, 4, 7), 'convs': (2, 3, 3, 4, 7)}
MIXTRAL = llama(vocab=16, context=8, layers=3, heads=2, width=8, mlp_width=12, experts=4, experts_per_token=2)


def random(shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def params():
  return {name: {'kernel': random(shape), 'bias': jnp.ones(shape[-1])} for name, shape in SHAPES.items()}


def adapters(rank=2):
  """Of all kernels, with neither A nor B zero."""
  kernels = {f'{name}/kernel': tree['kernel'] for name, tree in params().items()}
  return jax.tree.map(lambda leaf: random(leaf.shape, leaf.size), lora.init(jax.random.key(1), kernels, rank))


def test_merged_is_the_base_beside_a_narrow_path():
  """x W + scale (x A) B, and for convolutions A as one to `rank` channels and B as one of size 1."""
  merged, pairs, scale = lora.merge(params(), adapters(), 0.7), adapters(), 0.7
  x = random((4, 6), 5)
  for layer in (None, 0, 2):
    name = 'dense' if layer is None else 'stack'
    w, a, b, whole = (leaf if layer is None else leaf[layer] for leaf in (
      params()[name]['kernel'], *pairs[name]['kernel'].values(), merged[name]['kernel']))
    np.testing.assert_allclose(x @ whole, x @ w + scale * (x @ a) @ b, rtol=1e-5, atol=1e-5)
  image = random((2, 8, 8, 4), 6)
  for layer in (None, 0, 1):
    name = 'conv' if layer is None else 'convs'
    w, a, b, whole = (leaf if layer is None else leaf[layer] for leaf in (
      params()[name]['kernel'], *pairs[name]['kernel'].values(), merged[name]['kernel']))
    narrow = conv(conv(image, a, 2), b[None, None])
    np.testing.assert_allclose(conv(image, whole, 2), conv(image, w, 2) + scale * narrow, rtol=1e-5, atol=1e-4)
  for name, tree in params().items():
    np.testing.assert_array_equal(merged[name]['bias'], tree['bias'])


def test_begins_as_the_base_bit_for_bit():
  kernels = {f'{name}/kernel': tree['kernel'] for name, tree in params().items()}
  fresh = lora.init(jax.random.key(3), kernels, 2)
  jax.tree.map(np.testing.assert_array_equal, lora.merge(params(), fresh, 8.0), params())
  for name, shape in SHAPES.items():
    a, bound = fresh[name]['kernel']['A'], 1 / math.sqrt(math.prod(shape[:-1]) / (shape[0] if len(shape) in (3, 5) else 1))
    assert 0.7 * bound < float(jnp.abs(a).max()) <= bound and float(jnp.abs(a.mean())) < 0.4 * bound
  alone = lora.init(jax.random.key(3), {'conv/kernel': kernels['conv/kernel']}, 2)
  np.testing.assert_array_equal(alone['conv']['kernel']['A'], fresh['conv']['kernel']['A'])
  assert not np.array_equal(fresh['stack']['kernel']['A'][0], fresh['stack']['kernel']['A'][1])


def mixtral():
  """Parameters of a small Mixtral, the matrices of its experts, and adapters of these, with neither A nor B zero."""
  base, _ = transformer(MIXTRAL).init(jax.random.key(0))
  kernels = lora.targets(lora.Options(2, 4.0, ('blocks/experts/.*_kernel',)), {'net': base})['net']
  return base, kernels, jax.tree.map(lambda leaf: random(leaf.shape, leaf.size), lora.init(jax.random.key(1), kernels, 2))


def test_each_expert_of_each_layer_has_a_pair_of_its_own():
  base, kernels, pairs = mixtral()
  assert sorted(kernels) == [f'blocks/experts/{name}_kernel' for name in ('down', 'gate', 'up')]
  assert count(pairs) == 3 * 3 * 4 * 2 * (8 + 12)  # matrices, layers, experts, rank, width and hidden width
  merged = lora.merge(base, pairs, 0.7)
  for name, inputs in {'up': 8, 'gate': 8, 'down': 12}.items():
    w_LEIO, whole_LEIO = (tree['blocks']['experts'][f'{name}_kernel'] for tree in (base, merged))
    a_LEIR, b_LERO = pairs['blocks']['experts'][f'{name}_kernel'].values()
    x = random((5, inputs), 6)
    for place in np.ndindex(3, 4):
      narrow = x @ w_LEIO[place] + 0.7 * (x @ a_LEIR[place]) @ b_LERO[place]
      np.testing.assert_allclose(x @ whole_LEIO[place], narrow, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(merged['blocks']['experts']['router']['kernel'], base['blocks']['experts']['router']['kernel'])
  alone = lora.merge({'up_kernel': base['blocks']['experts']['up_kernel'][1]},  # a layer that is not stacked
                     {'up_kernel': jax.tree.map(lambda leaf: leaf[1], pairs['blocks']['experts']['up_kernel'])}, 0.7)
  np.testing.assert_allclose(alone['up_kernel'], merged['blocks']['experts']['up_kernel'][1], rtol=1e-6, atol=1e-6)


def test_experts_begin_as_the_base_bit_for_bit():
  base, kernels, _ = mixtral()
  fresh = lora.init(jax.random.key(3), kernels, 2)
  jax.tree.map(np.testing.assert_array_equal, lora.merge(base, fresh, 8.0), base)
  a_LEIR = fresh['blocks']['experts']['down_kernel']['A']
  bound = 1 / math.sqrt(12)
  assert a_LEIR.shape == (3, 4, 12, 2) and 0.8 * bound < float(jnp.abs(a_LEIR).max()) <= bound
  assert len(np.unique(a_LEIR)) > 0.99 * a_LEIR.size  # no two experts and no two layers begin alike


def test_dropout_of_experts_is_drawn_for_each_of_them():
  _, _, pairs = mixtral()
  dropped = named_leaves(lora.drop(jax.random.key(0), pairs, 0.5))['blocks/experts/down_kernel/A']
  kept_LEIR = np.asarray(dropped != 0)
  assert (kept_LEIR == kept_LEIR[..., :1]).all()
  assert len(np.unique(kept_LEIR[..., 0].reshape(12, 12), axis=0)) == 12


def test_adapters_of_experts_are_split_as_their_kernels():
  kernels = {name: tree for name, tree in mixtral()[1].items() if 'gate' not in name}
  assert dict(lora.axes(axes(MIXTRAL), kernels)) == {
    'blocks/experts/up_kernel/A': ('layers', 'experts', None, None), 'blocks/experts/up_kernel/B': ('layers', 'experts', None, 'mlp'),
    'blocks/experts/down_kernel/A': ('layers', 'experts', 'mlp', None), 'blocks/experts/down_kernel/B': ('layers', 'experts', None, None)}


def test_dropout_drops_input_features_and_keeps_the_mean():
  fresh, rate = adapters(), 0.25
  dropped = lora.drop(jax.random.key(0), fresh, rate)
  for name, leaf in named_leaves(dropped).items():
    original = named_leaves(fresh)[name]
    if name.endswith('B'):
      np.testing.assert_array_equal(leaf, original)
      continue
    kept = np.asarray(leaf != 0)
    np.testing.assert_allclose(leaf, np.where(kept, original / (1 - rate), 0), rtol=1e-6)
    assert (kept == kept[..., :1]).all()  # a feature is dropped for all of the rank
    if 'conv' in name:
      assert (kept == kept[..., :1, :1, :, :]).all()  # and an input channel at all places
  many = jax.vmap(lambda key: lora.drop(key, fresh, rate))(jax.random.split(jax.random.key(1), 4000))
  mean = jnp.mean(many['stack']['kernel']['A'], axis=0)
  np.testing.assert_allclose(mean, fresh['stack']['kernel']['A'], atol=0.1)
  kept = np.asarray(many['stack']['kernel']['A'][..., 0] != 0)
  assert abs(kept.mean() - 0.75) < 0.01
  assert abs(np.corrcoef(kept[:, 0, 0], kept[:, 1, 0])[0, 1]) < 0.1  # layers are dropped apart from each other


def test_the_count_of_gpt2_medium():
  """Queries and values at rank 4: 24 layers x 2 kernels x 4 (1024 + 1024)."""
  config = TransformerConfig(vocab=50257, context=1024, layers=24, heads=16, width=1024)
  base, _ = jax.eval_shape(transformer(config).init, jax.random.key(0))
  assert count(base) == 354_823_168
  options = lora.Options(4, 32.0, ('blocks/attention/(query|value)/kernel',))
  kernels = lora.targets(options, {'net': base})['net']
  assert count(jax.eval_shape(lambda key: lora.init(key, kernels, 4), jax.random.key(0))) == 393_216


@pytest.mark.parametrize(('pattern', 'said'), [
  ('dense/weight', r'matches no parameter.*conv/kernel, convs/kernel, dense/kernel, stack/kernel'),
  ('dense', 'matches no parameter'),  # a whole path, not a part of one
  ('dense/.*', r'matches dense/bias \(5,\), which is the kernel of no dense layer'),
  ('(', 'is no regular expression'),
])
def test_paths_that_choose_no_kernel_are_errors(pattern, said):
  with pytest.raises(UserError, match=said):
    lora.targets(lora.Options(2, 4.0, (pattern,)), {'net': params()})


def test_targets_by_group():
  found = lora.targets(lora.Options(2, 4.0, ('dense/kernel', 'conv.*kernel')), {'one': params(), 'two': {'dense': params()['dense']}})
  assert {group: sorted(kernels) for group, kernels in found.items()} == {
    'one': ['conv/kernel', 'convs/kernel', 'dense/kernel'], 'two': ['dense/kernel']}


@pytest.mark.parametrize('options', [dict(rank=0), dict(alpha=0.0), dict(dropout=1.0), dict(paths=()), dict(paths='kernel'),
                                     dict(paths=(('kernel',),))])
def test_options_out_of_range(options):
  with pytest.raises(UserError, match='low-rank adapter'):
    lora.Options(**{**dict(rank=2, alpha=4.0, paths=('.*kernel',)), **options})


def test_adapters_of_another_model_are_errors():
  with pytest.raises(UserError, match='adapters are of another model'):
    lora.merge({'other': {'kernel': jnp.ones((6, 5))}}, adapters(), 1.0)
  with pytest.raises(UserError, match=r'does not fit kernel \(6, 4\)'):
    lora.merge({**params(), 'dense': {'kernel': jnp.ones((6, 4))}}, adapters(), 1.0)


def test_adapters_are_split_as_their_kernels():
  table = (('stack/kernel', ('layers', 'embed', 'heads')), ('conv/kernel', (None, None, 'in', 'out')), ('dense/bias', (None,)))
  rows = dict(lora.axes(table, {f'{name}/kernel': tree['kernel'] for name, tree in params().items()}))
  assert rows == {'stack/kernel/A': ('layers', 'embed', None), 'stack/kernel/B': ('layers', None, 'heads'),
                  'conv/kernel/A': (None, None, 'in', None), 'conv/kernel/B': (None, 'out')}
