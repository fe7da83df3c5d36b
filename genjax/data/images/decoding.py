"""Pictures of any format and mode as 8-bit grey or colour arrays, through Pillow."""

from collections.abc import Iterator
import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff')
WHITE = (255, 255, 255)
_GREY = ('1', 'L', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N')


class Broken(Exception):
  """A file that cannot be decoded; the message says why."""


def decode(data: bytes, channels: int = 0, background: tuple[int, int, int] = WHITE) -> np.ndarray:
  """Decodes a picture.

  The first frame of an animation counts. The picture is turned as its EXIF orientation asks. Transparent pixels are
  laid on a colour. Palettes, CMYK and other colour spaces become RGB by Pillow's conversion; colour profiles are
  ignored. 16-bit values keep their upper 8 bits, as in Pillow's own reading of 16-bit colour.

  Args:
    data: the contents of the file.
    channels: 1 for grey (luma of ITU-R BT.601), 3 for colour, 0 for what the file has.
    background: red, green and blue of what lies behind transparent pixels.

  Returns:
    uint8 H W C.

  Raises:
    Broken: the file is no picture, damaged, or of floating-point pixels, whose range no one knows.
  """
  with _reasons():
    picture = flat(_opened(data), background)
    if channels:
      picture = picture.convert('L' if channels == 1 else 'RGB')
    pixels = np.array(picture)
  return pixels[..., None] if pixels.ndim == 2 else pixels


def decode_transparent(data: bytes) -> np.ndarray:
  """Decodes a picture with its transparency, see `decode`: uint8 H W 4, red, green, blue and alpha.

  Raises:
    Broken: see `decode`.
  """
  with _reasons():
    picture = _opened(data)
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    alpha = picture.convert('RGBA').getchannel('A') if picture.has_transparency_data else Image.new('L', picture.size,
                                                                                                    255)
    seen = picture.convert('RGBA').convert('RGB') if picture.has_transparency_data else flat(picture, WHITE)
    return np.concatenate([np.array(seen.convert('RGB')), np.array(alpha)[..., None]], axis=2)


def size(data: bytes) -> tuple[int, int]:
  """Height and width that `decode` gives; it decodes the whole picture, and so finds every damage.

  Raises:
    Broken: see `decode`.
  """
  with _reasons():
    picture = flat(_opened(data), WHITE)
    return picture.height, picture.width


def flat(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
  """A picture of any mode as one of mode L or RGB, upright and without transparency."""
  picture.load()
  picture = ImageOps.exif_transpose(picture)
  if picture.mode == 'F':
    raise Broken('its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits')
  if picture.mode in _GREY[2:]:
    return _eight_bits(picture)
  if picture.has_transparency_data or picture.mode == 'La':
    picture = (picture.convert('LA') if picture.mode == 'La' else picture).convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', picture.size, (*background, 255)), picture).convert('RGB')
  return picture if picture.mode in ('L', 'RGB') else picture.convert('L' if picture.mode in _GREY else 'RGB')


def _eight_bits(picture: Image.Image) -> Image.Image:
  """The upper 8 bits of 16; Pillow's own conversion would clip values at 255."""
  value_HW = np.asarray(picture)
  if value_HW.min(initial=0) < 0 or value_HW.max(initial=0) > 0xFFFF:
    raise Broken('its pixels have more than 16 bits; save it with 8 or 16 bits')
  return Image.fromarray((value_HW >> 8).astype(np.uint8))


def _opened(data: bytes) -> Image.Image:
  return Image.open(io.BytesIO(data))


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
  """Turns whatever Pillow raises into `Broken`: damaged files raise anything."""
  try:
    yield
  except Image.UnidentifiedImageError:
    raise Broken('it is no picture that Pillow knows') from None
  except Broken:
    raise
  except Exception as error:
    raise Broken(' '.join(str(error).split()) or type(error).__name__) from None
