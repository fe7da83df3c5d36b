"""A bound on the time of a step: what must be computed, moved through memory and sent over links, at the peak of each.

Williams, Waterman and Patterson 2009. No schedule, no kernel efficiency: a real step takes longer than `seconds_overlapped`, and how
much longer nothing here knows. The ring algorithms of the collectives are assumed, each over all links of a device.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from genjax.planning.hlo import Traffic
from genjax.planning.topology import Hardware


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of a step on one device, and the share of its peak that the model's FLOPs are.

  compute, memory, links: each alone. overlapped: if they overlap perfectly, the slowest decides. serial: if nothing overlaps. mfu_*: model
  FLOPs (without recomputation) over time x peak (Chowdhery et al. 2022, appendix B). bound: which is the slowest.
  """

  compute: float
  memory: float
  links: float
  overlapped: float
  serial: float
  mfu_overlapped: float
  mfu_serial: float
  bound: str


def estimate(step_flops: float, model_flops: float, memory_bytes: float, collectives: Mapping[str, Traffic], devices: int,
             hardware: Hardware, links: int) -> Roofline:
  """The bound of a step.

  Args:
    step_flops: FLOPs of the step over all devices, recomputation included.
    model_flops: the same without recomputation.
    memory_bytes: read and written on one device.
    collectives: what one device sends, by kind.
    devices: over which the FLOPs are split evenly.
    hardware: of one device.
    links: links of a device that a collective uses at once, see `links_of`.
  """
  parts = {'compute': step_flops / devices / hardware.flops, 'memory': memory_bytes / hardware.memory_bandwidth,
           'links': sum(traffic.bytes for traffic in collectives.values()) / (links * hardware.link_bandwidth)}
  overlapped, serial = max(parts.values()), sum(parts.values())
  useful = model_flops / devices / hardware.flops
  return Roofline(**parts, overlapped=overlapped, serial=serial, mfu_overlapped=useful / overlapped if overlapped else 0.0,
                  mfu_serial=useful / serial if serial else 0.0, bound=max(parts, key=parts.__getitem__))


def links_of(name: str) -> int:
  """Links that a collective over a whole slice keeps busy in a chip: on a torus two for each dimension, else one for each.

  A dimension closes to a ring where the slice is a multiple of 4 long (v4, v5p) or a whole pod of 16 (v5e, v6e); a dimension of one or
  two chips has one link. GPUs are taken to have one, through a switch.
  """
  kind, _, shape = name.partition(':')
  if kind not in ('v4', 'v5e', 'v5p', 'v6e'):
    return 1
  ring = 4 if kind in ('v4', 'v5p') else 16
  sizes = [int(size) for size in shape.split('x') if int(size) > 1]
  return max(1, sum(2 if size % ring == 0 else 1 for size in sizes))


def assumptions(hardware: Hardware, links: int) -> dict[str, Any]:
  """The numbers that an estimate rests on, for readers."""
  return {'peak_flops': hardware.flops, 'memory_bandwidth': hardware.memory_bandwidth, 'link_bandwidth': hardware.link_bandwidth,
          'links': links, 'efficiency': 1.0}
