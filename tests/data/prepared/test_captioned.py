"""Sprites and emoji: characters, captions, held-out pairs, and what becomes of missing or broken files."""

import itertools

import numpy as np
from PIL import Image
import pytest

from genjax.data.prepared import captioned, prepare, sprites
from genjax.data.sources import open_tfds
from genjax.types import UserError


@pytest.fixture(scope='module')
def sheets():
  """Sheets of noise with noise as opacity; those of one attribute differ."""
  random = np.random.default_rng(0)
  shape = (sprites.ROWS * sprites.FRAME, sprites.COLUMNS * sprites.FRAME, 4)
  noise = random.integers(0, 256, shape).astype(np.uint8)
  return {name: [np.roll(noise, 7 * number + 31 * at, axis=1) for number in range(len(values))]
          for at, (name, (_, values)) in enumerate(sprites.PARTS.items())}


def test_layers_lie_over_each_other(sheets):
  character, frame = (1, 2, 3, 4, 0), 131
  image = Image.new('RGBA', (64, 64), (0, 0, 0, 255))
  for name, value in zip(sprites.PARTS, character):
    row, column = divmod(frame, 13)
    layer = sheets[name][value][row * 64:row * 64 + 64, column * 64:column * 64 + 64]
    image.alpha_composite(Image.fromarray(layer))
  wanted = np.asarray(image.convert('RGB')).astype(int)
  found = sprites.compose(sheets, character, frame)
  assert np.abs(found - wanted).max() <= 3  # Pillow rounds after each layer
  np.testing.assert_array_equal(sprites.compose(sheets, character, frame, sprites.CROP), found[sprites.CROP])


def test_splits_hold_out_pairs():
  splits = sprites.splits()
  assert {name: len(rows) for name, rows in splits.items()} == {'train': 7056, 'test': 1000, 'unseen': 2234}
  assert len(set(itertools.chain.from_iterable(splits.values()))) == 10_290
  assert not any(map(sprites.is_held_out, splits['train']))
  assert [sprites.is_held_out(character) for character in splits['test']] == [False, True] * 500
  assert all(map(sprites.is_held_out, splits['unseen']))
  for at, (_, values) in enumerate(sprites.PARTS.values()):  # each value alone is seen
    assert {character[at] for character in splits['train']} == set(range(len(values)))


def test_a_caption_names_all_attributes():
  for wording in range(len(sprites.WORDINGS)):
    caption = sprites.caption((6, 1, 5, 2, 2), wording, 'walk', 'left')
    for words in ('green orc', 'golden greaves', 'a shirt and tie', 'orange spiky hair', 'steel shoes', 'walking',
                  'facing left'):
      assert words in caption
  every = [sprites.caption(character, 0) for character in itertools.product(range(7), range(7), range(7), range(10),
                                                                            range(3))]
  assert len(set(every)) == len(every)  # so that a caption says which character it is


@pytest.mark.parametrize('kind, side', [(captioned.LpcSprites, (56, 32)), (captioned.LpcSpritesFull, (64, 64))])
def test_rows_of_sprites(kind, side, sheets, monkeypatch, tmp_path):
  monkeypatch.setattr(sprites, 'sheets', lambda folder: sheets)
  builder = kind(data_dir=tmp_path, file_format='array_record')
  splits = builder.read()
  example = builder.example(splits['test'][1])
  assert Image.open(example['image']).size == side[::-1] and example['unseen'] == 1
  assert set(example) == set(kind.FEATURES)
  assert len(splits['test']) == 1000 and len(splits['train']) == 7056 * (9 if 'Full' in kind.__name__ else 1)
  if kind is captioned.LpcSpritesFull:
    assert {row[1] for row in splits['test']} == set(itertools.product(sprites.ACTIONS, sprites.DIRECTIONS))


def test_a_missing_or_wrong_sheet_is_told(tmp_path):
  with pytest.raises(UserError, match='genjax data build lpc_sprites --from=FOLDER'):
    prepare.open_builder('lpc_sprites', tmp_path / 'data')
  (tmp_path / 'from' / 'body').mkdir(parents=True)
  with pytest.raises(UserError, match=r'expected the file 0.png in .*body'):
    prepare.open_builder('lpc_sprites', tmp_path / 'data', tmp_path / 'from')
  Image.new('RGBA', (64, 64)).save(tmp_path / 'from' / 'body' / '0.png')
  with pytest.raises(UserError, match='expected a sheet of 832 x 1344'):
    prepare.open_builder('lpc_sprites', tmp_path / 'data', tmp_path / 'from')


def emoji(folder, names):
  folder.mkdir(exist_ok=True)
  grid = np.repeat(np.repeat(np.arange(180, dtype=np.uint8).reshape(3, 60), 64, 0), 64, 1)
  Image.fromarray(np.stack([grid] * 3, -1)).save(folder / 'noto_emoji_64.webp', lossless=True)
  (folder / 'names.tsv').write_text('\n'.join(names), encoding='utf-8')


def test_emoji_have_their_names(tmp_path):
  tones = [' medium skin tone' if row % 3 == 2 else '' for row in range(180)]
  emoji(tmp_path / 'from', [f'{row}\tcode\tthing {row}{tone}' for row, tone in enumerate(tones)])
  splits = {split: open_tfds('emoji_noto', split, ('image', 'text'), tmp_path / 'data', tmp_path / 'from')
            for split in ('train', 'test')}
  assert {split: len(source) for split, source in splits.items()} == {'train': 20, 'test': 100}
  rows = splits['test'].get(np.arange(100))
  for image, text in zip(rows['image'], rows['text']):
    name = text.decode() if isinstance(text, bytes) else text
    assert image.shape == (64, 64, 3) and f'thing {image[0, 0, 0]}' == name


@pytest.mark.parametrize('names', [['0 code name'], ['0\tcode'], ['999\tcode\tname']])
def test_broken_lines_of_names_are_told(names, tmp_path):
  emoji(tmp_path / 'from', names)
  with pytest.raises(UserError, match='names.tsv, line 1'):
    prepare.open_builder('emoji_noto', tmp_path / 'data', tmp_path / 'from')
