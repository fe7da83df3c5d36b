"""What is compiled for TPUs that are not here: skipped without libtpu (`pip install genjax-research[tpu]`)."""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from genjax import sharding
from genjax.models.transformers import decoder
from genjax.objectives.language import LanguageModel
from genjax.planning.plan import uncached
from genjax.training import state as state_lib
from genjax.training import step as step_lib

OPTIONS = dict(vocab=512, context=512, layers=3, heads=4, kv_heads=2, width=256, dtype='bfloat16')


@pytest.fixture
def devices(monkeypatch):
  """Four devices of a TPU slice, as the compiler knows them."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip('libtpu is absent: nothing compiles for TPUs')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')  # on a machine that is no TPU nothing answers
  from jax.experimental import topologies
  with uncached():
    yield topologies.get_topology_desc('v5e:2x2', platform='tpu').devices


def lower(devices, shape, **options):
  """The train step of a small transformer, lowered for a mesh."""
  mesh = sharding.make_mesh(shape, devices)
  config = decoder.llama(**OPTIONS, **options)
  objective = LanguageModel(decoder.transformer(config), functools.partial(decoder.init_cache, config), config.context)
  optimizers = {'net': optax.adam(1e-3)}
  shapes = jax.eval_shape(functools.partial(state_lib.create, objective, optimizers, {}, 0), {})
  layout = state_lib.shardings(shapes, optimizers, mesh, {'net': decoder.axes(config)}, {})
  target = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes,
                        layout)
  batch = {'tokens': jax.ShapeDtypeStruct((8, config.context + 1), jnp.int32, sharding=sharding.batch_sharding(mesh))}
  step = sharding.under(mesh, {}, step_lib.make_step(objective, optimizers, {}, 0))
  jitted = jax.jit(step, static_argnums=3, donate_argnums=0, out_shardings=(layout, sharding.replicated(mesh)))
  return jitted.lower(target, {}, batch, ('lm',))


@pytest.mark.parametrize('attention', ['auto', 'splash', 'chunked'])
def test_the_step_for_tpus_calls_the_attention_kernel(devices, attention):
  text = lower(devices, {'fsdp': 2, 'tensor': 2}, attention=attention).as_text()
  assert ('tpu_custom_call' in text and 'splash_mha' in text) == (attention != 'chunked')


@pytest.mark.slow
def test_each_device_runs_the_kernel_on_its_rows_and_heads(devices):
  """8 rows over fsdp, 4 heads of queries and 2 of keys over tensor: 4 rows, 2 heads, 1 head."""
  text = lower(devices, {'fsdp': 2, 'tensor': 2}).compile().as_text()
  calls = re.findall(r'%splash_mha_\S+ = \((.*?)\) custom-call', text)
  assert len(calls) == 3  # forward, and two of the backward pass
  for outputs in calls:
    assert re.search(r'bf16\[4,[12],512,128\]', outputs) and not re.search(r'bf16\[8,|bf16\[4,4,', outputs)


@pytest.mark.slow
def test_offloaded_activations_lie_in_the_memory_of_the_host(devices):
  def compiled(remat):
    return lower(devices, {'fsdp': 4}, remat=remat).compile().memory_analysis()

  rows, inputs = 8 // 4, 3 * 512 * 256 * 2  # of a device; bytes of three block inputs of a row
  assert compiled('offload').host_temp_size_in_bytes >= rows * inputs
  assert compiled('full').host_temp_size_in_bytes == 0


@pytest.mark.slow
def test_each_device_multiplies_its_rows_by_its_experts(devices):
  """8 rows of 512 tokens over fsdp, 4 experts over expert, each of 256 by 384: 4,096 routed tokens, 2 experts."""
  text = lower(devices, {'fsdp': 2, 'expert': 2}, experts=4, experts_per_token=2, mlp_width=384).compile().as_text()
  products = re.findall(r'%ragged-dot-none\S* = bf16\[([\d,]+)\]\S* custom-call', text)
  # Up, gate and down, forward and for the gradient of their rows
  assert sorted(products) == ['4096,256'] * 3 + ['4096,384'] * 3
  gradients = re.findall(r'%tgmm\S* = bf16\[([\d,]+)\]\S* custom-call', text)
  assert sorted(gradients) == ['2,256,384'] * 2 + ['2,384,256']
  # No product of every token with every expert
  assert not re.search(r'= \w+\[(\d+,)*384(,\d+)*\]\S* (dot|convolution)\(', text)
  together = {int(experts) for experts in re.findall(r'\[(?:\d+,)*(\d+),(?:256,384|384,256)\]', text)}
  assert 2 in together and 4 not in together  # nothing holds the matrices of all experts
