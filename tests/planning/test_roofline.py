"""The bound of a step by hand, and the links of a slice."""

import pytest

from genjax.planning import roofline
from genjax.planning.hlo import Traffic
from genjax.planning.topology import TPUS, Hardware

HARDWARE = Hardware(flops=100.0, memory_bandwidth=10.0, link_bandwidth=2.0)


def test_the_slowest_part_bounds_a_step():
  traffic = {'all-gather': Traffic(3, 30.0, [(16, 30.0)]), 'all-reduce': Traffic(1, 10.0, [(4, 10.0)])}
  keywords = dict(step_flops=4000.0, model_flops=3000.0, collectives=traffic, topology='v5e:4x4', devices=4,
                  hardware=HARDWARE)
  bound = roofline.estimate(memory_bytes=50.0, **keywords)
  # The gather among all 16 has a link in each of two dimensions, the reduction among four has one.
  assert (bound.compute, bound.memory, bound.links) == (10.0, 5.0, (30.0 / 2 + 10.0 / 1) / 2.0)
  assert (bound.overlapped, bound.serial, bound.bound) == (12.5, 27.5, 'links')
  assert bound.mfu_overlapped == pytest.approx(7.5 / 12.5) and bound.mfu_serial == pytest.approx(7.5 / 27.5)
  slow = roofline.estimate(memory_bytes=500.0, **keywords)
  assert slow.bound == 'memory' and slow.overlapped == 50.0


@pytest.mark.parametrize('name, group, links', [('v5p:4x4x8', 128, 6), ('v5p:4x4x8', 8, 2), ('v5p:4x4x8', 4, 1),
                                                ('v5p:8x8x16', 256, 5), ('v5p:2x2x1', 4, 2), ('v4:2x2x4', 16, 4),
                                                ('v5e:4x4', 16, 2), ('v5e:4x4', 4, 1), ('v5e:16x16', 256, 4),
                                                ('v6e:8x16', 128, 3), ('v5e:1x1', 1, 1), ('gpu', 8, 1)])
def test_links_of_a_group(name, group, links):
  assert roofline.links_of(name, group) == links


def test_hardware_is_of_its_generation():
  """Ratios that the published tables imply, so that a slipped digit shows."""
  for hardware in TPUS.values():
    assert 100 < hardware.flops / hardware.memory_bandwidth < 600
    assert 8 < hardware.memory_bandwidth / hardware.link_bandwidth < 30
    assert hardware.memory is not None and 15 < hardware.memory / 2**30 < 96
