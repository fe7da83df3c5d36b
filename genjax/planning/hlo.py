"""Collectives and memory traffic of a compiled program, from the text of its optimized HLO.

XLA prints the program of one device. The body of a `while` loop over layers or microbatches is printed once, but
counted here as often as it runs, if the text tells the number.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
import re

COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute', 'collective-broadcast')
# Other types have their number of bits in their name: f32, s8, u4, c64, f8e4m3fn
_BITS = {'pred': 8, 'bf16': 16, 'token': 0, 'opaque': 0}
_SHAPE = re.compile(r'\b(pred|token|opaque|bf16|[fsuc]\d+[a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?')
_NO_TRAFFIC = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id',
               'replica-id', 'iota', 'while', 'conditional', 'call', 'opt-barrier', 'add-dependency')
_SLICES = ('dynamic-slice', 'slice', 'gather')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation. shape: text of its type. operands: their names. attributes: the rest of the line."""

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  arguments: str
  attributes: str
  root: bool


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Traffic:
  """The traffic of one kind of collective in a step, on one device.

  Attributes:
    count: number of executed operations.
    bytes: bytes that the device sends by the ring algorithm. The body of a loop counts as often as it runs.
    groups: (devices in a group, bytes sent) of each operation in the text.
  """

  count: int = 0
  bytes: float = 0.0
  groups: list[tuple[int, float]] = dataclasses.field(default_factory=list)


class Program:
  """A parsed program.

  Attributes:
    computations: name -> instructions in order.
    entry: the name of the computation that runs.
    devices: over which the program is partitioned.
    loops: name of a `while` -> how often its body runs, None if the text does not tell.
  """

  def __init__(self, text: str):
    self.computations: dict[str, Computation] = {}
    self.entry = ''
    header = text[:text.find('\n')]
    self.devices = math.prod(int(match[1]) for match in re.finditer(r'(?:num_partitions|replica_count)=(\d+)', header))
    for name, is_entry, instructions in _computations(text):
      self.computations[name] = instructions
      self.entry = name if is_entry else self.entry
    if not self.entry:
      raise ValueError(f'expected the text of an HLO module with an ENTRY computation, got {text[:80]!r} ...')
    self.loops: dict[str, int | None] = {
      instruction.name: self._trips(instruction) for computation in self.computations.values()
      for instruction in computation.values() if instruction.opcode == 'while'}

  def collectives(self) -> dict[str, Traffic]:
    """Kind of collective -> its traffic in one run of the program, for the kinds that occur."""
    found: dict[str, Traffic] = {}
    started: set[str] = set()
    for computation, instruction, times in self._walk(self.entry, 1):
      kind = self._kind(instruction)
      if kind is None:
        continue
      collective, where = self._inner(instruction, computation)
      channel = re.search(r'channel_id=\d+', collective.attributes)
      if channel and _is_started(instruction):
        started.add(channel[0])
      elif channel and channel[0] in started and _continues(instruction):
        continue
      operands = sum(size_of(where[name].shape) for name in collective.operands if name in where)
      size = self._group_size(collective)
      sent = _sent(kind, operands, size)
      traffic = found.setdefault(kind, Traffic())
      traffic.count += times
      traffic.bytes += times * sent
      traffic.groups.append((size, times * sent))
    return found

  def memory_bytes(self) -> float:
    """Bytes that one run of the program reads from and writes to the main memory of the device.

    Intermediate values inside a fusion don't count, nor do arrays in the on-chip memory of a TPU (memory space 1). If
    an array is only sliced or updated in place, only the slice counts.
    """
    return sum(times * self._bytes(computation, instruction)
               for computation, instruction, times in self._walk(self.entry, 1)
               if instruction.opcode not in _NO_TRAFFIC and not instruction.opcode.endswith(('-done', '-update'))
               and not instruction.name.startswith('async-collective-done'))

  def _walk(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yields every top-level instruction, with its computation and how often it runs."""
    computation = self.computations[name]
    for instruction in computation.values():
      yield computation, instruction, times
      if instruction.opcode == 'while':
        yield from self._walk(_called(instruction, 'body'), times * (self.loops[instruction.name] or 1))
      elif instruction.opcode == 'conditional':
        branches = re.search(r'branch_computations=\{([^}]*)\}', instruction.attributes)
        names = re.findall(r'[\w.\-]+', branches[1]) if branches else []
        for branch in names or [_called(instruction, f'{truth}_computation') for truth in ('true', 'false')]:
          yield from self._walk(branch, times)
      elif instruction.opcode == 'call':
        yield from self._walk(_called(instruction, 'to_apply'), times)

  def _trips(self, loop: Instruction) -> int | None:
    """How often a loop runs: XLA's annotation, or the bound in the comparison of its counter, which starts at 0."""
    noted = re.search(r'known_trip_count"?[:=]\s*\{"?n"?:\s*"?(\d+)', loop.attributes)
    if noted:
      return int(noted[1])
    condition = self.computations[_called(loop, 'condition')]
    root = next(instruction for instruction in condition.values() if instruction.root)
    if root.opcode == 'fusion':
      # The comparison is in a fusion; its bound is an operand or a constant of the fused computation.
      inner = self.computations[_called(root, 'calls')]
      comparison = next((instruction for instruction in inner.values() if instruction.opcode == 'compare'), None)
      bounds = [
        instruction for instruction in (*inner.values(), *condition.values()) if instruction.opcode == 'constant'
      ]
    else:
      comparison = root if root.opcode == 'compare' else None
      bounds = [condition[name] for name in root.operands if name in condition and condition[name].opcode == 'constant']
    values = {int(bound.arguments) for bound in bounds if re.fullmatch(r'\d+', bound.arguments)}
    if comparison is None or 'direction=LT' not in comparison.attributes or len(values) != 1:
      return None
    return values.pop()

  def _kind(self, instruction: Instruction) -> str | None:
    """The kind of a collective, else None. Asynchronous collectives count at their start, not at their end."""
    inner, _ = self._inner(instruction, {})
    opcode = inner.opcode.removesuffix('-start')
    if instruction.opcode == 'fusion' and opcode == 'all-reduce':
      fused = self.computations[_called(instruction, 'calls')]
      # TPU programs express a reduce-scatter as an all-reduce of which each device keeps, and sends, a part.
      return 'reduce-scatter' if any(other.opcode == 'dynamic-slice' for other in fused.values()) else opcode
    return opcode if opcode in COLLECTIVES else None

  def _inner(self, instruction: Instruction, computation: Computation) -> tuple[Instruction, Computation]:
    """The collective inside a fusion or an asynchronous call, else the instruction; and its computation."""
    if instruction.opcode in ('fusion', 'async-start') and 'calls=' in instruction.attributes:
      called = self.computations[_called(instruction, 'calls')]
      for inner in called.values():
        if inner.opcode.removesuffix('-start') in COLLECTIVES:
          return inner, called
    return instruction, computation

  def _group_size(self, collective: Instruction) -> int:
    """Number of devices in a group."""
    text = collective.attributes
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)?\s*\{([^}]*)\}", text)
    if named:  # mesh['a'=8,'b'=16] {'b'}
      sizes = {axis: int(size) for axis, size in re.findall(r"'([^']*)'=(\d+)", named[1])}
      return math.prod(sizes.get(axis, int(part or 1)) if not part else int(part)
                       for axis, part in re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", named[2]))
    iota = re.search(r'replica_groups=\[(\d+),(\d+)\]<=', text)
    if iota:
      return int(iota[2])
    listed = re.search(r'replica_groups=\{\{([\d,]*)\}', text)
    if listed:
      return len(listed[1].split(','))
    return 2 if 'source_target_pairs' in text else self.devices

  def _bytes(self, computation: Computation, instruction: Instruction) -> float:
    operands = [computation[name] for name in instruction.operands if name in computation]
    opcode = instruction.opcode
    if opcode == 'slice-start':  # the type consists of operand, slice and semaphore
      whole = instruction.shape, operands[0].shape
      return size_of(whole[0]) - size_of(whole[1]) + memory_size(whole[0]) - memory_size(whole[1])
    if opcode in _SLICES:
      return 2 * memory_size(instruction.shape)
    if opcode == 'dynamic-update-slice':
      return 2 * memory_size(operands[1].shape)
    if opcode == 'scatter':
      return 2 * sum(memory_size(operand.shape) for operand in operands[2:])
    if opcode.endswith('-start'):  # the type consists of operands and results
      return memory_size(instruction.shape)
    if opcode != 'fusion':
      return memory_size(instruction.shape) + sum(memory_size(operand.shape) for operand in operands)
    fused = self.computations[_called(instruction, 'calls')]
    return _written(instruction, fused) + sum(_read(operand, number, fused) for number, operand in enumerate(operands))


def _is_started(instruction: Instruction) -> bool:
  """Whether a fusion starts a collective that libtpu splits: a start, overlapping products, and an end."""
  return instruction.opcode == 'fusion' and instruction.name.startswith('async-collective-start')


def _continues(instruction: Instruction) -> bool:
  """Whether a fusion may continue a collective that another one started; both have the same channel."""
  return instruction.opcode == 'fusion' and (
    instruction.name.startswith('async-collective-done') or 'calls=%async_collective_fusion' in instruction.attributes)


@functools.lru_cache(maxsize=65536)
def size_of(shape: str, counts: Callable[[str], bool] = lambda layout: True) -> float:
  """Bytes of a type such as 'bf16[4,128]{1,0}' or of a tuple of types, without padding to tiles."""
  total = 0.0
  for kind, dimensions, layout in _SHAPE.findall(shape):
    if counts(layout):
      bits = _BITS[kind] if kind in _BITS else int(re.findall(r'\d+', kind)[0])
      total += bits / 8 * math.prod(int(size.strip('<=')) for size in dimensions.split(',') if size)
  return total


def memory_size(shape: str) -> float:
  """Bytes of a type that are in main memory."""
  return size_of(shape, _in_main_memory)


def _in_main_memory(layout: str) -> bool:
  return not re.search(r'S\([1-9]', layout)


def _sent(kind: str, operands: float, size: int) -> float:
  """Bytes that a device sends over links by the ring algorithms, for operands of given bytes per device."""
  share = (size - 1) / size
  return {
    'all-gather': operands * (size - 1), 'reduce-scatter': operands * share, 'all-reduce': 2 * operands * share,
    'all-to-all': operands * share, 'collective-permute': operands, 'collective-broadcast': operands * share
  }[kind]


def _read(operand: Instruction, number: int, fused: Computation) -> float:
  """Bytes that a fusion reads from an operand."""
  parameter = next(
    (inner for inner in fused.values() if inner.opcode == 'parameter' and inner.arguments == str(number)), None)
  whole = memory_size(operand.shape)
  if parameter is None or not whole:
    return whole
  names, users = {parameter.name}, []
  for inner in fused.values():  # a bitcast of the parameter counts as the parameter
    if names & set(inner.operands):
      if inner.opcode == 'bitcast':
        names.add(inner.name)
      else:
        users.append(inner)
  sizes = [_part(user, names, fused) for user in users]
  return whole if None in sizes else min(whole, sum(size for size in sizes if size is not None))


def _part(user: Instruction, names: set[str], fused: Computation) -> float | None:
  """Bytes that an instruction reads from an array that it slices or updates; None if it reads all."""
  if user.opcode in _SLICES and user.operands[0] in names:
    return size_of(user.shape)
  if user.opcode == 'dynamic-update-slice' and user.operands[0] in names:
    return 0.0
  return None


def _written(fusion: Instruction, fused: Computation) -> float:
  """Bytes that a fusion writes."""
  root = next(inner for inner in fused.values() if inner.root)
  parts = [fused[name] for name in root.operands] if root.opcode == 'tuple' else [root]
  if not any(_updated(part, fused) for part in parts):
    return memory_size(fusion.shape)
  total = 0.0
  for part in parts:
    update = _updated(part, fused)
    total += size_of(fused[update.operands[1]].shape if update else part.shape)
  return total


def _updated(part: Instruction, fused: Computation) -> Instruction | None:
  """The in-place update that produces a result of a fusion (through bitcasts), or None."""
  while part.opcode == 'bitcast':
    part = fused[part.operands[0]]
  return part if part.opcode == 'dynamic-update-slice' else None


def _called(instruction: Instruction, attribute: str) -> str:
  match = re.search(rf'\b{attribute}=%?([\w.\-]+)', instruction.attributes)
  if match is None:
    raise ValueError(f'{instruction.opcode} {instruction.name} names no {attribute}')
  return match[1]


def _computations(text: str) -> Iterator[tuple[str, bool, Computation]]:
  """(name, is the entry, instructions) of each computation."""
  name, is_entry, instructions = '', False, {}
  for line in text.splitlines():
    header = re.match(r'(ENTRY )?%?([\w.\-]+) \(.*\{$', line)
    if header:
      name, is_entry, instructions = header[2], bool(header[1]), {}
    elif line.rstrip() == '}' and name:  # attributes of a kernel may contain lines with braces
      yield name, is_entry, instructions
      name = ''
    elif name and line.startswith('  ') and ' = ' in line:
      instruction = _instruction(line)
      instructions[instruction.name] = instruction


def _instruction(line: str) -> Instruction:
  """Parses 'ROOT %name = type opcode(operands), attributes'."""
  left, _, right = line.strip().partition(' = ')
  end = _closing(right) + 1 if right.startswith('(') else right.index(' ')
  shape, rest = right[:end], right[end:].lstrip()
  begin = rest.index('(')
  close = begin + _closing(rest[begin:])
  arguments = rest[begin + 1:close]
  operands = tuple(re.findall(r'%([\w.\-]+)', arguments)) if '%' in arguments else tuple(
    part.split()[-1]
    for part in re.sub(r'/\*.*?\*/', '', arguments).split(', ')
    if part and rest[:begin] not in ('constant', 'parameter'))
  return Instruction(left.removeprefix('ROOT ').lstrip('%'), shape, rest[:begin], operands, arguments, rest[close + 1:],
                     left.startswith('ROOT '))


def _closing(text: str) -> int:
  """Position of the parenthesis that closes the first one."""
  depth = 0
  for position, character in enumerate(text):
    depth += (character == '(') - (character == ')')
    if not depth:
      return position
  raise ValueError(f'unbalanced parentheses in {text[:200]!r}')
