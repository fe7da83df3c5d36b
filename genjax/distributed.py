"""Runs of several processes, on one host or many: connecting, exchanging values, and ending when one is lost.

`join` reads from flags or the environment whether there are several processes, and connects them before anything
touches a backend. With one process, every function here does nothing. When a process is lost, the others end within
`peer_timeout` with an error that names it, see `genjax.coordinator`.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import jax

from genjax.cluster import Options, Place, find
from genjax.types import PeerError, UserError

EXIT_CODE = 7  # another process of the run is lost
BARRIER_SECONDS = 1800.0


class _Channel:
  """The connection to the coordinator, with one thread that listens and one that sends heartbeats."""

  def __init__(self, place: Place, options: Options):
    self.place, self._options = place, options
    self._values: dict[str, Any] = {}
    self._go = threading.Event()
    self._news = threading.Condition()
    self._write = threading.Lock()
    self._leaving = False
    self.counts: dict[str, int] = {}
    host, _, port = place.coordinator.rpartition(':')
    self._connection = self._connect(host.strip('[]'), int(port))
    self.send(hello=place.process, of=place.processes, host=socket.gethostname(), pid=os.getpid())
    for target in (self._listen, self._beat):
      threading.Thread(target=target, name=f'genjax {target.__name__}', daemon=True).start()
    if not self._go.wait(options.start_timeout + 30):
      raise PeerError(
        f'process 0 at {place.coordinator} did not give the start signal within {options.start_timeout:g} s')

  def _connect(self, host: str, port: int) -> socket.socket:
    deadline, refused = time.monotonic() + self._options.start_timeout, ''
    while time.monotonic() < deadline:
      try:
        connection = socket.create_connection((host, port), timeout=min(10.0, self._options.start_timeout))
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With keepalive the operating system notices a host that vanishes silently.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        quarter = max(1, int(self._options.peer_timeout / 4))
        for name, value in (('TCP_KEEPIDLE', quarter), ('TCP_KEEPINTVL', quarter), ('TCP_KEEPCNT', 3)):
          if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connection
      except OSError as error:
        refused = str(error)
        time.sleep(0.25)
    raise PeerError(
      f'process 0 of {self.place.processes} did not open {host}:{port} within {self._options.start_timeout:g} s '
      f'(--start_timeout): {refused}. Is process 0 running, and is this its address?')

  def send(self, **message: Any) -> None:
    with self._write, contextlib.suppress(OSError):  # the listening thread reports why the connection ended
      self._connection.sendall(json.dumps(message).encode() + b'\n')

  def _listen(self) -> None:
    with contextlib.suppress(OSError), self._connection.makefile('r', encoding='utf-8') as lines:
      for line in lines:
        message = json.loads(line)
        if 'lost' in message:
          self._end(message['lost'])
        if 'refused' in message:
          self._end(message['refused'], 2)
        with self._news:
          if 'go' in message:
            self._go.set()
          elif 'key' in message:
            self._values[message['key']] = message['value']
          self._news.notify_all()
    if not self._leaving:
      self._end(f'process 0 or its host {self.place.coordinator} is lost: the connection to it ended')

  def _beat(self) -> None:
    while not self._leaving:
      self.send(beat=1)
      time.sleep(self._options.peer_timeout / 5)

  def _end(self, text: str, code: int = EXIT_CODE) -> None:
    """Exits at once: the main thread may be waiting inside jaxlib, where an exception cannot reach it."""
    again = '' if code == 2 else '. The run goes on from its last checkpoint when all its processes are started again'
    os.write(2, f'genjax: error: {text}{again}\n'.encode())
    os._exit(code)

  def ask(self, key: str, **message: Any) -> Any:
    """Sends a message and waits for the value of `key`. If a needed process is lost, this process ends."""
    self.send(**message)
    with self._news:
      self._news.wait_for(lambda: key in self._values)
      return self._values.pop(key)

  def unique(self, name: str) -> str:
    """Appends a counter to the name. All processes use the names in the same order, so the counters agree."""
    self.counts[name] = self.counts.get(name, 0) + 1
    return f'{name} {self.counts[name]}'

  def close(self, code: int, why: str) -> None:
    self._leaving = True
    self.send(bye=code, why=why)
    with contextlib.suppress(OSError):
      self._connection.shutdown(socket.SHUT_RDWR)
    self._connection.close()


_channel: _Channel | None = None
_stops = False  # whether SIGTERM asks all processes to stop
_stop: Any = None  # the SIGTERM handler before jax replaced it


def join(options: Options, stops: bool = False) -> bool:
  """Connects this process with the other processes of its run. Returns False if it runs alone.

  Call it before anything touches a backend (`jax.devices`, any computation).

  Args:
    options: how to find the others.
    stops: whether this process calls `stop_together` after each step. SIGTERM and Ctrl-C then only request a stop of
      all processes.

  Raises:
    UserError: see `find`; or a timeout is not positive.
    PeerError: process 0 cannot be reached.
  """
  global _channel, _stop, _stops
  if options.start_timeout <= 0 or options.peer_timeout <= 0:
    raise UserError(
      f'--start_timeout and --peer_timeout are seconds above 0, got {options.start_timeout:g} and '
      f'{options.peer_timeout:g}')
  place = find(options)
  if place is None:
    return False
  if _channel is not None:
    raise UserError('this process has joined a run already')
  if place.process == 0:
    _start_coordinator(place, options)
  _channel = _Channel(place, options)
  if not os.environ.get('JAX_CPU_COLLECTIVES_IMPLEMENTATION'):
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  _keep_standard_output()
  _stops = stops
  if stops:
    _stop = signal.getsignal(signal.SIGTERM)
  # If on, jax catches SIGTERM for `stop_together`. A process that never calls that would lose the signal.
  jax.config.update('jax_enable_preemption_service', stops)
  patience = int(2 * options.peer_timeout) + 10
  jax.distributed.initialize(
    place.coordinator, place.processes, place.process, list(place.devices) if place.devices else None,
    cluster_detection_method='deactivate', initialization_timeout=int(options.start_timeout) + 1,
    heartbeat_timeout_seconds=patience, shutdown_timeout_seconds=patience,
    # jax always starts a service in process 0. All processes use the one in `genjax.coordinator`, which survives a
    # crash of process 0; this one stays idle on a port that nobody uses.
    coordinator_bind_address=f'127.0.0.1:{_free_port()}')
  if stops:
    interrupt = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
      signal.signal(signal.SIGINT, interrupt)  # a second Ctrl-C interrupts this process at once
      os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, ask)
  return True


def _keep_standard_output() -> None:
  """Sends native output, such as Gloo's connection messages, to stderr; only Python writes to stdout."""
  sys.stdout.flush()
  results = os.dup(1)
  os.dup2(2, 1)
  sys.stdout = os.fdopen(results, 'w', buffering=1, encoding=sys.stdout.encoding, errors='backslashreplace')


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def _start_coordinator(place: Place, options: Options) -> None:
  """Starts the server beside this process and waits until it listens."""
  argument = json.dumps({'port': int(place.coordinator.rpartition(':')[2]), 'processes': place.processes,
                         'start_timeout': options.start_timeout, 'peer_timeout': options.peer_timeout})
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH', '')]))
  server = subprocess.Popen([sys.executable, '-m', 'genjax.coordinator', argument], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': path},
                            start_new_session=True)
  assert server.stdout is not None
  said = server.stdout.readline().strip()
  server.stdout.close()
  if said != 'listening':
    server.kill()
    server.wait()
    raise UserError(
      f'process 0 cannot open the meeting point of the processes: {said or "the server ended"}; choose another port in '
      f'--coordinator={place.coordinator}')


def leave(code: int, why: str = '') -> int:
  """Disconnects and returns the exit code. With several processes and a code other than 0 it exits instead.

  With code 0 it waits for the others first, so that they do not mistake the end of the run for a loss.
  """
  global _channel
  if _channel is None:
    return code
  if code == 0:
    barrier('end of the run')
    jax.distributed.shutdown()
  elif code == 1:
    # A jaxlib error usually follows the loss of a process; wait for the coordinator to report which one.
    time.sleep(1.5)
  _channel.close(code, why)
  _channel = None
  sys.stdout.flush()
  sys.stderr.flush()
  if code:
    os._exit(code)  # a normal exit of jaxlib would wait for the others, or abort
  return code


def joined() -> bool:
  """Returns whether this process is one of several."""
  return _channel is not None


def number() -> int:
  """Returns the number of this process, from 0."""
  return 0 if _channel is None else _channel.place.process


def is_first() -> bool:
  """Returns whether this is process 0, the only one that prints and writes files other than checkpoints."""
  return number() == 0


def barrier(name: str, seconds: float = BARRIER_SECONDS) -> None:
  """Waits for all processes. After `seconds`, all end with an error that names the missing ones."""
  if _channel is not None:
    key = _channel.unique(name)
    _channel.ask(key, gather=key, value=None, seconds=seconds)


def broadcast(value: Any, name: str) -> Any:
  """Returns process 0's JSON-able value in every process. `name` must be the same in all processes."""
  if _channel is None:
    return value
  key = _channel.unique(f'broadcast {name}')
  if _channel.place.process == 0:
    _channel.send(put=key, value=value)
    return value
  return _channel.ask(key, get=key)


def gather(value: Any, name: str) -> list[Any]:
  """Returns the list of every process's JSON-able value, ordered by process, in every process."""
  if _channel is None:
    return [value]
  key = _channel.unique(name)
  return _channel.ask(key, gather=key, value=value, seconds=BARRIER_SECONDS)


def check_equal(value: Any, name: str) -> None:
  """Checks that a JSON-able value is the same in all processes.

  Raises:
    UserError: the values differ. Every process raises it; the message names those that differ from process 0.
  """
  wanted = broadcast(value, name)
  complaints = gather('' if wanted == json.loads(json.dumps(value)) else f'{value!r}', name)
  differ = [process for process, complaint in enumerate(complaints) if complaint and process]
  if differ:
    raise UserError(
      f'the processes of a run must agree on {name}; process 0 has {wanted!r}, and process {differ[0]} has '
      f'{complaints[differ[0]]}' + (f' ({len(differ) - 1} more differ)' if len(differ) > 1 else ''))


@contextlib.contextmanager
def first_then_others(name: str) -> Iterator[None]:
  """Process 0 runs the body first; the others then run it and find its results, e.g. prepared data.

  Raises:
    UserError: in the other processes, if the body failed in process 0.
  """
  if _channel is None:
    yield
    return
  key = _channel.unique(f'first {name}')
  if _channel.place.process:
    failure = _channel.ask(key, get=key)
    if failure:
      raise UserError(f'process 0: {failure}')
    yield
    return
  try:
    yield
  except BaseException as error:
    _channel.send(put=key, value=f'{name}: {error}' if str(error) else f'{name} failed with {type(error).__name__}')
    raise
  _channel.send(put=key, value='')


def compiled_together(function: Any, name: str) -> Any:
  """Wraps a jitted function so that it first runs with new shapes after all processes have compiled it.

  Gloo connects the processes when a program first runs, and fails if one is 30 s late; compile times may differ by
  more. The shapes of the first two arguments (parameters and state) are assumed not to change.
  """
  if _channel is None:
    return function
  seen = set()

  def call(*args: Any) -> Any:
    key = tuple((leaf.shape, leaf.dtype) if hasattr(leaf, 'shape') else leaf for leaf in jax.tree.leaves(args[2:]))
    if key not in seen:
      function.lower(*args).compile()  # the call below reuses this program
      barrier(f'{name} is compiled')
      seen.add(key)
    return function(*args)

  return call


def stop_together(step: int) -> None:
  """Stops all processes after the same step once SIGTERM has reached one. Call it after each step.

  jax catches SIGTERM in a process that joined with `stops`, and the processes agree on a step that none has passed yet.
  After that step each process calls the Python handler of SIGTERM that it had before `join`.

  Raises:
    KeyboardInterrupt: there is no such handler.
  """
  if _channel is None or not _stops:
    return
  from jax.experimental import multihost_utils
  if multihost_utils.reached_preemption_sync_point(step):
    if not callable(_stop):
      raise KeyboardInterrupt
    _stop(signal.SIGTERM, None)
