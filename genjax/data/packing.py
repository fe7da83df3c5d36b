"""Packs a folder of pictures, clips or sounds into shards, see `genjax.data.packed`."""

import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures
import dataclasses
import hashlib
import io
import pathlib
from typing import Any, TypeVar

import numpy as np
from PIL import Image
import tqdm

from genjax import checks
from genjax.data import captions, checking, folder, packed
from genjax.data.images import decoding, resizing
from genjax.data.kinds import BROKEN
from genjax.types import UserError, strict_json

FORMATS = {'png': 'PNG', 'jpg': 'JPEG', 'webp': 'WEBP'}
SHARD_BYTES = 2**28  # of files in a shard, where the number of shards is not given
NAME = 'name'  # the column with the path of the file in its folder
T = TypeVar('T')
S = TypeVar('S')


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How pictures are encoded anew.

  Attributes:
    size: () to keep their sizes, (N,) to shrink pictures until their shorter side has N pixels, or (H, W) for all.
    resize: one of `genjax.data.images.resizing.FILTERS`.
    crop: with (H, W): whether the middle is cut out in these proportions, else pictures are stretched.
    format: 'png', which loses nothing, 'jpg' or 'webp'.
    quality: of jpg and webp, from 1 to 100; webp with 100 loses nothing.
    background: red, green and blue of what lies behind transparent pixels.

  Raises:
    UserError: an unknown name, or a number out of range.
  """

  size: tuple[int, ...] = ()
  resize: str = 'lanczos'
  crop: bool = False
  format: str = 'png'
  quality: int = 95
  background: tuple[int, int, int] = decoding.WHITE

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'quality')
    checks.require('quality', self.quality, at_most=100)
    if len(self.size) > 2:
      raise checks.OutOfRange(f'size must be one number or height and width, got {self.size}')
    for name, value, known in (('resize', self.resize, resizing.FILTERS), ('format', self.format, FORMATS)):
      if value not in known:
        raise checks.OutOfRange(f'{name} must be one of {tuple(known)}, got {value!r}')

  def shape(self, height: int, width: int) -> tuple[int, int]:
    """Height and width of what a picture of this size becomes."""
    if len(self.size) == 2:
      return self.size[0], self.size[1]
    shorter = min(height, width)
    if not self.size or shorter <= self.size[0]:
      return height, width
    return round(height * self.size[0] / shorter), round(width * self.size[0] / shorter)

  def encode(self, data: bytes) -> bytes:
    """A picture, encoded anew."""
    image_HWC = decoding.decode(data, background=self.background)
    shape = (*self.shape(*image_HWC.shape[:2]), image_HWC.shape[2])
    if shape != image_HWC.shape:
      image_HWC = resizing.resize(image_HWC, shape, self.resize, self.crop)
    picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)
    options: dict[str, Any] = {} if self.format == 'png' else dict(quality=self.quality)
    if self.format == 'webp' and self.quality == 100:
      options = dict(lossless=True)
    buffer = io.BytesIO()
    picture.save(buffer, FORMATS[self.format], **options)
    return buffer.getvalue()


def pack(source: pathlib.Path, out: pathlib.Path, options: folder.Options, shards: int = 0, workers: int = 1,
         encoding: Encoding | None = None) -> dict[str, Any]:
  """Packs the files of a folder, all splits in their order, with labels, captions and other columns.

  A call after an interruption goes on with the first unfinished shard. The bytes depend neither on that nor on the
  number of workers.

  Args:
    source: the folder of files.
    out: the folder to write.
    options: which files are read, and what becomes of broken ones.
    shards: number of files to write; 0 for one in `SHARD_BYTES` of files.
    workers: files that are read, and encoded, at a time.
    encoding: how pictures are encoded anew; None keeps the bytes of the files.

  Returns:
    The schema, see `genjax.data.packed.Writer.close`.

  Raises:
    UserError: see `genjax.data.folder.Files` and `genjax.data.packed.Writer`.
    StorageError: the folder cannot be written.
  """
  if packed.is_packed(source):
    raise UserError(f'{source} is packed already; name the folder of the files themselves')
  files = folder.Files(source, options)
  if encoding is not None and files.kind.name != 'pictures':
    raise UserError(f'only pictures can be encoded anew, and {source} has {files.kind.name}; leave these options out')
  if NAME in files.values:
    raise UserError(f'{source}: the metadata have the field {NAME!r}, which in shards is the path of a file; rename '
                    'the field')
  index, checksum = dict(files.index), files.checksum
  if encoding is not None:
    told = dataclasses.asdict(encoding)
    checksum = hashlib.sha256(strict_json([checksum, told]).encode()).hexdigest()[:16]
    index['size'] = np.asarray([encoding.shape(*size) for size in index['size'].tolist()], np.int64)
  key = {'kind': files.kind.name, 'checksum': checksum, 'broken': len(files.broken), 'lacking': files.lacking,
         'classes': {str(label): name for label, name in sorted(files.classes.items())},
         'encoding': None if encoding is None else dataclasses.asdict(encoding)}
  paths = [part for name in files.names for part in checking.files(source / name)]
  shards = shards or min(len(files), max(1, -(-sum(path.stat().st_size for path in paths) // SHARD_BYTES)))
  writer = packed.Writer(out, shards, key, files.splits, index)
  waiting = writer.pending()
  row = lambda number: _row(files, number, encoding)
  done = len(files) - sum(len(writer.rows(number)) for number in waiting)
  with (tqdm.tqdm(total=len(files), initial=done, unit='file', desc=f'packing {out}', smoothing=0.0) as bar,
        concurrent.futures.ThreadPoolExecutor(workers) as pool):
    for number in waiting:
      writer.write(number, packed.counted(_ahead(pool, row, writer.rows(number), 4 * workers), bar.update))
  return writer.close()


def _row(files: folder.Files, number: int, encoding: Encoding | None) -> dict[str, Any]:
  path = files.root / files.names[number]
  try:
    parts = [part.read_bytes() for part in checking.files(path)]
    contents: Any = parts if path.is_dir() else parts[0] if encoding is None else encoding.encode(parts[0])
  except (*BROKEN, OSError) as error:
    raise UserError(f'{path}: {error}. It is damaged or gone since it was checked; run the command again') from error
  told = {name: values[number] for name, values in files.values.items()}
  lists = {name: np.asarray(value, np.float32) for name, value in told.items()
           if isinstance(value, list) and not captions.are_texts(value)}
  return {files.kind.column: contents, NAME: files.names[number], **told, **lists}


def _ahead(pool: concurrent.futures.Executor, function: Callable[[S], T], items: Iterable[S],
           depth: int) -> Iterator[T]:
  """Results of a function in order, of which `depth` are computed ahead."""
  waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
  try:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > depth:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    for future in waiting:
      future.cancel()
