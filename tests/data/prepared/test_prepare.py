"""Preparing: download, races between processes, and what is said when it fails."""

import contextlib
import functools
import hashlib
import http.server
import subprocess
import sys
import threading

import pytest

from genjax.data.prepared import builders, building, prepare
from genjax.data.sources import open_tfds
from genjax.data.text.documents import open_documents
from genjax.types import UserError

TEXT = 'Now is the winter of our discontent. ' * 10


@contextlib.contextmanager
def server(folder):
  """Base address of a server of the files of a folder."""

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=folder)) as httpd:
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
      yield f'http://127.0.0.1:{httpd.server_port}'
    finally:
      httpd.shutdown()


@pytest.fixture
def direct(monkeypatch):
  """No proxy between a test and its own server."""
  monkeypatch.setenv('no_proxy', '127.0.0.1')


def test_download(tmp_path, monkeypatch, direct):
  (tmp_path / 'input.txt').write_text(TEXT)
  with server(tmp_path) as address:
    checksum = hashlib.sha256(TEXT.encode()).hexdigest()
    monkeypatch.setattr(builders.TinyShakespeare, 'URLS', {f'{address}/input.txt': checksum})
    parts = [
      ''.join(open_documents('tiny_shakespeare', split, tmp_path / 'data')) for split in ('train', 'validation', 'test')
    ]
  assert ''.join(parts) == TEXT


@pytest.mark.parametrize(('path', 'message'), [('input.txt', 'SHA-256 is .*, expected 0000'), ('other.txt', '404')])
def test_failed_download_tells_how_to_go_on(tmp_path, monkeypatch, direct, path, message):
  (tmp_path / 'input.txt').write_text(TEXT)
  with server(tmp_path) as address:
    monkeypatch.setattr(builders.TinyShakespeare, 'URLS', {f'{address}/{path}': '0000'})
    with pytest.raises(UserError, match=message) as error:
      open_documents('tiny_shakespeare', 'train', tmp_path / 'data')
  for part in (f'{address}/{path}', 'genjax data build tiny_shakespeare --from=FOLDER', 'input.txt', 'TFDS_DATA_DIR'):
    assert part in str(error.value)
  assert not list((tmp_path / 'data').iterdir())


def test_unreachable_server(tmp_path, monkeypatch, direct):
  monkeypatch.setattr(builders.TinyShakespeare, 'URLS', {'http://127.0.0.1:9/input.txt': '0000'})
  with pytest.raises(UserError, match='fetching http://127.0.0.1:9/input.txt failed: .*refused'):
    open_documents('tiny_shakespeare', 'train', tmp_path)


def test_bad_folders(tmp_path):
  with pytest.raises(UserError, match='the folder .*absent does not exist'):
    open_tfds('mnist', 'train', data_dir=tmp_path / 'data', originals=tmp_path / 'absent')
  with pytest.raises(UserError, match='digits comes with an installed package'):
    open_tfds('digits', 'train', data_dir=tmp_path / 'data', originals=tmp_path)
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot use the data directory .*file.*TFDS_DATA_DIR'):
    open_tfds('digits', 'train', data_dir=tmp_path / 'file' / 'data')


def test_a_set_of_tfds_that_it_cannot_prepare(tmp_path):
  """Its originals have to be fetched by hand, so it fails without a network."""
  with pytest.raises(UserError) as error:
    open_tfds('imagenet2012', 'train', data_dir=tmp_path)
  message = str(error.value)
  assert 'TFDS could not prepare it' in message and 'tfds build imagenet2012 --file_format=array_record' in message
  assert len(message) < 900 and '\n' not in message


def test_failure_in_the_middle_leaves_nothing(mnist_folder, tmp_path, monkeypatch):
  png, made = building.png, []

  def fails(image):
    made.append(1)
    if len(made) == 5:
      raise UserError('no space')
    return png(image)

  monkeypatch.setattr(building, 'png', fails)
  with pytest.raises(UserError, match='no space'):
    open_tfds('mnist', 'train', data_dir=tmp_path / 'data', originals=mnist_folder)
  assert not (tmp_path / 'data' / 'mnist').exists()
  assert len(open_tfds('mnist', 'train', data_dir=tmp_path / 'data', originals=mnist_folder)) == 20


def test_loser_of_a_race_uses_what_the_winner_wrote(mnist_folder, tmp_path, monkeypatch):
  build_own = prepare._build_own

  def loses(*arguments):
    build_own(*arguments)  # the winner
    raise OSError(39, 'Directory not empty')

  monkeypatch.setattr(prepare, '_build_own', loses)
  assert prepare.build('mnist', tmp_path, mnist_folder).info.splits['train'].num_examples == 20
  monkeypatch.setattr(prepare, '_build_own', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
  with pytest.raises(UserError, match='cannot prepare mnist .*No space left'):
    prepare.build('mnist', tmp_path / 'other', mnist_folder)


def test_processes_at_once(tmp_path):
  code = (
    'import sys; from genjax.data.sources import open_tfds; '
    f"print(open_tfds('digits', 'test', data_dir={str(tmp_path)!r}).fingerprint()); "
    "assert not {'tensorflow', 'torch'} & set(sys.modules)"
  )
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  processes = [subprocess.Popen([sys.executable, '-c', code], **pipes) for _ in range(2)]
  outputs = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert len({out for out, _ in outputs}) == 1
  assert sum('preparing digits' in err for _, err in outputs) == 1
  assert sorted(path.name for path in (tmp_path / 'digits').iterdir()) == ['1.0.0', 'columns']
