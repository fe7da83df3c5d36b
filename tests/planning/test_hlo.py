"""Programs written by hand, in the forms that XLA prints for TPU and CPU, with what they move counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from genjax.planning import hlo

TPU = '''HloModule jit_step, is_scheduled=true, replica_count=1, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%slice_layer (stack: bf16[6,64,32], number: s32[]) -> bf16[64,32] {
  %stack = bf16[6,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  %number = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %layer = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} dynamic-slice(%stack, %number, %zero, %zero), dynamic_slice_sizes={1,64,32}
  ROOT %flat = bf16[64,32]{1,0:T(8,128)(2,1)} bitcast(%layer)
}

%write_layer (whole: f32[6,16], row: f32[16], place: s32[]) -> f32[6,16] {
  %whole = f32[6,16]{1,0:T(8,128)} parameter(0)
  %row = f32[16]{0:T(128)} parameter(1)
  %place = s32[]{:T(128)} parameter(2)
  %zero.1 = s32[]{:T(128)} constant(0)
  %update = f32[1,16]{1,0:T(8,128)} bitcast(%row)
  ROOT %new = f32[6,16]{1,0:T(8,128)} dynamic-update-slice(%whole, %update, %place, %zero.1)
}

%scattered (gradient: f32[128]) -> f32[16] {
  %gradient = f32[128]{0:T(128)} parameter(0)
  %all-reduce.7 = f32[128]{0:T(128)} all-reduce(%gradient), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%add
  %own = s32[]{:T(128)} constant(0)
  ROOT %mine = f32[16]{0:T(128)} dynamic-slice(%all-reduce.7, %own), dynamic_slice_sizes={16}
}

%begun (shard: bf16[16,8]) -> (bf16[16,8], bf16[128,8]) {
  %shard = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[128,8]{1,0:T(8,128)(2,1)} all-gather(%shard), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %custom-call.1 = (bf16[16,8]{1,0}, bf16[128,8]{1,0}) custom-call(%shard, %all-gather.1), custom_call_target="Start"
}

%async_collective_fusion.2 (shard.1: bf16[16,8], other: f32[64,64]) -> (f32[64,64], bf16[128,8]) {
  %shard.1 = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %other = f32[64,64]{1,0:T(8,128)} parameter(1)
  %product = f32[64,64]{1,0:T(8,128)} convolution(%other, %other), dim_labels=bf_io->bf
  %all-gather.2 = bf16[128,8]{1,0:T(8,128)(2,1)} all-gather(%shard.1), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %both = (f32[64,64]{1,0}, bf16[128,8]{1,0}) tuple(%product, %all-gather.2)
}

%ended (shard.2: bf16[16,8]) -> bf16[128,8] {
  %shard.2 = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.3 = bf16[128,8]{1,0:T(8,128)(2,1)} all-gather(%shard.2), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
}

%body (state: (s32[], bf16[6,64,32], f32[128])) -> (s32[], bf16[6,64,32], f32[128]) {
  %state = (s32[]{:T(128)}, bf16[6,64,32]{2,1,0:T(8,128)(2,1)}, /*index=2*/f32[128]{0:T(128)}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state), index=0
  %weights = bf16[6,64,32]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %values = f32[128]{0:T(128)} get-tuple-element(%state), index=2
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%turn, %one)
  %part = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} fusion(%weights, %turn), kind=kLoop, calls=%slice_layer
  %gather = bf16[64,256]{1,0:T(8,128)(2,1)} all-gather(%part), channel_id=1, replica_groups=mesh['a'=1,'b'=8] {'b'}, dimensions={1}
  %reduced = f32[16]{0:T(128)} fusion(%values), kind=kCustom, calls=%scattered
  ROOT %result = (s32[]{:T(128)}, bf16[6,64,32]{2,1,0:T(8,128)(2,1)}, f32[128]{0:T(128)}) tuple(%next, %weights, %values)
}

%condition (now: (s32[], bf16[6,64,32], f32[128])) -> pred[] {
  %bound = s32[]{:T(128)} constant(6)
  %now = (s32[]{:T(128)}, bf16[6,64,32]{2,1,0:T(8,128)(2,1)}, f32[128]{0:T(128)}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%now), index=0
  ROOT %less = pred[]{:T(512)} compare(%index, %bound), direction=LT
}

ENTRY %main (weights.1: bf16[6,64,32], values.1: f32[128], rows: f32[6,16], row.1: f32[16]) -> (f32[128], f32[6,16]) {
  %weights.1 = bf16[6,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  %values.1 = f32[128]{0:T(128)} parameter(1)
  %rows = f32[6,16]{1,0:T(8,128)} parameter(2)
  %row.1 = f32[16]{0:T(128)} parameter(3)
  %start = s32[]{:T(128)} constant(0)
  %first = (s32[]{:T(128)}, bf16[6,64,32]{2,1,0:T(8,128)(2,1)}, f32[128]{0:T(128)}) tuple(%start, %weights.1, %values.1)
  %loop = (s32[]{:T(128)}, bf16[6,64,32]{2,1,0:T(8,128)(2,1)}, f32[128]{0:T(128)}) while(%first), condition=%condition, body=%body
  %last = f32[128]{0:T(128)} get-tuple-element(%loop), index=2
  %kernel = f32[16]{0:T(128)} custom-call(%row.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"block": "{\\"rows\\": 512}"
}}, metadata={op_name="kernel"}
  %total = f32[128]{0:T(128)} all-reduce(%last), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %stored = f32[6,16]{1,0:T(8,128)} fusion(%rows, %row.1, %start), kind=kLoop, calls=%write_layer
  ROOT %out = (f32[128]{0:T(128)}, f32[6,16]{1,0:T(8,128)}) tuple(%total, %stored)
}
'''


@pytest.fixture(scope='module')
def program():
  return hlo.Program(TPU)


def test_a_loop_runs_as_often_as_its_condition_says(program):
  assert program.devices == 8 and program.entry == 'main'
  assert program.loops == {'loop': 6}


def test_collectives_by_kind_count_and_bytes(program):
  found = program.collectives()
  assert set(found) == {'all-gather', 'reduce-scatter', 'all-reduce'}
  # Each device sends its 64 x 32 bfloat16 to 7 others, six times.
  assert (found['all-gather'].count, found['all-gather'].bytes) == (6, 6 * 64 * 32 * 2 * 7)
  # An all-reduce of which every device keeps a slice is a reduce-scatter: 3/4 of 128 float32 among four devices.
  assert (found['reduce-scatter'].count, found['reduce-scatter'].bytes) == (6, 6 * 128 * 4 * 3 / 4)
  assert (found['all-reduce'].count, found['all-reduce'].bytes) == (1, 2 * 128 * 4 * 3 / 4)
  assert found['all-gather'].groups == [(8, 6 * 64 * 32 * 2 * 7)]


def test_memory_traffic_counts_slices_and_leaves_out_the_chip(program):
  turn = 4 + 4 + 4  # next = turn + one
  turn += 64 * 32 * 2 + 4  # the fusion reads one layer of the stack and its number, and writes on the chip
  turn += 64 * 256 * 2  # the gather reads on the chip and writes to memory
  turn += 128 * 4 + 16 * 4  # the reduce-scatter
  after = 2 * 16 * 4  # the kernel
  after += 2 * 128 * 4 + (16 * 4 + 4 + 16 * 4)  # all-reduce; the update reads a row and a number, and writes a row in place
  assert program.memory_bytes() == 6 * turn + after


def test_a_gather_that_runs_beside_products_is_one_gather():
  text = TPU.replace('ROOT %out =', """%slice = bf16[16,8]{1,0} parameter(4)
  %matrix = f32[64,64]{1,0} parameter(5)
  %async-collective-start = (bf16[16,8]{1,0}, bf16[128,8]{1,0}) fusion(%slice), kind=kCustom, calls=%begun
  %fusion.9 = (f32[64,64]{1,0}, bf16[128,8]{1,0}) fusion(%slice, %matrix), kind=kOutput, calls=%async_collective_fusion.2
  %async-collective-done = bf16[128,8]{1,0} fusion(%slice), kind=kCustom, calls=%ended
  ROOT %out =""")
  before, after = (hlo.Program(program).collectives()['all-gather'] for program in (TPU, text))
  assert (after.count - before.count, after.bytes - before.bytes) == (1, 16 * 8 * 2 * 7)


@pytest.mark.parametrize('shape, size', [
  ('f32[]', 4), ('bf16[4,128]{1,0:T(8,128)(2,1)}', 1024), ('pred[3]', 3), ('(s32[2], u8[5], f8e4m3fn[2,2])', 17), ('s4[6]', 3),
  ('c64[2]', 16), ('token[]', 0), ('(bf16[<=8], u32[])', 20)])
def test_sizes_of_types(shape, size):
  assert hlo.size_of(shape) == size


def test_a_loop_of_unknown_length_is_told():
  text = TPU.replace('direction=LT', 'direction=NE')
  assert hlo.Program(text).loops == {'loop': None}
  assert hlo.Program(text).collectives()['all-gather'].count == 1


def test_what_xla_notes_of_a_loop_counts_first():
  text = TPU.replace('body=%body', 'body=%body, backend_config={"known_trip_count":{"n":"9"}}')
  assert hlo.Program(text).loops == {'loop': 9}


def test_a_compiled_program_of_this_machine():
  """`lax.scan` of five products: the weights are read in every turn."""

  def function(x, w):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0]

  shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  program = hlo.Program(jax.jit(function).lower(shape, shape).compile().as_text())
  assert set(program.loops.values()) == {5} and program.collectives() == {}
  assert 5 * 3 * 64 * 64 * 4 <= program.memory_bytes() <= 5 * 8 * 64 * 64 * 4


def test_other_text_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    hlo.Program('no program')
