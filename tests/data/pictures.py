"""Writes folders of pictures of all formats and modes, with what each must become."""

import io
import json
import pathlib

import numpy as np
from PIL import Image

WHITE = np.array([255, 255, 255])


def smooth(height, width, number):
  """A colour gradient that differs from number to number, uint8 H W 3; JPEG keeps it."""
  rows, columns = np.mgrid[:height, :width]
  waves = [np.cos(2 * np.pi * (rows * a / height + columns * b / width) + number) for a, b in ((1, 0), (0, 1), (1, 1))]
  return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def grey(image_HWC):
  """Luma, as ITU-R BT.601 and Pillow have it."""
  return (image_HWC.astype(np.int64) @ [19595, 38470, 7471] + 0x8000 >> 16).astype(np.uint8)


def over(image_HWC, alpha_HW, background=WHITE):
  """A picture on a colour."""
  alpha_HW1 = alpha_HW[..., None] / 255
  return image_HWC * alpha_HW1 + np.asarray(background) * (1 - alpha_HW1)


def encoded(picture, format, **options):
  buffer = io.BytesIO()
  picture.save(buffer, format, **options)
  return buffer.getvalue()


def _palette(image_HWC):
  return Image.fromarray(image_HWC).quantize(64)


def make(number, height, width, background=WHITE):
  """Ending, bytes and the picture H W C that they must become, of 16 combinations of format and mode by `number`."""
  image = smooth(height, width, number)
  luma, alpha = grey(image), np.broadcast_to(np.linspace(0, 255, width).round().astype(np.uint8), (height, width))
  colour = Image.fromarray(image)
  with_alpha = Image.fromarray(np.dstack([image, alpha]))
  palette = _palette(image)
  indexed = np.asarray(palette.convert('RGB'))
  index_HW = np.asarray(palette)
  exif = Image.Exif()
  exif[0x112] = 6  # turn by 90 degrees clockwise to show it
  return [
    lambda: ('.png', encoded(colour, 'PNG'), image),
    lambda: ('.png', encoded(Image.fromarray(luma), 'PNG'), luma[..., None]),
    lambda: ('.png', encoded(with_alpha, 'PNG'), over(image, alpha, background)),
    lambda: ('.png', encoded(Image.fromarray(np.dstack([luma, alpha])), 'PNG'),
             over(np.repeat(luma[..., None], 3, axis=2), alpha, background)),
    lambda: ('.png', encoded(palette, 'PNG'), indexed),
    lambda: ('.png', encoded(palette, 'PNG', transparency=5),
             np.where(index_HW[..., None] == 5, np.asarray(background), indexed)),
    lambda: ('.png', encoded(Image.fromarray(luma.astype(np.uint16) * 256 + 77), 'PNG'), luma[..., None]),
    lambda: ('.png', encoded(Image.fromarray(luma > 127), 'PNG'), np.where(luma > 127, 255, 0)[..., None]),
    lambda: ('.jpg', encoded(colour, 'JPEG', quality=98, subsampling=0), image),
    lambda: ('.JPEG', encoded(colour, 'JPEG', quality=98, subsampling=0, exif=exif), np.rot90(image, -1)),
    lambda: ('.jpg', encoded(colour.convert('CMYK'), 'JPEG', quality=98, subsampling=0), image),
    lambda: ('.webp', encoded(with_alpha, 'WEBP', lossless=True, exact=True), over(image, alpha, background)),
    lambda: ('.gif', encoded(palette, 'GIF', save_all=True, append_images=[Image.new('P', (width, height))]), indexed),
    lambda: ('.bmp', encoded(colour, 'BMP'), image),
    lambda: ('.tiff', encoded(colour.convert('CMYK'), 'TIFF'), image),
    lambda: ('.tif', encoded(Image.fromarray(luma.astype(np.uint16) * 257), 'TIFF'), luma[..., None]),
  ][number % 16]()


def write(root: pathlib.Path, count, sizes=((20, 30), (30, 20), (24, 24)), broken=(), classes=('cat', 'dog', 'owl'),
          captioned=0):
  """Writes a folder; returns path in it -> what the picture must become, of those that are not broken.

  Pictures `broken` are cut off, empty, or text. Of the others, the first `captioned` have captions: those with even
  numbers in metadata.jsonl, those with odd ones in text files.
  """
  expected, lines = {}, []
  for number in range(count):
    ending, data, image = make(number, *sizes[number % len(sizes)])
    folder = root / classes[number % len(classes)] if classes else root
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'picture{number:03d}{ending}'
    name = path.relative_to(root).as_posix()
    if number in broken:
      data = (data[:len(data) * 2 // 3], b'', b'this is no picture')[broken.index(number) % 3]
    else:
      expected[name] = image
    path.write_bytes(data)
    if number < captioned:
      caption = f'picture number {number}'
      if number % 2:
        path.with_suffix('.txt').write_text(f'{caption}\n')
      else:
        lines.append(json.dumps({'file_name': name, 'text': caption, 'stars': number % 5}))
  if lines:
    (root / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')
  return expected
