"""Devices to compile for (an absent TPU slice, fake CPU devices, or present GPUs) and their hardware data."""

from collections.abc import Sequence
import dataclasses
import importlib.metadata
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from genjax.types import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
  """Hardware data of one device.

  Attributes:
    flops: peak bfloat16 FLOP/s.
    memory_bandwidth: of the main memory, bytes/s.
    link_bandwidth: of one link in one direction, bytes/s.
    memory: bytes of main memory that a program may use; None if unbounded.
  """

  flops: float
  memory_bandwidth: float
  link_bandwidth: float
  memory: float | None = None


# Peak FLOP/s, HBM and interconnect bandwidth of a chip: https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "System
# architecture". The bandwidth of a link is that of the chip divided by its ports (v4, v5p: 6; v5e, v6e: 4), and by 2 if
# the page counts both directions; https://jax-ml.github.io/scaling-book/tpus has the same numbers. Memory is the limit
# of libtpu's compiler for a program.
TPUS = {
  'v4': Hardware(275e12, 1.2e12, 50e9, 30.75 * GIB),
  'v5e': Hardware(197e12, 819e9, 50e9, 15.75 * GIB),
  'v5p': Hardware(459e12, 2765e9, 100e9, 95.74 * GIB),
  'v6e': Hardware(918e12, 1638e9, 100e9, 31.25 * GIB),
}

# Dense bfloat16 without sparsity, and NVLink in one direction (L4, L40S: PCIe), from NVIDIA's data sheets: the SXM form
# unless named, and A100 with 80 GB.
GPUS = {
  'A100': Hardware(312e12, 2.039e12, 300e9),
  'H100': Hardware(989e12, 3.35e12, 450e9),
  'H100 PCIe': Hardware(756e12, 2.0e12, 300e9),
  'H100 NVL': Hardware(835e12, 3.9e12, 300e9),
  'H200': Hardware(989e12, 4.8e12, 450e9),
  'GH200': Hardware(989e12, 4.0e12, 450e9),
  'H20': Hardware(148e12, 4.0e12, 450e9),
  'B200': Hardware(2250e12, 8.0e12, 900e9),
  'GB200': Hardware(2500e12, 8.0e12, 900e9),
  'L4': Hardware(121e12, 300e9, 32e9),
  'L40S': Hardware(362e12, 864e9, 32e9),
}

# their names in jax backends
_TPU_KINDS = {
  'TPU v4': 'v4', 'TPU v5 lite': 'v5e', 'TPU v5e': 'v5e', 'TPU v5': 'v5p', 'TPU v5p': 'v5p', 'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e'
}


def hardware_of(kind: str) -> Hardware | None:
  """The hardware data for a `device_kind` of a jax backend; None if unknown."""
  if kind in _TPU_KINDS:
    return TPUS[_TPU_KINDS[kind]]
  names = [name for name in GPUS if re.search(rf'(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])', kind)]
  return GPUS[max(names, key=len)] if names else None


@dataclasses.dataclass(frozen=True)
class Target:
  """The devices to compile a step for.

  Attributes:
    name: the topology, e.g. 'v5p:8x8x16'.
    devices: the devices of the mesh.
    kind: their name in the backend.
    hardware: data of one device; None for fake devices.
    compiler: version of the compiler.
  """

  name: str
  devices: Sequence[Any]
  kind: str
  hardware: Hardware | None
  compiler: str


def prepare(name: str) -> None:
  """Sets up the environment before a backend starts. Planning for a TPU or fake devices uses no accelerator.

  Raises:
    UserError: the topology is unknown.
  """
  kind, _, size = name.partition(':')
  if kind in TPUS and re.fullmatch(r'\d+(x\d+)*', size):
    # Don't query the metadata server for the TPU type, and don't lock the library for one process.
    os.environ.update(TPU_SKIP_MDS_QUERY='1', ALLOW_MULTIPLE_LIBTPU_LOAD='1')
    # Without an accelerator type libtpu complains on stderr. The requested topology decides, not this value.
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5p-8')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  elif kind == 'cpu' and size.isdecimal() and int(size):
    pass
  elif name == 'gpu':
    return
  else:
    raise UserError(
      f'--topology must be a TPU generation of {sorted(TPUS)} with the shape of a slice, cpu:N or gpu, for example '
      f'v5p:8x8x16, v5e:4x4, cpu:8; got {name!r}')
  try:
    jax.config.update('jax_platforms', 'cpu')
    if kind == 'cpu':
      jax.config.update('jax_num_cpu_devices', int(size))
  except RuntimeError:
    # A backend already runs in this process. `find` raises an error if it has too few devices.
    return


def find(name: str) -> Target:
  """The devices of a topology.

  Args:
    name: 'v4', 'v5e', 'v5p' or 'v6e' and the shape of a slice in chips, as in 'v5p:8x8x16'; 'cpu:8' for as many fake
      devices; 'gpu' for the local GPUs.

  Raises:
    UserError: the topology is unknown, or libtpu or a GPU is missing.
  """
  prepare(name)
  kind, _, size = name.partition(':')
  if kind in TPUS:
    return _tpu(name, kind)
  if kind == 'cpu':
    devices = jax.devices('cpu')
    if len(devices) < int(size):
      raise UserError(
        f'--topology={name} needs {size} CPU devices, but this process has started with {len(devices)}; plan in a '
        'separate process')
    return Target(name, devices[:int(size)], 'cpu', None, f'jaxlib {importlib.metadata.version("jaxlib")}')
  try:
    devices = jax.devices('gpu')
  except RuntimeError as error:
    raise UserError(
      f'--topology=gpu needs a GPU and jax for it (pip install "genjax-research[cuda12]"): {_first_line(error)}'
    ) from error
  hardware = hardware_of(devices[0].device_kind)
  if hardware:
    hardware = dataclasses.replace(hardware, memory=(devices[0].memory_stats() or {}).get('bytes_limit'))
  return Target(name, devices, devices[0].device_kind, hardware, f'jaxlib {importlib.metadata.version("jaxlib")}')


def _tpu(name: str, kind: str) -> Target:
  try:
    version = importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError as error:
    raise UserError(
      f"--topology={name} compiles with libtpu, which is not installed; pip install 'genjax-research[tpu]' (from a "
      "clone: pip install -e '.[tpu]'). No TPU is needed") from error
  # The two cores of a v4 chip are two devices by default; training uses them as one, as on v5p.
  options: dict[str, Any] = {'chip_config_name': 'megacore'} if kind == 'v4' else {}
  if re.fullmatch(r'\w+:1(x1)*', name):  # a single chip is part of a host, which must be specified
    options['chips_per_host_bounds'] = [1, 1, 1]
  try:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices
  except Exception as error:  # the plugin rejects the shape, or jax cannot load the library
    message = _first_line(error)
    if 'opology' in message:
      raise UserError(
        f'--topology={name} is not a slice that libtpu knows ({message}); shapes count chips and have whole hosts, '
        'such as v5p:4x4x8 or v5e:4x4, or of one chip, such as v5p:1x1x1 or v5e:1x1') from error
    raise UserError(
      f'libtpu {version} cannot be used by jax {jax.__version__} ({message}); install matching versions: '
      "pip install 'genjax-research[tpu]' (from a clone: pip install -e '.[tpu]')") from error
  return Target(name, devices, devices[0].device_kind, TPUS[kind], f'libtpu {version}')


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:300]
