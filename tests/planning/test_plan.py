"""Plans of small runs on the devices of this process: bytes, advice, messages of compilers."""

import jax
import pytest

from genjax.cli import configs
from genjax.cli import plan as command
from genjax.planning import plan, topology
from genjax.runs import builders
from genjax.training.run import Run
from genjax.types import UserError


def test_messages_about_too_little_memory():
  used = ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 65.85G of 15.75G hbm. Exceeded hbm capacity '
          'by 50.10G.')
  assert plan.needed_and_available(used) == pytest.approx((65.85 * 2**30, 15.75 * 2**30))
  large = ('Ran out of memory on HBM, the total memory required for HLO temporaries (400.00G) exceeds available HBM '
           '(95.74G).')
  assert plan.needed_and_available(large) == pytest.approx((400 * 2**30, 95.74 * 2**30))
  assert plan.needed_and_available('INTERNAL: something else') is None


def report(**changes):
  """A plan that needs 40 of 16 GiB on eight devices."""
  sizes = dict.fromkeys(('parameters', 'optimizer', 'averages', 'mutable', 'frozen', 'batch'), 2**20) | {
    'temporaries': None, 'peak': 40 * 2**30, 'limit': 16 * 2**30}
  base = dict(fits=False, shortfall=24 * 2**30, devices=8, mesh={'fsdp': 8}, batch_size=64, microbatches=1,
              dtype='float32', remat='none', bytes_per_device=sizes, bytes={'parameters': 8 * 2**20})
  return base | changes


def test_advice_names_what_can_be_changed():
  text = '\n'.join(plan.advice(report()))
  assert '--config.model.dtype=bfloat16' in text and '--config.model.remat=full' in text
  assert '--config.microbatches=4 computes 2 instead of 8' in text and '--config.batch_size=32' in text
  assert plan.advice(report(fits=True)) == [] and plan.advice(report(fits=None)) == []


def test_advice_does_not_repeat_what_is_done():
  text = '\n'.join(plan.advice(report(dtype='bfloat16', remat='full', batch_size=8)))
  assert 'dtype' not in text and 'remat' not in text and 'microbatches' not in text and 'tensor:4' in text


def test_advice_spreads_a_replicated_state():
  sizes = report()['bytes_per_device'] | {'parameters': 10 * 2**30, 'optimizer': 20 * 2**30}
  lines = plan.advice(
    report(mesh={'data': 8}, bytes_per_device=sizes, bytes={'parameters': 10 * 2**30, 'optimizer': 20 * 2**30}))
  assert lines[0].startswith('mesh:') and lines[0].endswith('--mesh=fsdp:8')
  assert lines[-1].endswith('that is 4 devices')


def test_a_slice_that_is_too_small_for_the_state_is_said_first():
  lines = plan.advice(report(bytes={'parameters': 16 * 8 * 2**30, 'optimizer': 16 * 16 * 2**30}))
  assert lines[0] == "slice: the state alone is 384.00 GiB; at half of a device's memory that is 48 devices"
  assert any(line.startswith('microbatches') for line in lines[1:])


@pytest.mark.parametrize('name, message', [('v9:2x2', "got 'v9:2x2'"), ('v5p', "got 'v5p'"), ('cpu:0', "got 'cpu:0'"),
                                           ('', 'for example v5p:8x8x16'), ('v5e:4y4', "got 'v5e:4y4'")])
def test_unknown_topologies(name, message):
  with pytest.raises(UserError, match=message):
    topology.prepare(name)


def test_more_fake_devices_than_this_process_has():
  assert jax.devices()  # the backend runs; before it does, as many are made as are asked for
  with pytest.raises(UserError, match='plan in a separate process'):
    topology.find('cpu:4096')


@pytest.mark.parametrize('text', ['fsdp', 'fsdp:0', 'fsdp:x', 'rows:2', 'fsdp:-2'])
def test_meshes_that_are_none(text):
  with pytest.raises(UserError, match='--mesh takes axis:size'):
    builders.mesh_sizes(text)


def test_rematerialisation_is_no_work_of_the_model(request):
  costs = {}
  for remat in ('none', 'full'):
    argv = [f'--config={request.config.rootpath}/configs/language/gpt3.py:smoke', f'--config.model.remat={remat}']
    config = configs.parse('plan', argv, '')[0].config
    run = Run(builders.build(config), builders.settings(config))
    costs[remat] = (command.model_flops(config, []), run.step_flops())
  assert costs['none'][0] == costs['none'][1] == costs['full'][0] < costs['full'][1]
