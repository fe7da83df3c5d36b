"""A Slurm of one node in a temporary folder: munged, slurmctld and slurmd on free ports, ended with the test."""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'squeue', 'scancel', 'scontrol')
CORES = 4  # that Slurm may give away, however many there are
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE OverTimeLimit=2 State=UP
"""


def missing() -> str:
  """Why there can be no server here, '' if there can."""
  if absent := [name for name in PROGRAMS if found(name) is None]:
    return f'{", ".join(absent)} are not installed (apt-get install -y slurm-wlm munge)'
  if os.geteuid() != 0:
    return 'only root can start the daemons of Slurm for this test'
  try:
    pwd.getpwnam('munge')
  except KeyError:
    return 'there is no user munge, whom the package munge makes'
  return ''


def found(name: str) -> str | None:
  return shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')


def free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def started():
  """Inside, SLURM_CONF names a Slurm that answers; gives its folder."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='genjax-slurm-'))
  processes: list[subprocess.Popen] = []
  before = os.environ.get('SLURM_CONF')
  try:
    folder.chmod(0o755)  # munged asks that nobody else may write above its files, and reads them as its own user
    for name in ('munge', 'state', 'spool'):
      (folder / name).mkdir(mode=0o755)
    key = folder / 'munge' / 'key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for path in (folder / 'munge', key):
      shutil.chown(path, 'munge', 'munge')
    control, daemon = free_ports(2)
    host = socket.gethostname().partition('.')[0]
    config = folder / 'slurm.conf'
    config.write_text(CONFIG.format(host=host, control=control, daemon=daemon, folder=folder, cores=CORES))
    os.environ['SLURM_CONF'] = str(config)
    munge = folder / 'munge'
    flags = [f'--socket={munge}/socket', f'--key-file={key}', f'--pid-file={munge}/pid', f'--seed-file={munge}/seed',
             f'--log-file={munge}/log', '--foreground']
    processes.append(start(['munged', *flags], folder, user='munge', group='munge', extra_groups=[]))
    wait_for((munge / 'socket').exists, folder, processes)
    processes.append(start(['slurmctld', '-D', '-c', '-f', str(config)], folder))
    processes.append(start(['slurmd', '-D', '-c', '-f', str(config), '-N', host], folder))
    wait_for(lambda: 'idle' in ask('sinfo', '--noheader', '--format=%t'), folder, processes)
    yield folder
  finally:
    if len(processes) == 3:
      ask('scancel', '--user=root')
      deadline = time.monotonic() + 90
      while ask('squeue', '--noheader').strip() and time.monotonic() < deadline:
        time.sleep(0.5)
    for process in reversed(processes):
      process.terminate()
      try:
        process.wait(20)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if before is None:
      os.environ.pop('SLURM_CONF', None)
    else:
      os.environ['SLURM_CONF'] = before
    shutil.rmtree(folder, ignore_errors=True)


def start(command, folder, **options):
  with open(folder / 'output', 'ab') as log:
    return subprocess.Popen([found(command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                            start_new_session=True, **options)


def ask(*command: str) -> str:
  """What a command of Slurm prints."""
  return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def wait_for(condition, folder, processes, seconds=60):
  deadline = time.monotonic() + seconds
  while not condition():
    said = ''.join(path.read_text(errors='replace')[-3000:] for path in (
      folder / 'output', folder / 'slurmctld.log', folder / 'slurmd.log') if path.exists())
    assert all(process.poll() is None for process in processes), f'a daemon has ended:\n{said}'
    assert time.monotonic() < deadline, f'Slurm does not come up:\n{said}'
    time.sleep(0.2)
