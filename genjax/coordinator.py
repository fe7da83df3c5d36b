"""A small server beside process 0 that tracks which processes of a run are alive.

jaxlib aborts a process when a peer or the coordination service is lost, and does not name the missing process when the
start times out. This server therefore runs in its own process, which survives a crash of process 0, and also hosts
jaxlib's coordination service. It exchanges lines of JSON over one TCP connection per process:

    to it      {'hello': id, 'of': number of processes, 'host': name, 'pid': number}, then any of
               {'beat': 1}  {'put': key, 'value': v}  {'get': key}  {'bye': exit code, 'why': text}
               {'gather': key, 'value': v, 'seconds': s}
    from it    {'go': 1}  {'key': key, 'value': v}  {'lost': text}  {'refused': text}

The server listens on the coordinator's port until every process has said hello. Then jaxlib's service listens on that
port; the open connections stay.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

_LINGER_SECONDS = 10.0  # seconds that the server stays up after a loss, to deliver messages and collect errors


class Peer:
  """One connected process."""

  def __init__(self, connection: socket.socket):
    self.connection, self.buffer, self.beat = connection, b'', time.monotonic()
    self.id: int | None = None
    self.place = ''
    self.left: tuple[int, str] | None = None  # exit code and reason, once it said bye
    self.waits: set[str] = set()  # keys

  def send(self, **message: Any) -> None:
    """Sends one line. Ignores a broken connection: the reader notices it."""
    with contextlib.suppress(OSError):
      self.connection.sendall(json.dumps(message).encode() + b'\n')

  def __str__(self) -> str:
    return f'process {self.id} ({self.place})'


class Coordinator:
  """The server. `serve` returns when every process is gone.

  Args:
    port: port of the coordinator, on all interfaces.
    processes: expected number of processes.
    start_timeout: seconds until everyone must have said hello.
    peer_timeout: seconds of silence after which a process counts as lost.
    service: called when all processes have said hello, before they get 'go'; starts jaxlib's service on the port.
  """

  def __init__(self, port: int, processes: int, start_timeout: float, peer_timeout: float, service: Any):
    self.processes, self.peer_timeout, self._service = processes, peer_timeout, service
    self._selector = selectors.DefaultSelector()
    self._listener: socket.socket | None = socket.create_server(('', port), backlog=4096, reuse_port=False)
    self._selector.register(self._listener, selectors.EVENT_READ)
    self._port, self._start_timeout = port, start_timeout
    self._deadline = time.monotonic() + start_timeout
    self._peers: dict[int, Peer] = {}
    self._strangers: list[Peer] = []  # connected, but no hello yet
    self._values: dict[str, Any] = {}
    self._gathers: dict[str, tuple[dict[int, Any], float]] = {}
    self._ending: float | None = None
    self._failing: tuple[float, str] | None = None

  def serve(self) -> None:
    """Runs until every process has left, or briefly after one was lost."""
    while self._listener or self._peers or self._strangers:
      if self._ending is not None and (not self._peers or time.monotonic() > self._ending):
        break
      for key, _ in self._selector.select(timeout=min(0.2, self.peer_timeout / 10)):
        if self._listener is not None and key.fileobj is self._listener:
          connection, _ = self._listener.accept()
          peer = Peer(connection)
          self._strangers.append(peer)
          self._selector.register(connection, selectors.EVENT_READ, peer)
        else:
          self._read(key.data)
      self._watch_clock()
    for key in list(self._selector.get_map().values()):
      key.fileobj.close()  # type: ignore[union-attr]  # sockets only
    self._selector.close()

  def _read(self, peer: Peer) -> None:
    try:
      data = peer.connection.recv(1 << 16)
    except OSError:
      data = b''
    if not data:
      self._selector.unregister(peer.connection)
      peer.connection.close()
      self._gone(peer)
      return
    peer.beat = time.monotonic()
    *lines, peer.buffer = (peer.buffer + data).split(b'\n')
    for line in lines:
      try:
        message = json.loads(line)
      except ValueError:
        peer.send(refused='this port is where the processes of a genjax run meet; it takes lines of JSON')
        continue
      if isinstance(message, dict):
        self._handle(peer, message)

  def _handle(self, peer: Peer, message: dict[str, Any]) -> None:
    if 'hello' in message:
      self._hello(peer, message)
    elif peer.id is None:
      peer.send(refused='say hello first')
    elif 'put' in message:
      self._values[message['put']] = message['value']
      for other in self._peers.values():
        if message['put'] in other.waits:
          other.waits.discard(message['put'])
          other.send(key=message['put'], value=message['value'])
    elif 'get' in message:
      key = message['get']
      if key in self._values:
        peer.send(key=key, value=self._values[key])
      else:
        peer.waits.add(key)
    elif 'gather' in message:
      key = message['gather']
      given, _ = self._gathers.setdefault(key, ({}, time.monotonic() + message['seconds']))
      given[peer.id] = message['value']
      if len(given) == self.processes:
        del self._gathers[key]
        self._tell(key=key, value=[given[number] for number in range(self.processes)])
    elif 'bye' in message:
      peer.left = (message['bye'], message['why'])

  def _hello(self, peer: Peer, message: dict[str, Any]) -> None:
    number, total = message['hello'], message['of']
    peer.place = f'host {message["host"]}, pid {message["pid"]}'
    if total != self.processes or not 0 <= number < self.processes:
      peer.send(
        refused=f'process 0 expects {self.processes} processes, and this one says that it is process {number} of '
                f'{total}; start all with one --num_processes')
    elif number in self._peers:
      peer.send(refused=f'there are two processes {number}: {self._peers[number].place} and {peer.place}; '
                        'give each its own --process_id')
    else:
      self._strangers.remove(peer)
      peer.id = number
      self._peers[number] = peer
    if len(self._peers) == self.processes and self._listener is not None:
      self._selector.unregister(self._listener)
      self._listener.close()
      self._listener = None
      self._service()
      self._tell(go=1)

  def _gone(self, peer: Peer) -> None:
    """Handles a closed connection, which is normal after a bye with code 0."""
    if peer.id is None:
      self._strangers.remove(peer)
      return
    del self._peers[peer.id]
    if peer.left is None:
      self._lost(f'{peer} is lost: it died, or its network did')
    elif peer.left[0] and self._failing is None:
      # The other processes usually hit the same error a moment later and report it themselves.
      why = f': {peer.left[1]}' if peer.left[1] else ''
      self._failing = (time.monotonic() + min(_LINGER_SECONDS, self.peer_timeout),
                       f'{peer} ended with exit code {peer.left[0]}{why}')

  def _watch_clock(self) -> None:
    now = time.monotonic()
    if self._listener is not None and now > self._deadline and self._ending is None:
      missing = [number for number in range(self.processes) if number not in self._peers]
      self._lost(f'{numbers(missing)} of {self.processes} did not come to port {self._port} of process 0 within '
                 f'{self._start_timeout:g} s (--start_timeout)')
    if self._failing and now > self._failing[0]:
      self._lost(self._failing[1])
    silent = [peer for peer in self._peers.values() if now - peer.beat > self.peer_timeout]
    if silent:
      self._lost(f'{" and ".join(map(str, silent))}: no sign of life for {self.peer_timeout:g} s (--peer_timeout)')
    for key, (given, deadline) in self._gathers.items():
      if now > deadline:
        missing = [
          str(self._peers.get(number, f'process {number}')) for number in range(self.processes) if number not in given
        ]
        self._lost(f'{" and ".join(missing)} did not come in time to where the others wait: {key}')

  def _lost(self, text: str) -> None:
    """Tells every connected process once that the run cannot continue, and ends the server soon."""
    if self._ending is None:
      self._tell(lost=text)
      self._ending = time.monotonic() + _LINGER_SECONDS

  def _tell(self, **message: Any) -> None:
    for peer in list(self._peers.values()):
      peer.send(**message)


def numbers(ids: list[int]) -> str:
  """Returns 'process 3' or 'processes 1, 2, 5', with at most a dozen numbers."""
  shown = ', '.join(map(str, ids[:12])) + (f' and {len(ids) - 12} more' if len(ids) > 12 else '')
  return f'process{"es" if len(ids) > 1 else ""} {shown}'


def main(argument: str) -> None:
  """Runs the server. `argument` is JSON with port, processes, start_timeout and peer_timeout."""
  # A signal to the process group is for the training processes; this one ends after them.
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  options = json.loads(argument)
  from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]  # compiled

  running = []

  def service() -> None:
    # jaxlib's heartbeats are only a fallback for this server's, so they must time out later.
    patience = int(2 * options['peer_timeout']) + 10
    running.append(
      _jax.get_distributed_runtime_service(f'[::]:{options["port"]}', options['processes'], heartbeat_timeout=patience,
                                           shutdown_timeout=patience))

  try:
    coordinator = Coordinator(options['port'], options['processes'], options['start_timeout'], options['peer_timeout'],
                              service)
  except OSError as error:
    print(f'port {options["port"]} cannot be opened: {error.strerror}', flush=True)
    sys.exit(1)
  print('listening', flush=True)
  coordinator.serve()
  sys.stdout.flush()
  os._exit(0)  # skips jaxlib's shutdown, which would wait for clients that are gone


if __name__ == '__main__':
  main(sys.argv[1])
