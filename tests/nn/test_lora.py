"""Low-rank adapters of kernels: what they compute, which kernels are chosen, how they begin."""

import dataclasses
import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.transformers.decoder import TransformerConfig, axes, llama, transformer
from genjax.nn import lora
from genjax.nn.conv import Conv, ConvTranspose, Dense, conv
from genjax.nn.frames import FrameConv
from genjax.nn.functional import count, network, stack
from genjax.nn.linear import Linear, project
from genjax.types import UserError, named_leaves, unflatten

SHAPES = {'dense': (6, 5), 'stack': (3, 6, 5), 'conv': (3, 3, 4, 7), 'convs': (2, 3, 3, 4, 7)}
MIXTRAL = llama(vocab=16, context=8, layers=3, heads=2, width=8, mlp_width=12, experts=4, experts_per_token=2)


class Row(nnx.Module):
  """A dense layer that takes a key."""

  def __init__(self, inputs, outputs, rngs):
    self.layer = Linear(inputs, outputs, rngs=rngs)
    self.layer.bias[...] += 0.5

  def __call__(self, x, key=None):
    return self.layer(x)


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
    a, bound = fresh[name]['kernel']['A'], 1 / math.sqrt(
      math.prod(shape[:-1]) / (shape[0] if len(shape) in (3, 5) else 1))
    assert 0.7 * bound < float(jnp.abs(a).max()) <= bound and float(jnp.abs(a.mean())) < 0.4 * bound
  alone = lora.init(jax.random.key(3), {'conv/kernel': kernels['conv/kernel']}, 2)
  np.testing.assert_array_equal(alone['conv']['kernel']['A'], fresh['conv']['kernel']['A'])
  assert not np.array_equal(fresh['stack']['kernel']['A'][0], fresh['stack']['kernel']['A'][1])


def mixtral():
  """Parameters of a small Mixtral, the matrices of its experts, and adapters of these, with neither A nor B zero."""
  base, _ = transformer(MIXTRAL).init(jax.random.key(0))
  kernels = lora.targets(lora.Options(2, 4.0, ('blocks/experts/.*_kernel',)), {'net': base})['net']
  return base, kernels, jax.tree.map(lambda leaf: random(leaf.shape, leaf.size),
                                     lora.init(jax.random.key(1), kernels, 2))


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
  np.testing.assert_array_equal(merged['blocks']['experts']['router']['kernel'],
                                base['blocks']['experts']['router']['kernel'])
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


def test_adapters_of_experts_are_split_as_their_kernels():
  kernels = {name: tree for name, tree in mixtral()[1].items() if 'gate' not in name}
  assert dict(lora.axes(axes(MIXTRAL), kernels)) == {
    'blocks/experts/up_kernel/A': ('layers', 'experts', None, None), 'blocks/experts/up_kernel/B': (
      'layers', 'experts', None, 'mlp'), 'blocks/experts/down_kernel/A': ('layers', 'experts', 'mlp', None),
    'blocks/experts/down_kernel/B': ('layers', 'experts', None, None)
  }


OPTIONS = lora.Options(2, 1.4, ('.*',))  # a scale of 0.7


def adapted(network, options=OPTIONS, paths=('.*kernel',)):
  """Parameters of a network that are all random, with adapters beside the kernels that paths match, and merged."""
  base, mutable = jax.jit(network.init)(jax.random.key(0))
  base = jax.tree.map(lambda leaf: leaf + 0.1 * random(leaf.shape, leaf.size), base)
  kernels = lora.targets(lora.Options(2, 1.4, paths), {'net': base})['net']
  pairs = jax.tree.map(lambda leaf: 0.3 * random(leaf.shape, leaf.size), lora.init(jax.random.key(1), kernels, 2))
  return base, pairs, mutable, lora.attach(base, pairs, options), lora.merge(base, pairs, options.scale)


def one(build):
  return network(lambda rngs: build(rngs=rngs))


LAYERS = {
  'dense': (one(functools.partial(Dense, 4, 6)), (2, 4)),
  'linear': (one(functools.partial(Row, 4, 6)), (2, 5, 4)),
  'conv': (one(functools.partial(Conv, 4, 6, stride=2)), (2, 8, 8, 4)),
  'pointwise': (one(functools.partial(Conv, 4, 6, 1)), (2, 8, 8, 4)),
  'transposed': (one(functools.partial(ConvTranspose, 4, 6)), (2, 4, 4, 4)),
  'spectral': (one(functools.partial(Conv, 4, 6, spectral=True)), (2, 8, 8, 4)),  # takes the merged kernel
  'frames': (one(functools.partial(FrameConv, 4, 6, kernel_init=jax.nn.initializers.lecun_normal())), (2, 8, 4)),
   # and so does this
  'stack': (stack(one(functools.partial(Row, 4, 4)), 3, remat='full'), (2, 5, 4)),
}


@pytest.mark.parametrize('name', LAYERS)
def test_a_layer_multiplies_by_an_adapter_as_by_the_merged_kernel(name):
  layer, shape = LAYERS[name]
  base, pairs, mutable, beside, merged = adapted(layer)
  x = random(shape, 5)
  found, expected = (layer.apply(params, mutable, x)[0] for params in (beside, merged))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  assert np.abs(np.asarray(found - layer.apply(base, mutable, x)[0])).max() > 0.1

  def loss(pairs, join):
    return jnp.sum(jnp.sin(layer.apply(join(base, pairs), mutable, x)[0]))

  slopes = [
    jax.grad(loss)(pairs, join)
    for join in (lambda *trees: lora.attach(*trees, OPTIONS), lambda *trees: lora.merge(*trees, 0.7))
  ]
  jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4), *slopes)


def shapes_of(jaxpr):
  """Types and shapes of everything that a jaxpr computes."""
  found = set()
  for equation in jaxpr.eqns:
    found |= {(variable.aval.dtype.name, variable.aval.shape)
              for variable in equation.outvars
              if hasattr(variable.aval, 'shape')}
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, 'eqns')):
      inner = getattr(value, 'jaxpr', value)
      found |= shapes_of(inner) if hasattr(inner, 'eqns') else set()
  return found


@pytest.mark.parametrize('experts', [0, 4])
def test_training_adapters_makes_nothing_of_the_size_of_a_kernel(experts):
  """No merged stack, no gradient of a whole kernel; adapters have float32 gradients over a base in bfloat16."""
  config = llama(vocab=16, context=8, layers=3, heads=2, width=20, mlp_width=28, experts=experts, dtype='bfloat16',
                 remat='full')
  base, pairs, *_ = adapted(transformer(config), paths=('blocks/.*kernel',))
  kept = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
  tokens = jax.random.randint(jax.random.key(2), (2, 8), 0, 16)

  def loss(pairs):
    return jnp.sum(transformer(config).apply(lora.attach(kept, pairs, OPTIONS), {}, tokens)[0] ** 2).astype(jnp.float32)

  computed = shapes_of(jax.make_jaxpr(jax.grad(loss))(pairs).jaxpr)
  sizes = [leaf.shape for name, leaf in named_leaves(base).items() if name.endswith('kernel') and 'blocks' in name]
  assert not {
    (dtype, shape) for dtype, shape in computed if shape in sizes or dtype == 'float32' and (3, *shape) in sizes
  }
  slopes = jax.jit(jax.grad(loss))(pairs)
  assert all(leaf.dtype == jnp.float32 and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))


def test_experts_and_their_router_are_multiplied_as_if_merged():
  model = transformer(dataclasses.replace(MIXTRAL, width=8))
  base, pairs, _, beside, merged = adapted(model, paths=('.*kernel',))
  tokens = jax.random.randint(jax.random.key(2), (2, 8), 0, 16)
  for options in ({}, {'project': False}):
    apply = jax.jit(lambda params: model.apply(params, {}, tokens, **options)[0])
    jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5),
                 *(apply(params) for params in (beside, merged)))
  square = lambda params: jnp.sum(model.apply(params, {}, tokens)[0] ** 2)
  slopes = [jax.jit(jax.grad(lambda pairs, join=join: square(join(base, pairs))))(pairs)
            for join in (lambda *trees: lora.attach(*trees, OPTIONS), lambda *trees: lora.merge(*trees, 0.7))]
  jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3), *slopes)


@pytest.mark.parametrize('experts', [0, 4])
def test_a_fresh_adapter_changes_no_bit_in_bfloat16(experts):
  config = llama(vocab=16, context=8, layers=2, heads=2, width=16, experts=experts, dtype='bfloat16')
  base, pairs, *_ = adapted(transformer(config))
  fresh = {name: leaf * (not name.endswith('B')) for name, leaf in named_leaves(pairs).items()}
  kept = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf.astype(jnp.bfloat16) if 'kernel' in path[-1].key else leaf, base)
  tokens = jax.random.randint(jax.random.key(2), (2, 8), 0, 16)
  apply = jax.jit(lambda params: transformer(config).apply(params, {}, tokens)[0])
  np.testing.assert_array_equal(apply(lora.attach(kept, unflatten(fresh), OPTIONS)), apply(base))


def test_dropout_is_drawn_for_each_example_position_and_channel():
  layer, (base, pairs, _, _, _) = LAYERS['linear'][0], adapted(LAYERS['linear'][0])
  params = lora.attach(base, pairs, dataclasses.replace(OPTIONS, dropout=0.5))
  x = jnp.ones((50, 40, 4))
  plain, dropped, again, other = (
    layer.apply(params, {}, x, key=key)[0] for key in (None, *map(jax.random.key, (0, 0, 1))))
  np.testing.assert_allclose(plain, layer.apply(lora.merge(base, pairs, OPTIONS.scale), {}, x)[0], rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(dropped, again)
  assert not np.array_equal(dropped, other)
  a, b = (pairs['layer']['kernel'][name] for name in 'AB')
  outcomes = {
    tuple(kept):
      np.asarray(x[0, 0] @ base['layer']['kernel'] + 0.7 * (jnp.asarray(kept) * 2.0) @ a @ b + base['layer']['bias'])
    for kept in np.ndindex(2, 2, 2, 2)
  }
  drawn = [
    min(outcomes, key=lambda kept: np.abs(outcomes[kept] - row).max()) for row in np.asarray(dropped).reshape(-1, 6)
  ]
  for kept, row in zip(drawn, np.asarray(dropped).reshape(-1, 6)):
    np.testing.assert_allclose(row, outcomes[kept], rtol=1e-4, atol=1e-4)
  kept_NC = np.asarray(drawn)
  assert np.abs(kept_NC.mean(axis=0) - 0.5).max() < 0.06
  assert np.abs(np.corrcoef(kept_NC.T) - np.eye(4)).max() < 0.1  # channels
  assert np.abs(np.corrcoef(kept_NC[:-1, 0], kept_NC[1:, 0])[0, 1]) < 0.1  # positions


def test_experts_drop_apart_and_the_backward_pass_draws_the_same_again():
  base, pairs, *_ = adapted(transformer(MIXTRAL), paths=('blocks/experts/.*_kernel',))
  tokens = jnp.zeros((2, 8), jnp.int32)  # all alike: without dropout, equal tokens that see equal ones are equal

  def run(pairs, key, remat='none'):
    params = lora.attach(base, pairs, dataclasses.replace(OPTIONS, dropout=0.5))
    return transformer(dataclasses.replace(MIXTRAL, remat=remat)).apply(params, {}, tokens, key=key)[0]

  plain, dropped = (run(pairs, key) for key in (None, jax.random.key(0)))
  np.testing.assert_allclose(plain[0], plain[1], rtol=1e-5, atol=1e-6)
  assert np.abs(np.asarray(dropped[0] - dropped[1])).max(axis=-1).min() > 1e-3
  slopes = [jax.jit(jax.grad(lambda pairs, remat=remat: jnp.sum(jnp.sin(run(pairs, jax.random.key(0), remat)))))(pairs)
            for remat in ('none', 'full')]
  jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4), *slopes)


def test_whatever_else_reads_a_kernel_reads_the_merged_one():
  """An objective that takes parameters apart itself."""
  kernel = lora.Adapted(random((4, 6)), random((4, 2), 1), random((2, 6), 2), scale=0.7)
  x, merged = random((3, 4), 3), kernel.dense()
  np.testing.assert_allclose(merged, kernel.base + 0.7 * kernel.a @ kernel.b, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(x @ kernel, x @ merged, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(jnp.sum(kernel), jnp.sum(merged), rtol=1e-5)
  np.testing.assert_allclose(project(random((3, 6), 3), kernel), random((3, 6), 3) @ merged.T, rtol=1e-5, atol=1e-5)
  half = dataclasses.replace(kernel, base=kernel.base.astype(jnp.bfloat16))
  wanted = half.base.astype(jnp.float32) + 0.7 * kernel.a @ kernel.b
  np.testing.assert_array_equal(half.dense(), wanted.astype(jnp.bfloat16))  # summed in float32


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
  ('dense/.*', r'matches dense/bias \(5,\), which is not the kernel of a dense layer'),
  ('(', 'is no regular expression'),
])
def test_paths_that_choose_no_kernel_are_errors(pattern, said):
  with pytest.raises(UserError, match=said):
    lora.targets(lora.Options(2, 4.0, (pattern,)), {'net': params()})


def test_targets_by_group():
  found = lora.targets(lora.Options(2, 4.0, ('dense/kernel', 'conv.*kernel')),
                       {'one': params(), 'two': {'dense': params()['dense']}})
  assert {group: sorted(kernels) for group, kernels in found.items()} == {
    'one': ['conv/kernel', 'convs/kernel', 'dense/kernel'], 'two': ['dense/kernel']}


@pytest.mark.parametrize(
  'options',
  [dict(rank=0),
   dict(alpha=0.0),
   dict(dropout=1.0),
   dict(paths=()),
   dict(paths='kernel'),
   dict(paths=(('kernel',),))])
def test_options_out_of_range(options):
  with pytest.raises(UserError, match='low-rank adapter'):
    lora.Options(**{**dict(rank=2, alpha=4.0, paths=('.*kernel',)), **options})


def test_adapters_of_another_model_are_errors():
  with pytest.raises(UserError, match='adapters belong to another model'):
    lora.merge({'other': {'kernel': jnp.ones((6, 5))}}, adapters(), 1.0)
  with pytest.raises(UserError, match=r'does not fit kernel \(6, 4\)'):
    lora.merge({**params(), 'dense': {'kernel': jnp.ones((6, 4))}}, adapters(), 1.0)


def test_adapters_are_split_as_their_kernels():
  table = (('stack/kernel', ('layers', 'embed', 'heads')), ('conv/kernel', (None, None, 'in', 'out')), ('dense/bias',
                                                                                                        (None,)))
  rows = dict(lora.axes(table, {f'{name}/kernel': tree['kernel'] for name, tree in params().items()}))
  assert rows == {'stack/kernel/A': ('layers', 'embed', None), 'stack/kernel/B': ('layers', None, 'heads'),
                  'conv/kernel/A': (None, None, 'in', None), 'conv/kernel/B': (None, 'out')}
