"""How a process finds the others of its run, and what the coordinator says about them."""

import json
import socket
import threading

import pytest

from genjax import coordinator, distributed
from genjax.cluster import Options, Place, find
from genjax.types import UserError

SLURM = {'SLURM_JOB_ID': '70000', 'SLURM_STEP_NODELIST': 'node[003-004]', 'SLURM_NTASKS': '2', 'SLURM_PROCID': '1',
         'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_NODES': '2', 'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}


@pytest.fixture
def environment(monkeypatch):
  """Sets variables, after those of the cluster that the tests may run on are gone."""
  for name in (*SLURM, 'SLURM_TASKS_PER_NODE', 'JOB_COMPLETION_INDEX', 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES',
               'JAX_PROCESS_ID', 'KUBERNETES_SERVICE_HOST', 'TPU_WORKER_HOSTNAMES', 'TPU_PROCESS_ADDRESSES',
               'OMPI_MCA_orte_hnp_uri'):
    monkeypatch.delenv(name, raising=False)

  def put(**values):
    for name, value in values.items():
      monkeypatch.setenv(name, value)

  return put


def test_alone(environment):
  assert find(Options()) is None
  assert distributed.join(Options()) is False and not distributed.joined() and distributed.is_first()
  environment(**SLURM)
  assert find(Options(num_processes=1)) is None


def test_flags(environment):
  assert find(Options('10.0.0.1:1234', 4, 2)) == Place('10.0.0.1:1234', 4, 2)
  assert find(Options('node', 4, 0)) == Place('node:8476', 4, 0)
  assert find(Options('[fe80::1]:99', 2, 1)).coordinator == '[fe80::1]:99'
  for options in (Options('', 4, 0), Options('a:1', 4, None), Options('a:1', None, 0), Options('a:1')):
    with pytest.raises(UserError, match='missing: --'):
      find(options)
  with pytest.raises(UserError, match='got 4 of 4'):
    find(Options('a:1', 4, 4))


def test_variables_of_an_indexed_job(environment):
  environment(JAX_COORDINATOR_ADDRESS='run-0-0.run:8476', JAX_NUM_PROCESSES='4', JOB_COMPLETION_INDEX='3')
  assert find(Options()) == Place('run-0-0.run:8476', 4, 3)
  environment(JAX_PROCESS_ID='1')
  assert find(Options()).process == 1
  environment(JAX_PROCESS_ID='one')
  with pytest.raises(UserError, match="JAX_PROCESS_ID must be a whole number, got 'one'"):
    find(Options())


def test_an_indexed_job_that_names_no_coordinator_is_alone(environment):
  environment(KUBERNETES_SERVICE_HOST='10.0.0.1')
  assert find(Options()) is None


def test_slurm(environment):
  environment(**SLURM)
  place = find(Options())
  assert place == Place(place.coordinator, 2, 1) and place.coordinator.startswith('node003:')
  environment(SLURM_STEP_TASKS_PER_NODE='2', SLURM_LOCALID='1')
  assert find(Options()).devices == (1,), 'two tasks on a node share its GPUs'
  assert find(Options(coordinator='other:5')).coordinator == 'other:5'
  environment(SLURM_NTASKS='1', SLURM_PROCID='0')
  assert find(Options()) is None


def test_tpu_pod(environment, monkeypatch):
  from jax._src.clusters import cloud_tpu_cluster
  monkeypatch.setattr(cloud_tpu_cluster, 'running_in_cloud_tpu_vm', True)
  monkeypatch.setattr(cloud_tpu_cluster, 'get_tpu_env_value_from_metadata', lambda key: None)
  environment(TPU_SKIP_MDS_QUERY='1', TPU_WORKER_HOSTNAMES='localhost,127.0.0.1', TPU_WORKER_ID='1')
  assert find(Options()) == Place('localhost:8482', 2, 1)
  environment(TPU_WORKER_HOSTNAMES='localhost', TPU_WORKER_ID='0')
  assert find(Options()) is None
  environment(TPU_WORKER_HOSTNAMES='localhost,127.0.0.1', TPU_WORKER_ID='one')
  with pytest.raises(UserError, match="GkeTpuCluster.*'one'.*--num_processes=1"):
    find(Options())


def test_timeouts_are_positive():
  with pytest.raises(UserError, match='above 0'):
    distributed.join(Options(peer_timeout=0))


class Client:
  """A process as the coordinator sees it."""

  def __init__(self, port, number, total):
    self.connection = socket.create_connection(('127.0.0.1', port), timeout=10)
    self.lines = self.connection.makefile('r')
    self.say(hello=number, of=total, host=f'host{number}', pid=100 + number)

  def say(self, **message):
    self.connection.sendall(json.dumps(message).encode() + b'\n')

  def hear(self):
    return json.loads(self.lines.readline())

  def close(self):
    self.lines.close()
    self.connection.close()


@pytest.fixture
def meet():
  """meet(processes, ...): a coordinator in a thread -> (its port, the list that notes when its service began)."""
  threads, clients = [], []

  def begin(processes, start_timeout=10.0, peer_timeout=10.0):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      port = probe.getsockname()[1]
    begun = []
    server = coordinator.Coordinator(port, processes, start_timeout, peer_timeout, lambda: begun.append(True))
    threads.append(threading.Thread(target=server.serve))
    threads[-1].start()

    def client(number, total=processes):
      clients.append(Client(port, number, total))
      return clients[-1]

    return client, begun

  yield begin
  for client in clients:
    client.close()
  for thread in threads:
    thread.join(timeout=20)
    assert not thread.is_alive(), 'the coordinator ends when everyone is gone'


def test_all_start_together_and_share_values(meet):
  client, begun = meet(2)
  first = client(0)
  first.say(put='x', value=[1, 'a'])
  assert not begun
  second = client(1)
  assert first.hear() == second.hear() == {'go': 1} and begun == [True]
  second.say(get='x')
  assert second.hear() == {'key': 'x', 'value': [1, 'a']}
  second.say(get='later')
  first.say(put='later', value=2)
  assert second.hear() == {'key': 'later', 'value': 2}
  for number, process in ((1, second), (0, first)):
    process.say(gather='all', value=number * 10, seconds=10)
  assert first.hear() == second.hear() == {'key': 'all', 'value': [0, 10]}


def test_a_broken_connection_is_a_lost_process_and_a_goodbye_is_not(meet):
  client, _ = meet(3)
  processes = [client(number) for number in range(3)]
  assert [process.hear() for process in processes] == [{'go': 1}] * 3
  processes[2].say(bye=0, why='')
  processes[2].close()
  processes[1].close()
  assert processes[0].hear() == {'lost': 'process 1 (host host1, pid 101) is lost: it died, or its network did'}


def test_an_error_of_one_process_is_told_if_the_others_do_not_end_too(meet):
  client, _ = meet(2, peer_timeout=0.5)
  first, second = client(0), client(1)
  first.hear()
  second.say(bye=2, why='no such file')
  second.close()
  for _ in range(3):
    first.say(beat=1)
  assert first.hear() == {'lost': 'process 1 (host host1, pid 101) ended with exit code 2: no such file'}


def test_silence_is_a_loss(meet):
  client, _ = meet(2, peer_timeout=0.6)
  first, second = client(0), client(1)
  first.hear(), second.hear()
  stop = threading.Event()

  def beat():
    while not stop.wait(0.1):
      first.say(beat=1)

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    assert first.hear() == {'lost': 'process 1 (host host1, pid 101): no sign of life for 0.6 s (--peer_timeout)'}
  finally:
    stop.set()
    thread.join()


def test_who_misses_the_start_or_a_gathering_is_named(meet):
  client, _ = meet(4, start_timeout=0.3)
  lost = client(2).hear()['lost']
  assert lost.startswith('processes 0, 1, 3 of 4 did not come to port') and 'within 0.3 s' in lost
  client, _ = meet(2)
  first, second = client(0), client(1)
  first.hear(), second.hear()
  first.say(gather='meeting 1', value=0, seconds=0.2)
  assert first.hear() == {
    'lost': 'process 1 (host host1, pid 101) did not come in time to where the others wait: meeting 1'
  }


def test_impostors_are_refused(meet):
  client, _ = meet(2)
  first, twin, stranger = client(0), client(0), client(1, total=3)
  assert 'two processes 0: host host0, pid 100 and host host0, pid 100' in twin.hear()['refused']
  assert 'expects 2 processes, and this one says that it is process 1 of 3' in stranger.hear()['refused']
  stranger.connection.sendall(b'GET / HTTP/1.1\n')
  assert 'lines of JSON' in stranger.hear()['refused']
  second = client(1)
  assert first.hear() == second.hear() == {'go': 1}


def test_numbers():
  assert coordinator.numbers([3]) == 'process 3' and coordinator.numbers([1, 2]) == 'processes 1, 2'
  assert coordinator.numbers(list(range(20))).endswith('10, 11 and 8 more')
