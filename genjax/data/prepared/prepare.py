"""Finds prepared data sets, and prepares others: from original files, from a package or by download."""

from collections.abc import Iterator
import contextlib
import difflib
import fcntl
import hashlib
import importlib
import logging
import os
import pathlib
import re
import sys
import urllib.error
import urllib.request

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from genjax import distributed
from genjax.data.prepared.builders import BUILDERS, Builder
from genjax.types import UserError, expanded

Path = str | os.PathLike[str]

_TIMEOUT = 30  # seconds without an answer until a download fails
_RETRIES = 5  # of TFDS, 6 s in total; its default of 10 takes minutes to report a missing network

# Groups that TFDS fails to import if an optional package of an earlier group is missing.
_TFDS_GROUPS = (
  'question_answering', 'ranking', 'recommendation', 'robotics', 'structured', 'summarization', 'text',
  'text_simplification', 'time_series', 'translate', 'video', 'vision_language',
)  # fmt: skip


def data_directory(data_dir: Path | None = None) -> pathlib.Path:
  """The argument, else the environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
  return expanded(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def is_known(name: str) -> bool:
  """Returns whether a name is a data set of genjax or TFDS, optionally with a config and a version."""
  base = _base(name)
  if base in BUILDERS:
    return True
  if not re.fullmatch('[A-Za-z0-9_]+', base):
    return False
  _import_groups()
  return base in tfds.list_builders(with_community_datasets=False)


def is_variant(name: str) -> bool:
  """Returns whether a name is 'name/config' of a TFDS data set with configs, such as 'glue/sst2'."""
  base, _, config = name.partition(':')[0].partition('/')
  if not config or base in BUILDERS or not is_known(name):
    return False
  try:
    return config in tfds.builder_cls(base).builder_configs
  except Exception:  # the code of hundreds of builders raises anything
    return False


def prepared(name: str, data_dir: Path | None = None) -> tfds.core.DatasetBuilder | None:
  """The reader of a prepared data set, or None if it has yet to be prepared.

  name: 'name', 'name:version', or for sets of TFDS 'name/config:version'.

  Raises:
    UserError: no such data set.
  """
  root = data_directory(data_dir)
  if (base := _base(name)) in BUILDERS:
    version = name[len(base) + 1 :] or str(BUILDERS[base].VERSION)
    folder = root / base / version
    return tfds.builder_from_directory(folder) if _is_prepared(folder) else None
  builder = _tfds_builder(name, root)
  return builder if _is_prepared(builder.data_path) else None


def open_builder(name: str, data_dir: Path | None = None, originals: Path | None = None) -> tfds.core.DatasetBuilder:
  """The reader of a data set. Prepares it first if needed, from the folder `originals` or by download.

  Process 0 prepares it first. If processes share no data directory, the others then prepare their own.

  Raises:
    UserError: there is no such data set, or it cannot be prepared.
  """
  root = data_directory(data_dir)
  with distributed.first_then_others(f'preparing {name}'):
    if builder := prepared(name, root):
      return builder
    with _locked(root):
      builder = prepared(name, root)  # another process may have prepared it meanwhile
      return builder or build(name, root, originals)


def build(name: str, data_dir: Path | None = None, originals: Path | None = None) -> tfds.core.DatasetBuilder:
  """Prepares a data set, see `open_builder`. Leaves nothing behind on failure."""
  root = data_directory(data_dir)
  base = _base(name)
  originals = None if originals is None else expanded(originals)
  if originals is not None and not originals.is_dir():
    raise UserError(f'the folder {originals} does not exist; expected a folder with the original files of {base}')
  try:
    if base in BUILDERS:
      _build_own(name, root, originals)
    else:
      _build_tfds(name, root, originals)
  except OSError as error:
    if prepared(name, root) is None:  # else another process has completed it meanwhile
      raise UserError(f'cannot prepare {name} in {root}: {error}') from None
  finally:
    with contextlib.suppress(OSError):
      (root / base).rmdir()  # only if it is empty
  builder = prepared(name, root)
  assert builder is not None
  return builder


def _build_own(name: str, root: pathlib.Path, originals: Path | None) -> None:
  base = _base(name)
  builder_class = BUILDERS[base]
  if name not in (base, f'{base}:{builder_class.VERSION}'):
    raise UserError(f'{name} is not prepared in {root}; here version {builder_class.VERSION} can be prepared')
  if originals is not None and not builder_class.FILES:
    raise UserError(f'{base} comes with an installed package; it takes no folder of original files')
  if originals is None and builder_class.FILES and not builder_class.URLS:
    raise UserError(f'{base} is not prepared in {root}, and it is not fetched by itself. With its original files in a '
                    f'folder, run: genjax data build {base} --from=FOLDER --data_dir={root}   (expected there: '
                    f'{builder_class.FILES}). If it is prepared elsewhere, set TFDS_DATA_DIR')
  folder = pathlib.Path(originals) if originals is not None else _download(builder_class, root)
  source = f' from {folder}' if builder_class.FILES else ''
  print(f'preparing {base} {builder_class.VERSION} in {root}{source}', file=sys.stderr, flush=True)
  builder = builder_class(data_dir=os.fspath(root), file_format='array_record')
  builder.folder = folder
  tfds.disable_progress_bar()
  with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
    builder.download_and_prepare()


def _download(builder_class: type[Builder], root: pathlib.Path) -> pathlib.Path:
  """The folder of the original files. Missing ones are downloaded and checked against their SHA-256."""
  folder = root / 'downloads' / builder_class.name
  for url, checksum in builder_class.URLS.items():
    path = folder / url.rpartition('/')[2]
    if path.exists():
      continue
    print(f'fetching {url}', file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
      digest = hashlib.sha256()
      with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, partial.open('wb') as file:
        while block := response.read(1 << 20):
          digest.update(block)
          file.write(block)
      if digest.hexdigest() != checksum:
        raise OSError(f'SHA-256 is {digest.hexdigest()}, expected {checksum}')
      partial.rename(path)
    except OSError as error:
      if isinstance(error, urllib.error.HTTPError):
        error.close()
      raise UserError(
        f'{builder_class.name} is not prepared in {root}, and fetching {url} failed: {error}. With its original files '
        f'in a folder, run: genjax data build {builder_class.name} --from=FOLDER --data_dir={root}   '
        f'(expected there: {builder_class.FILES}). If it is prepared elsewhere, set TFDS_DATA_DIR') from None
    finally:
      partial.unlink(missing_ok=True)
      for empty in (folder, folder.parent):
        with contextlib.suppress(OSError):
          empty.rmdir()
  return folder


def _build_tfds(name: str, root: pathlib.Path, originals: Path | None) -> None:
  """Prepares with TFDS' builder, which often needs TensorFlow; `originals` has manually downloaded files."""
  print(f'preparing {name} in {root} with TFDS', file=sys.stderr, flush=True)
  config = tfds.download.DownloadConfig(manual_dir=os.fspath(originals) if originals is not None else None)
  downloader.MAX_RETRIES = _RETRIES
  logging.getLogger('urllib3').setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(sys.stderr):
      _tfds_builder(name, root).download_and_prepare(file_format='array_record', download_config=config)
  except Exception as error:  # the code of hundreds of builders raises anything
    raise UserError(
      f'{name} is not prepared in {root}, and TFDS could not prepare it: {first_line(error)}. Where TensorFlow and a '
      f'network are at hand, run: tfds build {name} --file_format=array_record --data_dir={root}; with files that TFDS '
      f'wants fetched by hand: genjax data build {name} --from=FOLDER. If it is prepared elsewhere, set TFDS_DATA_DIR'
    ) from None


def _tfds_builder(name: str, root: pathlib.Path) -> tfds.core.DatasetBuilder:
  try:
    with contextlib.suppress(tfds.core.DatasetNotFoundError):
      return tfds.builder(name, data_dir=os.fspath(root))
    _import_groups()
    return tfds.builder(name, data_dir=os.fspath(root))
  except tfds.core.DatasetNotFoundError:
    known = sorted({*BUILDERS, *tfds.list_builders(with_community_datasets=False)})
    close = difflib.get_close_matches(_base(name), known, n=3)
    hint = f'did you mean {" or ".join(close)}?' if close else '`genjax data list` shows what there is'
    raise UserError(f'unknown data set {name!r}, expected one of genjax or TFDS; {hint}') from None
  except Exception as error:  # the version or config does not exist, or the builder needs another package
    raise UserError(f'TFDS cannot open the data set {name!r}: {first_line(error)}; `tfds build --help` and the catalog '
                    'of TFDS tell its versions and configs') from None


def _import_groups() -> None:
  for group in _TFDS_GROUPS:
    with contextlib.suppress(ImportError):
      importlib.import_module(f'tensorflow_datasets.{group}')


def first_line(error: BaseException) -> str:
  """The type and first line of an error, at most 200 characters."""
  lines = [line.strip(' *') for line in str(error).splitlines()]
  return f'{type(error).__name__}: {next(filter(None, lines), "")}'[:200]


def _base(name: str) -> str:
  return name.partition(':')[0].partition('/')[0]


def _is_prepared(folder: os.PathLike[str]) -> bool:
  return (pathlib.Path(folder) / 'dataset_info.json').exists()  # the last file that TFDS writes before renaming


@contextlib.contextmanager
def _locked(root: pathlib.Path) -> Iterator[None]:
  """Lets one process prepare at a time. Without file locks (some network file systems) the first to finish wins."""
  try:
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
  except OSError as error:
    reason = f'cannot use the data directory {root}: {error.strerror}'
    raise UserError(f'{reason}; give another, or set TFDS_DATA_DIR') from None
  try:
    with contextlib.suppress(OSError):
      fcntl.flock(handle, fcntl.LOCK_EX)
    yield
  finally:
    os.close(handle)
