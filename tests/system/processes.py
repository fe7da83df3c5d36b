"""Starts the processes of a run on this machine, with fake devices."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start(argv, processes, devices, only=None, port=None, start_timeout=120, peer_timeout=30, **environment):
  """Starts `python argv` once a process, with the flags by which the processes find each other; returns the processes.

  only: start these of the processes. port: of the coordinator.
  """
  port = port or free_port()
  path = os.pathsep.join([str(pathlib.Path(__file__).parent), str(ROOT), os.environ.get('PYTHONPATH', '')])
  env = {
    **os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={devices}', **environment
  }
  common = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={processes}', f'--start_timeout={start_timeout}',
            f'--peer_timeout={peer_timeout}']
  numbers = range(processes) if only is None else only
  joining = [[*common, f'--process_id={number}'] if processes > 1 else [] for number in numbers]
  return [
    subprocess.Popen([sys.executable, *argv, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                     env=env) for flags in joining
  ]


def finish(started, timeout=600):
  """Waits; returns (exit code, standard output, standard error) of each process. Nothing is left running."""
  try:
    said = [process.communicate(timeout=timeout) for process in started]
  finally:
    for process in started:
      process.kill()
  return [(process.returncode, *texts) for process, texts in zip(started, said)]


def genjax(*argv, processes=1, devices=8, **environment):
  """Runs a command of genjax in several processes, all of which must succeed; returns their standard outputs."""
  ended = finish(start(['-m', 'genjax.cli.main', *argv], processes, devices, **environment))
  for code, _, error in ended:
    assert code == 0, f'exit code {code}\n{error}'
  return [output for _, output, _ in ended]
