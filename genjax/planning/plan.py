"""The plan of a run: its train step compiled for a slice, as data and as text."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import math
import re
import time
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from genjax.planning import hlo, roofline
from genjax.planning.topology import GIB, Target
from genjax.training.monitoring import memory
from genjax.training.run import Run

Report = dict[str, Any]

_UNITS = {'': 1, 'B': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_OUT_OF_MEMORY = (re.compile(r'[Uu]sed ([\d.]+)([KMGTB]?) of ([\d.]+)([KMGTB]?) hbm'),
           re.compile(r'\(([\d.]+)([KMGTB]?)\) exceeds available HBM \(([\d.]+)([KMGTB]?)\)'))


def make(run: Run, target: Target, model_flops: int, facts: Mapping[str, Any],
         save: Callable[[str], Any] | None = None) -> Report:
  """Compiles the most expensive step of a run, in which every phase is due, and reports its costs.

  Args:
    run: a run on the devices of `target`.
    target: the devices to compile for.
    model_flops: FLOPs of the step without recomputation, over all devices.
    facts: 'dtype' and 'remat' of the config, if it has them, for the advice.
    save: called with the text of the compiled program.

  Returns:
    A JSON-able report, see `render`. 'fits' is None if the memory is unbounded. Results from the compiled program
    ('collectives', 'roofline', 'flops.compiled_per_device', 'memory_traffic') are None if the compiler ran out of
    device memory.
  """
  due = tuple(phase.name for phase in run.phases)
  begin = time.perf_counter()
  lowered = run.lower_step(due)
  lowering = time.perf_counter() - begin
  begin = time.perf_counter()
  compiled, needed = _compile(lowered)
  compiling = time.perf_counter() - begin
  frozen, batch = run.frozen_target, run.batch_target()
  bytes_per_device: dict[str, Any] = {**memory.per_device(run.target, frozen), 'batch': memory.device_bytes(batch)}
  limit = target.hardware.memory if target.hardware else None
  if compiled is None:
    peak, limit = needed
    bytes_per_device.update(temporaries=None, program=None)
  else:
    analysis = compiled.memory_analysis()
    peak = (analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes)
    bytes_per_device.update(temporaries=analysis.temp_size_in_bytes, program=analysis.generated_code_size_in_bytes)
  bytes_per_device.update(peak=int(peak), limit=None if limit is None else int(limit))
  step_flops = run.step_flops(due)
  report: Report = {
    'topology': target.name, 'devices': len(target.devices), 'kind': target.kind, 'compiler': target.compiler,
    'jax': jax.__version__, 'hosts': len({device.process_index for device in target.devices}), 'mesh': {
      axis: size for axis, size in run.mesh.shape.items() if size > 1
    }, 'batch_size': run.settings.batch_size, 'microbatches': run.settings.microbatches, **facts, 'phases': list(due),
    'parameters': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(run.target.params)),
    'units_per_step': run.settings.batch_size * run.experiment.units_per_example, 'unit': run.experiment.unit, 'bytes':
      memory.totals(run.target,
                    frozen), 'bytes_per_device': bytes_per_device, 'fits': None if limit is None else peak <= limit,
    'parts': memory.by_part(frozen),
    'shortfall': 0 if limit is None else max(0, int(peak - limit)), 'flops': {
      'model': model_flops, 'step': step_flops, 'compiled_per_device': None
    }, 'collectives': None, 'memory_traffic': None, 'loops_of_unknown_length': None, 'roofline':
      None, 'seconds': {'lowering': round(lowering, 1), 'compiling': round(compiling, 1)},
  }
  if compiled is not None:
    text = compiled.as_text()
    _add_program(report, hlo.Program(text), (compiled.cost_analysis() or {}).get('flops'), target)
    if save:
      save(text)
  report['advice'] = advice(report)
  return report


def _compile(lowered: jax.stages.Lowered) -> tuple[Any, tuple[float, float]]:
  """The compiled program; or None and the (needed, available) bytes of a device with too little memory."""
  try:
    with uncached():
      return lowered.compile(), (0.0, 0.0)
  except jax.errors.JaxRuntimeError as error:
    sizes = needed_and_available(str(error))
    if sizes is None:
      raise
    return None, sizes


@contextlib.contextmanager
def uncached() -> Iterator[None]:
  """Disables the persistent compile cache: it cannot read back programs for absent devices."""
  before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()  # jax decides only once whether to use it
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def needed_and_available(message: str) -> tuple[float, float] | None:
  """The bytes in a compiler's out-of-memory message; None for any other message."""
  for pattern in _OUT_OF_MEMORY:
    match = pattern.search(message)
    if match:
      needed, unit, available, available_unit = match.groups()
      return float(needed) * _UNITS[unit], float(available) * _UNITS[available_unit]
  return None


def _add_program(report: Report, program: hlo.Program, flops: float | None, target: Target) -> None:
  """Adds facts from the compiled program to the report."""
  collectives = program.collectives()
  report['flops']['compiled_per_device'] = flops
  report['collectives'] = {
    kind: {'count': traffic.count, 'bytes': round(traffic.bytes)} for kind, traffic in sorted(collectives.items())
  }
  report['memory_traffic'] = round(program.memory_bytes())
  report['loops_of_unknown_length'] = sum(length is None for length in program.loops.values())
  if target.hardware:
    bound = roofline.estimate(report['flops']['step'], report['flops']['model'], report['memory_traffic'], collectives,
                              target.name, len(target.devices), target.hardware)
    report['roofline'] = {**dataclasses.asdict(bound), 'hardware': dataclasses.asdict(target.hardware)}


def advice(report: Report) -> list[str]:
  """Changes that make a step fit, those with the least cost in time first; empty if it fits."""
  if report['fits'] is not False:
    return []
  sizes, mesh = report['bytes_per_device'], report['mesh']
  limit, devices = sizes['limit'], report['devices']
  state = sum(sizes[name] for name in ('parameters', 'optimizer', 'averages', 'mutable', 'frozen'))
  spread = sum(report['bytes'].values()) / devices
  shards = mesh.get('data', 1) * mesh.get('fsdp', 1)
  rows = report['batch_size'] // (shards * report['microbatches'])
  lines = []
  if state > 0.1 * limit and state > 1.5 * spread:
    lines.append(
      f'mesh: the state takes {_gib(state)} of every device; spread over all of them it takes {_gib(spread)}: '
      f'--mesh=fsdp:{devices // (mesh.get("tensor", 1) * mesh.get("context", 1))}'
      + ''.join(f',{axis}:{mesh[axis]}' for axis in ('tensor', 'context') if axis in mesh))
  if report.get('dtype') == 'float32':
    lines.append('dtype: --config.model.dtype=bfloat16 halves activations; parameters and optimizer stay float32')
  if report.get('remat') in ('none', 'dots'):
    lines.append('remat: --config.model.remat=full keeps only the inputs of blocks, for about a third more computation')
  if rows > 1:
    parts = min(report['batch_size'] // shards,
                report['microbatches'] * 2**math.ceil(math.log2(max(2.0, sizes['peak'] / limit))))
    lines.append(
      f'microbatches: --config.microbatches={parts} computes {report["batch_size"] // (shards * parts)} instead of '
      f'{rows} examples of a device at a time')
    lines.append(f'batch: --config.batch_size={report["batch_size"] // 2} halves the activations')
  elif state < 0.5 * limit:
    lines.append('mesh: every device already computes one example at a time; split it, e.g. '
                 f'--mesh=fsdp:{max(1, devices // 4)},tensor:4 (heads and hidden layers) or context:4 (long sequences)')
  if state > 0.5 * limit or spread > 0.25 * limit:
    chips = math.ceil(sum(report['bytes'].values()) / (0.5 * limit))
    state = _gib(sum(report['bytes'].values()))
    line = f"slice: the state alone is {state}; at half of a device's memory that is {chips} devices"
    lines.insert(0 if spread > limit else len(lines), line)  # first if smaller activations alone cannot help
  if not lines:
    lines.append('slice: take more devices, or a generation with more memory')
  return lines


def render(report: Report) -> str:
  """The report as text."""
  sizes, cost, mesh = report['bytes_per_device'], report['flops'], report['mesh']
  spread = ', '.join(f'{axis} {size}' for axis, size in mesh.items()) or 'one device'
  lines = [
    f'{report["topology"]}: {report["devices"]} x {report["kind"]} on {report["hosts"]} hosts, mesh {spread} '
    f'({report["compiler"]}, jax {report["jax"]}; compiled in {report["seconds"]["compiling"]:.0f} s)',
    f'batch {report["batch_size"]:,}, microbatches {report["microbatches"]}, {report["units_per_step"]:,} '
    f'{report["unit"]} a step; '
    + ', '.join(f'{name} {report[name]}' for name in ('dtype', 'remat') if name in report),
    f'parameters: {report["parameters"]:,}', '', 'bytes per device'
  ]
  labels = {
    'parameters': '', 'optimizer': '', 'averages': 'EMA', 'mutable': 'batch statistics, codebooks', 'frozen': '',
    'batch': '', 'temporaries': 'activations, gradients, buffers', 'program': 'code',
    'peak': 'all of it while the step runs', 'limit': 'of the device'
  }
  for name, label in labels.items():
    if sizes[name] is not None:
      lines.append(f'  {name:<14}{_gib(sizes[name]):>14}' + (f'   {label}' if label else ''))
    if name == 'frozen':
      lines += [f'    {part:<12}{_gib(size["per_device"]):>14}   of it, {_gib(size["bytes"])} over all devices'
                for part, size in report['parts'].items()]
  lines += [
    '', 'FLOPs of a step on which all phases are due',
    f'  {"model":<14}{cost["model"]:>14.4g}   all devices, nothing computed twice (without rematerialisation and '
    'kernels)',
    f'  {"step":<14}{cost["step"]:>14.4g}   all devices, the step that is compiled, with what it computes again'
  ]
  if cost['compiled_per_device'] is not None:
    lines.append(
      f'  {"compiled":<14}{cost["compiled_per_device"]:>14.4g}   one device, the compiler\'s count, in which the body '
      'of a loop counts once')
  if report['collectives'] is not None:
    lines += ['', 'collectives of a step, operations and bytes sent by a device (loops count as often as they run)']
    lines += [
      f'  {kind:<20}{traffic["count"]:>8,}{_gib(traffic["bytes"]):>14}'
      for kind, traffic in report['collectives'].items()
    ]
    lines += [] if report['collectives'] else ['  none']
    if report['loops_of_unknown_length']:
      lines.append(f'  {report["loops_of_unknown_length"]} loops tell no length; what is in them counts once')
  if report['roofline'] is not None:
    lines += ['', *_render_roofline(report)]
  lines += ['', _verdict(report), *(f'  - {line}' for line in report['advice'])]
  return '\n'.join(lines)


def _render_roofline(report: Report) -> list[str]:
  bound, given = report['roofline'], report['roofline']['hardware']
  return [
    f'roofline: a step takes {bound["overlapped"]:.3g} s if everything overlaps (MFU {bound["mfu_overlapped"]:.1%}, '
    f'bound by {bound["bound"]}), {bound["serial"]:.3g} s if nothing does (MFU {bound["mfu_serial"]:.1%})',
    f'  compute {bound["compute"]:.3g} s at {given["flops"] / 1e12:.0f} TFLOP/s bfloat16; memory {bound["memory"]:.3g} '
    f's: {_gib(report["memory_traffic"])} at {given["memory_bandwidth"] / 1e12:.3g} TB/s; links {bound["links"]:.3g} s '
    f'at {given["link_bandwidth"] / 1e9:.0f} GB/s each',
    '  assumed: peak rates from public specifications, no kernel inefficiency, arrays without padding, ring '
    'collectives along as few dimensions of the torus as hold a group',
  ]


def _verdict(report: Report) -> str:
  sizes = report['bytes_per_device']
  if report['fits'] is None:
    return 'nothing bounds the memory of these devices beforehand'
  if report['fits']:
    return f'fits: {_gib(sizes["peak"])} of {_gib(sizes["limit"])}'
  return (
    f'does not fit: needs {_gib(sizes["peak"])}, a device has {_gib(sizes["limit"])}: {_gib(report["shortfall"])} too '
    'much. What to change:')


def _gib(size: float) -> str:
  if size >= GIB / 10:
    return f'{size / GIB:.2f} GiB'
  return f'{size / 2**20:.2f} MiB' if size >= 2**20 / 10 else f'{size / 2**10:.2f} KiB'
