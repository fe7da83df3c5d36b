"""The meeting point of the processes of a run: a small server beside process 0 that knows who is there.

jaxlib ends a process by abort() when a peer or the coordination service is lost, and does not say who is missing when a
start times out. This server therefore runs in a process of its own, which outlives a crash of process 0, and hosts
jaxlib's coordination service too. It speaks lines of JSON over one TCP connection a process:

    to it      {'hello': id, 'of': number of processes, 'host': name, 'pid': number}, then any of
               {'beat': 1}  {'put': key, 'value': v}  {'get': key}  {'bye': exit code, 'why': text}
               {'gather': key, 'value': v, 'seconds': s}
    from it    {'go': 1}  {'key': key, 'value': v}  {'lost': text}  {'refused': text}

Until everyone said hello it listens on the coordinator's port; then jaxlib's service takes that port over, beside the
connections that stay open.
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

_LINGER = 10.0  # seconds that the last word is kept deliverable, and that a failing process is ahead of the others


class Peer:
  """One connected process."""

  def __init__(self, connection: socket.socket):
    self.connection, self.buffer, self.beat = connection, b'', time.monotonic()
    self.id: int | None = None
    self.place = ''
    self.left: tuple[int, str] | None = None  # exit code and why, once it said bye
    self.waits: set[str] = set()  # keys

  def send(self, **message: Any) -> None:
    """A line; a connection that broke is noticed where it is read."""
    with contextlib.suppress(OSError):
      self.connection.sendall(json.dumps(message).encode() + b'\n')

  def __str__(self) -> str:
    return f'process {self.id} ({self.place})'


class Coordinator:
  """The server. `serve` returns when every process is gone.

  Args:
    port: of the coordinator, on all interfaces.
    processes: how many are expected.
    start_timeout: seconds until everyone must have said hello.
    peer_timeout: seconds of silence after which a process counts as lost.
    service: called when everyone is there, before they are told so: starts what takes the port over.
  """

  def __init__(self, port: int, processes: int, start_timeout: float, peer_timeout: float, service: Any):
    self.processes, self.peer_timeout, self._service = processes, peer_timeout, service
    self._selector = selectors.DefaultSelector()
    self._listener: socket.socket | None = socket.create_server(('', port), backlog=4096, reuse_port=False)
    self._selector.register(self._listener, selectors.EVENT_READ)
    self._port, self._start_timeout = port, start_timeout
    self._deadline = time.monotonic() + start_timeout
    self._peers: dict[int, Peer] = {}
    self._strangers: list[Peer] = []  # connected, without a hello yet
    self._values: dict[str, Any] = {}
    self._gathers: dict[str, tuple[dict[int, Any], float]] = {}
    self._ending: float | None = None
    self._failing: tuple[float, str] | None = None

  def serve(self) -> None:
    """Runs until every process is gone, or for a moment after one was lost."""
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
                f'{total}; '
        'start all with one --num_processes')
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
    """A connection ended: after a bye with code 0 that is as it should be."""
    if peer.id is None:
      self._strangers.remove(peer)
      return
    del self._peers[peer.id]
    if peer.left is None:
      self._lost(f'{peer} is lost: it died, or its network did')
    elif peer.left[0] and self._failing is None:
      # The others usually meet the same error a moment later, and then say it themselves.
      why = f': {peer.left[1]}' if peer.left[1] else ''
      self._failing = (time.monotonic() + min(_LINGER, self.peer_timeout),
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
    """The run cannot go on: everyone who is there is told once, and the server ends soon."""
    if self._ending is None:
      self._tell(lost=text)
      self._ending = time.monotonic() + _LINGER

  def _tell(self, **message: Any) -> None:
    for peer in list(self._peers.values()):
      peer.send(**message)


def numbers(ids: list[int]) -> str:
  """'process 3', or 'processes 1, 2, 5', the first dozen."""
  shown = ', '.join(map(str, ids[:12])) + (f' and {len(ids) - 12} more' if len(ids) > 12 else '')
  return f'process{"es" if len(ids) > 1 else ""} {shown}'


def main(argument: str) -> None:
  """Serves; `argument` is JSON: port, processes, start_timeout, peer_timeout."""
  # Signals to a whole group are meant for the processes that train; this one ends after them.
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  options = json.loads(argument)
  from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]  # compiled

  running = []

  def service() -> None:
    # Its own heartbeats only back those of this server up, and must not be quicker.
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
  os._exit(0)  # jaxlib's service has no clients any more to wait for


if __name__ == '__main__':
  main(sys.argv[1])
