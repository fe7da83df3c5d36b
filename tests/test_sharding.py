"""Meshes and layouts; eight devices are simulated where a mesh is enough, without arrays."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
import numpy as np
import pytest

from genjax import sharding
from genjax.types import UserError

SHAPES = {'a': {'kernel': jax.ShapeDtypeStruct((64, 96), np.float32)}, 'bias': jax.ShapeDtypeStruct((96,), np.float32)}
TABLE = ((r'a/kernel', (None, 'mlp')),)


def mesh(**sizes):
  return AbstractMesh(tuple(sizes.get(axis, 1) for axis in sharding.MESH_AXES), sharding.MESH_AXES)


def spec(**keywords):
  tree = sharding.param_shardings(SHAPES, keywords.pop('mesh'), **keywords)
  return tree['a']['kernel'].spec, tree['bias'].spec


def test_automatic_fsdp_takes_the_largest_dimension():
  assert spec(mesh=mesh(fsdp=8))[0] == PartitionSpec(None, 'fsdp')


def test_the_smallest_arrays_stay_whole_up_to_a_tenth_of_a_devices_share():
  # 6,240 parameters: a device of 2 holds 3,120 and may have the bias of 96 whole, one of 8 has a budget of 78.
  assert spec(mesh=mesh(fsdp=2))[1] == PartitionSpec(None)
  assert spec(mesh=mesh(fsdp=8))[1] == PartitionSpec('fsdp')
  shapes = {**SHAPES, 'odd': jax.ShapeDtypeStruct((7, 31), np.float32)}  # cannot be split, and is twice the budget
  placed = sharding.param_shardings({**shapes, 'bias': jax.ShapeDtypeStruct((8,), np.float32)}, mesh(fsdp=8))
  assert (placed['odd'].spec, placed['bias'].spec) == (PartitionSpec(None, None), PartitionSpec('fsdp'))


def test_rules_come_first():
  assert spec(mesh=mesh(fsdp=2, tensor=4), table=TABLE) == (PartitionSpec('fsdp', 'tensor'), PartitionSpec('fsdp'))
  assert spec(mesh=mesh(fsdp=2, tensor=4), table=TABLE, rules={'mlp': None})[0] == PartitionSpec(None, 'fsdp')
  assert spec(mesh=mesh(fsdp=2, tensor=4), table=TABLE, rules={'mlp': 'fsdp'})[0] == PartitionSpec(None, 'fsdp')


def test_a_stack_of_layers_is_not_split():
  shapes = {'kernel': jax.ShapeDtypeStruct((64, 32, 32), np.float32)}
  placed = sharding.param_shardings(shapes, mesh(fsdp=8), ((r'kernel', ('layers', None, None)),))
  assert placed['kernel'].spec[0] is None and 'fsdp' in placed['kernel'].spec


@pytest.mark.parametrize(('table', 'rules', 'words'), [
  ((('nothing', (None,)),), {}, ("'nothing'", 'a/kernel')),
  ((('a/kernel', ('mlp',)),), {}, ('a/kernel', '(64, 96)', '1 axes')),
  ((('a/kernel', ('mlp', 'heads')),), {}, ('a/kernel', '(64, 96)', 'two axes')),
  ((('bias', ('mlp',)),), {'mlp': 'nowhere'}, ("'nowhere'", 'bias')),
  ((('bias', ('mlp',)),), {'mlp': ('tensor', 'data')}, ('bias', '(96,)', 'unequal')),
])
def test_bad_rules_name_path_shape_and_rule(table, rules, words):
  with pytest.raises(UserError) as error:
    sharding.param_shardings(SHAPES, mesh(tensor=4, data=5), table, rules)
  assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize('shape', [{'rows': 2}, {'data': -1, 'fsdp': -1}, {'data': 3}, {'data': 0}])
def test_bad_meshes(shape):
  with pytest.raises(UserError):
    sharding.make_mesh(shape)


def test_batch_must_divide():
  with pytest.raises(UserError, match='multiple of 16'):
    sharding.check_batch(mesh(data=4, fsdp=2), 12, 2)
  sharding.check_batch(mesh(data=4, fsdp=2), 32, 2)


def constrained(shape, axes, **keywords):
  """The layout that `constrain` asks for, from the traced program."""
  place = lambda x: sharding.constrain(x, *axes, name='x')
  traced = jax.make_jaxpr(sharding.under(keywords.pop('mesh'), keywords,
                                         place))(jax.ShapeDtypeStruct(shape, np.float32))
  return [
    equation.params['sharding'].spec for equation in traced.eqns if equation.primitive.name == 'sharding_constraint'
  ]


def test_constrain_goes_by_the_rules():
  devices = mesh(data=2, fsdp=2, context=2)
  assert constrained((8, 4, 6), ('batch', 'sequence', 'mlp'),
                     mesh=devices) == [PartitionSpec(('data', 'fsdp'), 'context', None)]
  assert constrained((8, 4, 6), ('batch', 'sequence', None), mesh=devices,
                     sequence=None) == [PartitionSpec(('data', 'fsdp'), None, None)]
  # A preview of 3 rows
  assert constrained((3, 4), ('batch', 'sequence'), mesh=devices) == [PartitionSpec(None, 'context')]


def test_constrain_names_what_does_not_divide():
  with pytest.raises(UserError, match=r"x \(8, 5\): rule 'sequence' -> \('context',\) splits 5 into 2"):
    constrained((8, 5), ('batch', 'sequence'), mesh=mesh(context=2))
  with pytest.raises(UserError, match='two axes on one mesh axis'):
    constrained((8, 4), ('mlp', 'heads'), mesh=mesh(tensor=2))


def test_constrain_is_the_identity_without_a_mesh_and_on_one_device():
  assert constrained((8, 4), ('batch', 'sequence'), mesh=mesh()) == []
  assert sharding.active() is None and sharding.shards('batch') == 1
  x = jnp.ones((8, 5))
  assert sharding.constrain(x, 'batch', 'sequence') is x


def test_a_mesh_ends_with_its_function_and_goes_along_into_another_cache():
  function = lambda: sharding.shards('heads')
  two, four = (jax.jit(sharding.under(mesh(tensor=size), {}, function)) for size in (2, 4))
  assert (two(), four(), two(), jax.jit(function)()) == (2, 4, 2, 1)
  with pytest.raises(ZeroDivisionError):
    sharding.under(mesh(tensor=2), {}, lambda: 1 // 0)()
  assert sharding.active() is None
