"""config.code: diffusion in a linear code of patches, which is fitted to the training pictures before the first step.

    config.code = dict(patch=8, kept=32)

Each patch of 8 x 8 pixels becomes its 32 leading principal components. Nothing of it is trained. The run keeps the code
in `FILE`; a run that starts from another one takes the code of that.
"""

import dataclasses
import io
import pathlib
import zipfile

import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images
from genjax.objectives import patch_code
from genjax.objectives.patch_code import PatchCode
from genjax.options import Section
from genjax.runs import checkpoints
from genjax.types import UserError

FILE = 'patch_code.npz'  # of a run
_PART = 500  # pictures that are read at a time


@dataclasses.dataclass(frozen=True)
class Code:
  """config.code.

  Attributes:
    patch: side of a patch, in pixels; 0 for no code.
    kept: numbers that a patch becomes.
    whitening: 1 brings each number to deviation 1, 0 divides all by one number, see `genjax.objectives.patch_code.fit`.
    places: whether each place of a picture has a code of its own, for pictures that are laid out alike.
    pictures: of the training data at most, to which the code is fitted.
  """

  patch: int = 0
  kept: int = 32
  whitening: float = 1.0
  places: bool = False
  pictures: int = 2000

  def __post_init__(self):
    checks.whole(self, 0, 'patch')
    checks.whole(self, 1, 'kept', 'pictures')
    checks.between(self, ('whitening',), at_least=0, at_most=1)


CODE = Section((Code,))


def read(config: Config) -> Code | None:
  """config.code; None without one.

  Raises:
    UserError: an unknown option, or sides that the patch does not divide, or more numbers than a patch has.
  """
  options = config_lib.build(Code, config_lib.plain(config.get('code') or {}), 'config.code')
  if not options.patch:
    return None
  height, width, channels = config.data.shape
  if height % options.patch or width % options.patch:
    raise UserError(f'config.code.patch={options.patch} must divide height and width of config.data.shape, '
                    f'{tuple(config.data.shape)}')
  if options.kept > options.patch ** 2 * channels:
    raise UserError(f'config.code.kept={options.kept} is more than the {options.patch ** 2 * channels} values of a '
                    f'patch of {options.patch} x {options.patch} pixels; make it smaller')
  if images.content(config) != 'pixels' or config.data.get('buckets'):
    raise UserError('config.code is of pictures of one shape, and config.data holds latents or has buckets; leave one '
                    'of both out')
  return options


def shape(config: Config, options: Code) -> tuple[int, int, int]:
  """The shape of the code of a picture."""
  return config.data.shape[0] // options.patch, config.data.shape[1] // options.patch, options.kept


def code(config: Config, options: Code) -> PatchCode:
  """The code that the run keeps, that of the run it starts from, or a new one of the training pictures."""
  kept = config_lib.plain(config.assets).get('folder')
  folders = [pathlib.Path(kept)] if kept else []
  if not folders and config.get('init_from'):
    folders = [checkpoints.run_and_step(config.init_from)[0]]
  for folder in folders:
    if (folder / FILE).is_file():
      found = _load(folder / FILE)
      height, width, _ = shape(config, options)
      wanted = (height * width if options.places else 1, options.patch ** 2 * config.data.shape[2], options.kept)
      if found.basis.shape != wanted:
        raise UserError(f'{folder / FILE} holds a code with {found.basis.shape} places, values and numbers, and '
                        f'config.code asks for {wanted}; set config.code as in that run')
      return found
  source = images.open_data(config, config.data.train)
  chosen = np.unique(np.linspace(0, len(source) - 1, options.pictures).astype(np.int64))
  pictures = np.concatenate([source.get(chosen[start:start + _PART])['image']
                             for start in range(0, len(chosen), _PART)])
  return patch_code.fit(pictures, options.patch, options.kept, options.whitening, options.places)


def file(code: PatchCode) -> dict[str, bytes]:
  """The file in which a run keeps a code: name -> bytes."""
  buffer = io.BytesIO()
  np.savez(buffer, **dataclasses.asdict(code))
  return {FILE: buffer.getvalue()}


def _load(path: pathlib.Path) -> PatchCode:
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
      return PatchCode(stored['mean'], stored['basis'], stored['scale'])
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is damaged ({error}); copy the run again, or train it anew') from None
