"""Roofline model: a lower bound on the time of a step from computation, memory traffic and communication.

Source: Williams, Waterman and Patterson 2009. The model ignores scheduling and the efficiency of kernels, so a real
step takes longer than `overlapped`. Collectives are assumed to use ring algorithms over the links that `links_of`
counts.
"""

from collections.abc import Mapping
import dataclasses
import math

from genjax.planning.hlo import Traffic
from genjax.planning.topology import TPUS, Hardware


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Lower bounds of the seconds of a step on one device, and the model FLOPs utilization (MFU).

  Attributes:
    compute, memory, links: seconds of each alone.
    overlapped: seconds if they overlap perfectly, the maximum of the three.
    serial: seconds if nothing overlaps, their sum.
    mfu_overlapped, mfu_serial: model FLOPs (without recomputation) / (time x peak) (Chowdhery et al. 2022, appendix B).
    bound: name of the slowest of the three.
  """

  compute: float
  memory: float
  links: float
  overlapped: float
  serial: float
  mfu_overlapped: float
  mfu_serial: float
  bound: str


def estimate(step_flops: float, model_flops: float, memory_bytes: float, collectives: Mapping[str, Traffic],
             topology: str, devices: int, hardware: Hardware) -> Roofline:
  """The lower bound of the time of a step.

  Args:
    step_flops: FLOPs of the step over all devices, recomputation included.
    model_flops: the same without recomputation.
    memory_bytes: bytes read and written on one device.
    collectives: traffic of one device by kind of collective.
    topology: name of the slice, for `links_of`.
    devices: number of devices; the FLOPs are split evenly.
    hardware: data of one device.
  """
  sending = sum(sent / links_of(topology, size) for traffic in collectives.values() for size, sent in traffic.groups)
  parts = {'compute': step_flops / devices / hardware.flops, 'memory': memory_bytes / hardware.memory_bandwidth,
           'links': sending / hardware.link_bandwidth}
  overlapped, serial = max(parts.values()), sum(parts.values())
  useful = model_flops / devices / hardware.flops
  return Roofline(**parts, overlapped=overlapped, serial=serial,
                  mfu_overlapped=useful / overlapped if overlapped else 0.0,
                  mfu_serial=useful / serial if serial else 0.0, bound=max(parts, key=parts.__getitem__))


def links_of(topology: str, group: int) -> int:
  """Links per device that a collective among `group` devices uses, placed along as few dimensions as possible.

  A dimension that the group fills and that is a closed ring has two links, any other has one. It is a ring if the
  slice's length is a multiple of 4 (v4, v5p) or a whole pod of 16 (v5e, v6e). GPUs are assumed to have one link, to a
  switch.
  """
  kind, _, shape = topology.partition(':')
  if kind not in TPUS:
    return 1
  ring = 4 if kind in ('v4', 'v5p') else 16
  links, rest = 0, group
  for size in sorted(map(int, shape.split('x')), reverse=True):
    if rest > 1 and size > 1:
      links += 2 if rest >= size and size % ring == 0 else 1
      rest = math.ceil(rest / size)
  return max(1, links)
