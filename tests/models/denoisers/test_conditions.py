"""Denoisers with conditions of every kind: what matters and what does not, counts, gradients, types and meshes."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.denoisers import dit, unet
from genjax.nn.functional import count, network
from genjax.types import UserError, named_leaves

ROOT = pathlib.Path(__file__).parent.parent.parent.parent
READS = dict(num_classes=3, vector_width=5, numbers=2, number_features=8, token_width=6, image_channels=2,
             vocabulary=11, text_length=8, text_width=6, text_depth=1, text_heads=2)
PLAIN = dict(num_classes=3)
MAKE = {
  'cross': (dit, lambda **options: dit.DiT((8, 8, 3), width=16, depth=2, heads=2, frequencies=8, **options)),
  'context': (dit, lambda **options: dit.DiT((8, 8, 3), width=16, depth=2, heads=2, frequencies=8, **{
    'tokens_enter': 'context', **options})),
  'unet': (unet, lambda **options: unet.UNet((8, 8, 3), base=8, multipliers=(1, 2), blocks=1, groups=4, heads=2, **{
    'attention': (4,), 'cross_attention': (4,), 'dropout': 0.0, **options})),
}
X, TIME = jax.random.normal(jax.random.key(9), (4, 8, 8, 3)), jnp.array([3.0, 700.0, 50.0, 999.0])


def given(**changes):
  draw = lambda index, *shape: jax.random.normal(jax.random.key(index), shape)
  return {'label': jnp.array([0, 3, 1, 2]), 'vector': draw(0, 4, 5), 'numbers': 500 * jnp.abs(draw(1, 4, 2)),
          'tokens': draw(2, 4, 4, 6),
          'tokens_mask': jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]),
          'ids': jnp.arange(16).reshape(4, 4) % 11,
          'ids_mask': jnp.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]), 'image': draw(3, 4, 8, 8, 2),
          **changes}


def config_of(name, **options):
  return MAKE[name][1](**{**READS, **options})


@functools.cache
def built(name, **options):
  """The network, random parameters without zeros, and its compiled application to (params, x, time, given)."""
  module, config = MAKE[name][0], config_of(name, **options)
  net = module.network(config)
  shapes, mutable = jax.eval_shape(net.init, jax.random.key(0))
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: 0.2 * generator.standard_normal(leaf.shape, np.float32), shapes)
  return net, params, jax.jit(lambda params, *inputs: net.apply(params, mutable, *inputs)[0])


@pytest.mark.parametrize('name', MAKE)
def test_what_is_told_matters_and_padding_does_not(name):
  _, params, apply = built(name)
  base = apply(params, X, TIME, given())
  assert base.shape == X.shape and jnp.isfinite(base).all()
  one = given()
  changes = {
    'label': jnp.array([1, 0, 3, 0]), 'vector': one['vector'] + 1, 'numbers': one['numbers'] + 7,
    'tokens': one['tokens'].at[:, 1].add(1.0), 'tokens_mask': jnp.ones((4, 4), int), 'ids': (one['ids'] + 1) % 11,
    'ids_mask': jnp.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]), 'image': one['image'] + 1}
  # Rows whose tokens are all padding, or whose mask is the same
  untold = {'tokens': [2], 'tokens_mask': [1], 'ids': [2], 'ids_mask': []}
  for entry, value in changes.items():
    moved = jnp.abs(apply(params, X, TIME, given(**{entry: value})) - base).max((1, 2, 3))
    rows = [row for row in range(4) if row not in untold.get(entry, ())]
    assert (moved[jnp.array(rows)] > 1e-5).all(), (entry, moved)
    if entry in ('tokens', 'ids'):
      assert moved[2] == 0, entry
  hidden = {name: jnp.where(one[f'{name}_mask'].reshape(4, 4, *[1] * (one[name].ndim - 2)) != 0, one[name], 5)
            for name in ('tokens', 'ids')}
  np.testing.assert_array_equal(apply(params, X, TIME, given(**hidden)), base)
  longer = {entry: jnp.pad(one[entry], ((0, 0), (0, 3), (0, 0))[:one[entry].ndim], constant_values=fill)
            for entry, fill in (('tokens', 7), ('tokens_mask', 0), ('ids', 7), ('ids_mask', 0))}
  np.testing.assert_allclose(apply(params, X, TIME, given(**longer)), base, atol=2e-6 * float(jnp.abs(base).max()))


SLOWLY = [pytest.param(name, marks=pytest.mark.slow if name != 'cross' else ()) for name in MAKE]


@pytest.mark.parametrize('name', SLOWLY)
def test_gradients_reach_every_parameter(name):
  net, params, _ = built(name)
  gradient = jax.jit(jax.grad(lambda params: jnp.sum(net.apply(params, {}, X, TIME, given())[0] ** 2)))(params)
  still = [path for path, leaf in named_leaves(gradient).items() if not jnp.any(leaf)]
  assert not [path for path in still if not path.endswith('key/bias')]  # which adds the same to all scores


def test_fresh_cross_attention_adds_nothing():
  net = network(lambda rngs: dit.Block(config_of('cross'), rngs))
  params, _ = net.init(jax.random.key(0))
  params['modulation']['bias'] = jnp.ones(6 * 16)  # gates that are open
  x, told = jax.random.normal(jax.random.key(1), (2, 4, 16)), jax.random.normal(jax.random.key(2), (2, 3, 16))
  apply = jax.jit(lambda params, memory: net.apply(params, {}, x, jnp.ones((2, 16)), memory=memory)[0])
  np.testing.assert_array_equal(apply(params, (told, None)), apply(params, None))
  params['cross']['out']['kernel'] = jnp.eye(16)
  assert (apply(params, (told, None)) != apply(params, None)).any()


def test_the_mean_of_tokens_is_added_to_the_embedded_time():
  """The mean of what is no padding, and an MLP; by NumPy."""
  net = network(lambda rngs: dit.Embed(config_of('cross', pool=True), rngs))
  shapes, _ = jax.eval_shape(net.init, jax.random.key(0))
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: 0.2 * generator.standard_normal(leaf.shape, np.float32), shapes)
  silent = {**params, 'pool': {**params['pool'], 'down': jax.tree.map(np.zeros_like, params['pool']['down'])}}
  (_, condition_BD, memory), _ = net.apply(params, {}, X, TIME, given())
  (_, without_BD, _), _ = net.apply(silent, {}, X, TIME, given())
  tokens_BLD, mask_BL = (np.asarray(part) for part in memory)
  layer = lambda name, x: x @ params['pool'][name]['kernel'] + params['pool'][name]['bias']
  for row in range(4):
    seen_LD = tokens_BLD[row, mask_BL[row] != 0]
    hidden_M = layer('up', seen_LD.mean(0) if len(seen_LD) else np.zeros(16, np.float32))
    np.testing.assert_allclose(condition_BD[row] - without_BD[row], layer('down', hidden_M / (1 + np.exp(-hidden_M))),
                               atol=2e-5)
  whole, _ = jax.eval_shape(dit.network(config_of('cross', pool=True)).init, jax.random.key(0))
  sharding.param_shardings(whole, sharding.make_mesh({'data': -1}), dit.axes(config_of('cross', pool=True)))
  with pytest.raises(UserError, match='pool is the mean of tokens, and the network reads none'):
    MAKE['cross'][1](**PLAIN, pool=True)


def test_parameters_of_a_dit_with_cross_attention_by_hand():
  make = lambda **options: dit.network(dit.DiT((32, 32, 4), width=64, depth=3, heads=4, **options))
  shapes = lambda **options: jax.eval_shape(make(**options).init, jax.random.key(0))[0]
  width, tokens = 64, 96
  cross = 4 * (width * width + width)  # queries, keys, values and output
  projection = tokens * width + width + width * width + width
  plain = count(shapes())
  assert count(shapes(token_width=tokens)) - plain == projection + 3 * cross
  assert count(shapes(token_width=tokens, tokens_enter='context')) - plain == projection
  assert count(shapes(vector_width=10, numbers=6)) - plain == (10 + 6 * 256) * width + width + width * width + width
  assert count(shapes(image_channels=5)) - plain == 2 * 2 * 5 * width
  blocks = 3 * (cross + 2 * 4 * width * width + 5 * width + width * 6 * width + 6 * width)
  edge = 16 * width + width + 256 * width + width + width * width + width
  edge += width * 2 * width + 2 * width + width * 16 + 16
  assert plain == blocks + edge


def test_parameters_of_a_unet_with_cross_attention_by_hand_and_where_they_are():
  def shapes(**options):
    config = unet.UNet((8, 8, 3), base=32, multipliers=(1, 2), attention=(8,), blocks=1, **options)
    return jax.eval_shape(unet.network(config).init, jax.random.key(0))[0]

  plain, tokens = shapes(), 24

  def cross(width):  # norm; queries and output; keys and values of the tokens
    return 2 * width + 2 * (width * width + width) + 2 * (tokens * width + width)

  for resolutions, widths, places in [
      ((8,), [32] * 3, {'down/0/0', 'up/1/0', 'up/1/1'}),
      ((4,), [64] * 4, {'down/1/0', 'middle/0', 'up/0/0', 'up/0/1'})]:
    found = shapes(token_width=tokens, cross_attention=resolutions)
    assert {path.split('/cross/')[0] for path in named_leaves(found) if '/cross/' in path} == places
    assert count(found) - count(plain) == sum(map(cross, widths))
  told = shapes(image_channels=5, vector_width=10)
  assert count(told) - count(plain) == 9 * 5 * 32 + 10 * 128 + 128 + 128 * 128 + 128


def test_tokens_in_context_leave_no_trace_when_they_are_hidden():
  _, params, apply = built('context', vocabulary=0)
  told = {name: value for name, value in given().items() if 'ids' not in name}
  alone, _, apply_alone = built('context', vocabulary=0, token_width=0)
  kept = {**params, 'embed': {name: value for name, value in params['embed'].items() if name != 'tokens'}}
  without = apply_alone(kept, X, TIME, {name: value for name, value in told.items() if 'tokens' not in name})
  hidden = apply(params, X, TIME, {**told, 'tokens_mask': jnp.zeros((4, 4), int)})
  assert hidden.shape == X.shape
  np.testing.assert_allclose(hidden, without, atol=1e-5 * float(jnp.abs(without).max()))


@pytest.mark.parametrize('name, sizes', [('unet', [(8, 8, 8), (8, 8, 8), (4, 4, 8), (4, 4, 16), (4, 4, 16)])])
def test_residuals_are_added_to_skips_and_middle(name, sizes):
  _, params, apply = built(name)
  zeros = [jnp.zeros((4, *size)) for size in sizes]
  base = apply(params, X, TIME, given())
  np.testing.assert_array_equal(apply(params, X, TIME, given(residuals=zeros)), base)
  for index in range(len(sizes)):
    told = given(residuals=[one + (place == index) for place, one in enumerate(zeros)])
    assert jnp.abs(apply(params, X, TIME, told) - base).max() > 1e-4, index
  with pytest.raises(UserError, match='added to the 4 skips and the middle, of shapes .* got'):
    jax.eval_shape(apply, params, X, TIME, given(residuals=zeros[:-1]))


@pytest.mark.parametrize('name', SLOWLY)
def test_derivatives_along_a_path_in_x_and_conditions(name):
  _, params, apply = built(name)
  one, towards = given(), jax.random.normal(jax.random.key(5), (4, 4, 6))
  predict = lambda x, time, tokens: apply(params, x, time, {**one, 'tokens': tokens})
  step = lambda amount: predict(X + amount, TIME + 30 * amount, one['tokens'] + amount * towards)
  tangent = jax.jit(lambda: jax.jvp(predict, (X, TIME, one['tokens']), (
    jnp.ones_like(X), jnp.full(4, 30.0), towards))[1])()
  change = (step(2e-3) - step(-2e-3)) / 4e-3
  np.testing.assert_allclose(tangent, change, atol=2e-2 * float(jnp.abs(change).max()))


@pytest.mark.parametrize('name, options', [
  ('cross', dict(dtype='bfloat16')), *(pytest.param(name, dict(dtype='bfloat16', **options), marks=pytest.mark.slow)
                                      for name, options in (('cross', dict(residual_dtype='float32')), ('context', {}),
                                                            ('unet', {})))])
def test_bfloat16(name, options):
  expected = built(name)[2](built(name)[1], X, TIME, given())
  found = built(name, **options)[2](built(name)[1], X, TIME, given())
  assert found.dtype == jnp.bfloat16
  assert jnp.abs(found.astype(jnp.float32) - expected).max() < 0.06 * jnp.abs(expected).max()


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('name, options', [('cross', dict(unroll=True)), ('cross', dict(remat='full')), (
  'cross', dict(remat='dots', unroll=True)), ('context', dict(remat='dots')), ('unet', dict(remat='full')), (
    'unet', dict(remat='dots'))])
def test_remat_and_unroll_change_nothing(name, options):
  gradients = []
  for net in (built(name)[0], built(name, **options)[0]):
    value = jax.value_and_grad(lambda params, net=net: jnp.sum(net.apply(params, {}, X, TIME, given())[0] ** 2))
    gradients.append(jax.jit(value)(built(name)[1]))
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[0][1]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale), *gradients)


@pytest.mark.parametrize('name', MAKE)
def test_tables_of_axes_fit(name):
  module = MAKE[name][0]
  for options in (READS, dict(token_width=6), dict(numbers=1)) if name == 'unet' else (
      READS, PLAIN, dict(token_width=6), dict(vocabulary=5), dict(numbers=1), dict(vector_width=2)):
    options = options if name != 'unet' or {'token_width', 'vocabulary'} & set(options) else {
      **options, 'cross_attention': ()}
    config = MAKE[name][1](**options)
    params, _ = jax.eval_shape(module.network(config).init, jax.random.key(0))
    sharding.param_shardings(params, sharding.make_mesh({'data': -1}), module.axes(config))


@pytest.mark.parametrize('name, options, match', [
  ('unet', dict(cross_attention=()), 'cross_attention must name resolutions among'),
  ('unet', dict(token_width=0, vocabulary=0), 'cross_attention must name resolutions'),
  ('unet', dict(cross_attention=(5,)), r'cross_attention must be resolutions among \[8, 4\]'),
  ('cross', dict(tokens_enter='joint'), "tokens_enter must be one of .'cross', 'context'."),
  ('cross', dict(token_width=7), 'text_width must be token_width')])
def test_options_that_do_not_fit(name, options, match):
  with pytest.raises(UserError, match=match):
    config_of(name, **options)


@pytest.mark.parametrize('name', MAKE)
def test_conditions_that_a_network_does_not_read(name):
  module, make = MAKE[name]
  net = module.network(make(**PLAIN, **({'cross_attention': ()} if name == 'unet' else {})))
  params, mutable = jax.eval_shape(net.init, jax.random.key(0))
  told = {'label': jnp.zeros(4, int), 'tokens': jnp.zeros((4, 3, 6))}
  with pytest.raises(UserError, match=r"is told \['tokens'\], which it does not read: it reads \['label'\]"):
    jax.eval_shape(net.apply, params, mutable, X, TIME, told)
  with pytest.raises(UserError, match=r"is not told \['label'\]"):
    jax.eval_shape(net.apply, params, mutable, X, TIME)


def test_a_block_without_tokens_is_refused():

  class Deaf(dit.Block):

    def __call__(self, x_BTD, condition_BD, key=None):
      return x_BTD

  dit.network(dit.DiT((8, 8, 3), width=16, depth=1, heads=2), block=Deaf)
  for enter, entry in (('cross', 'memory'), ('context', 'mask_BT')):
    config = dit.DiT((8, 8, 3), width=16, depth=1, heads=2, token_width=4, tokens_enter=enter)
    with pytest.raises(UserError, match=f'Deaf is not called with {entry}'):
      dit.network(config, block=Deaf)


MESHES = ({'data': 4, 'tensor': 2}, {'data': 2, 'fsdp': 2, 'tensor': 2}, {'fsdp': 4, 'tensor': 2})
CONTEXT = {'data': 2, 'context': 4}


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('name', MAKE)
def test_meshes_change_neither_values_nor_gradients(name):
  done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, timeout=900, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  assert done.returncode == 0, done.stderr[-5000:]
  errors = json.loads(done.stdout.splitlines()[-1])
  assert len(errors) == len(MESHES) + (name != 'unet') and max(errors.values()) < 2e-5, errors


def on_meshes(name):
  """mesh -> largest error of values and gradients against no mesh, relative to the largest value and gradient."""
  module, net, params = MAKE[name][0], *built(name)[:2]
  batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (X, TIME, given()))  # 8 rows

  def both(params, batch):
    def value(params):
      output = net.apply(params, {}, *batch)[0]
      return jnp.sum(jnp.sin(output)), output

    gradient, output = jax.grad(value, has_aux=True)(params)
    return gradient, output

  expected = jax.device_get(jax.jit(both)(params, batch))
  errors = {}
  for shape in (*MESHES, *((CONTEXT,) if name != 'unet' else ())):
    mesh = sharding.make_mesh(shape)
    placed = jax.device_put(params, sharding.param_shardings(params, mesh, module.axes(config_of(name))))
    found = jax.device_get(jax.jit(sharding.under(mesh, {}, both))(placed, batch))
    scales = [max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part)) for part in expected]
    errors[str(shape)] = max(
      max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours, theirs))) / scale
      for ours, theirs, scale in zip(found, expected, scales))
  return errors


if __name__ == '__main__':
  print(json.dumps(on_meshes(sys.argv[1])))
