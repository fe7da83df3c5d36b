"""Folders of pictures: what each becomes against arithmetic on what was written, classes, captions, splits,
refusals."""

import json
import os
import pathlib
import runpy
import types

import numpy as np
from PIL import Image
import pytest

from genjax.data import checking, folder, kinds, mixture, pipeline
from genjax.data.folder import Options, open_folder
from genjax.data.images import resizing
from genjax.types import UserError

pictures = types.SimpleNamespace(**runpy.run_path(str(pathlib.Path(__file__).with_name('pictures.py'))))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path / 'cache'))


def plain(root, *names, shade=7):
  """Writes small grey pictures."""
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (4, 3), shade).save(path)


def names_of(root, split='train', **options):
  files = folder.Files(root, Options(**options))
  everything = open_folder(root, split, Options(**options))
  return files.names, everything


@pytest.mark.parametrize('number', range(16))
def test_every_format_and_mode(tmp_path, number):
  background = (200, 30, 90)
  ending, data, expected = pictures.make(number, 20, 30, background)
  (tmp_path / f'x{ending}').write_bytes(data)
  source = open_folder(tmp_path, options=Options(decoding=kinds.Pictures(background=background)))
  found = source.get(np.array([0]))['image'][0]
  assert found.dtype == np.uint8 and found.shape == expected.shape
  tolerance = 6 if ending.lower() in ('.jpg', '.jpeg') else 1
  assert np.abs(found.astype(float) - expected).max() <= tolerance
  assert source.index['size'].tolist() == [list(expected.shape[:2])]
  for channels in (1, 3):
    shown = open_folder(tmp_path, options=Options(decoding=kinds.Pictures(channels, background)))
    image = shown.get(np.array([0]))['image'][0]
    whole = np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found
    np.testing.assert_array_equal(image, whole if channels == 3 else pictures.grey(whole)[..., None])


def test_classes_are_numbered_by_name(tmp_path):
  plain(tmp_path, 'owl/1.png', 'cat/1.png', 'cat/deep/2.png', 'dog/1.png', '.hidden/1.png', 'cat/.secret.png')
  names, source = names_of(tmp_path)
  columns = source.get(np.arange(len(source)))
  assert dict(zip(names, columns['label'].tolist())) == {
    'owl/1.png': 2, 'cat/1.png': 0, 'cat/deep/2.png': 0, 'dog/1.png': 1}
  assert source.classes == {0: 'cat', 1: 'dog', 2: 'owl'} == folder.classes(tmp_path)
  assert columns['label'].dtype == np.int32


def test_numbers_as_classes_keep_their_gaps(tmp_path):
  plain(tmp_path, '10/a.png', '2/a.png', '05/a.png')
  assert folder.classes(tmp_path) == {10: '10', 2: '2', 5: '05'}
  plain(tmp_path, 'x/a.png')
  assert folder.classes(tmp_path) == {0: '05', 1: '10', 2: '2', 3: 'x'}


def test_two_names_of_one_number_are_refused(tmp_path):
  plain(tmp_path, '1/a.png', '01/a.png', '2/a.png')
  assert folder.classes(tmp_path) == {}
  with pytest.raises(UserError, match="no column 'label': the classes '01' and '1' are the same number; rename"):
    open_folder(tmp_path, options=Options(columns=('label',)))
  assert len(open_folder(tmp_path, options=Options(columns=()))) == 3  # whoever reads no labels


@pytest.mark.parametrize(('value', 'words'), [
  ('NaN', 'got NaN, and numbers are finite'), ('-Infinity', 'got -Infinity'), ('[1, Infinity]', 'got Infinity'),
  ('1e999', 'got 1e999'), ('1.0, "size": 2.0', "got the field 'size' twice; remove one"), ('{"deep": NaN}', 'got NaN')])
def test_numbers_are_those_of_strict_json(tmp_path, value, words):
  plain(tmp_path, 'a.png', 'b.png')
  (tmp_path / 'metadata.jsonl').write_text(
    f'{{"file_name": "a.png", "size": 1.5}}\n{{"file_name": "b.png", "size": {value}}}\n')
  with pytest.raises(UserError, match=rf'metadata.jsonl, line 2: expected a JSON object, {words}'):
    open_folder(tmp_path)


@pytest.mark.parametrize('values', [('1.5', '1e300'), ('1.5', str(10**39)), ('[1.0, 2]', '[1e39, 1]')])
def test_numbers_that_float32_cannot_hold(tmp_path, values):
  plain(tmp_path, 'a.png', 'b.png')
  (tmp_path / 'metadata.jsonl').write_text('\n'.join(
    f'{{"file_name": "{name}.png", "size": {value}}}' for name, value in zip('ab', values)))
  with pytest.raises(UserError, match=r"column 'size' must hold .* at most 3.4e\+38 .* for 'b.png'"):
    open_folder(tmp_path, options=Options(columns=('size',)))


def test_columns_are_read_without_decoding(tmp_path, monkeypatch):
  plain(tmp_path, 'x/a.png', 'y/b.png')
  (tmp_path / 'x' / 'a.txt').write_text('one')
  source = resizing.Resized(open_folder(tmp_path), (8, 8, 3), 'bilinear')
  plain(tmp_path / 'bare', 'c.png')  # a set without captions
  bare = resizing.Resized(open_folder(tmp_path / 'bare'), (8, 8, 3), 'bilinear')
  joined = mixture.Joined({'first': source, 'second': source, 'third': bare})
  monkeypatch.setattr(folder.Decoded, '_decode', lambda *_: pytest.fail('a picture was decoded'))
  for found, count in ((source, 2), (joined, 4)):
    columns = pipeline.columns_of(found, np.arange(count), ('text', 'image', 'nothing'))
    assert set(columns) == {'text'} and sorted(columns['text']) == [''] * (count // 2) + ['one'] * (count // 2)
  assert pipeline.columns_of(joined, np.arange(4, 5), ('text',))['text'].tolist() == ['']


def test_labels_of_metadata_go_first(tmp_path):
  plain(tmp_path, 'a/1.png', 'b/2.png')
  (tmp_path / 'metadata.jsonl').write_text(
    '{"file_name": "a/1.png", "label": "zebra"}\n\n{"file_name": "./b/2.png", "label": "ant"}\n')
  assert folder.classes(tmp_path) == {0: 'ant', 1: 'zebra'}


def test_order_is_that_of_a_hash_and_stays_when_files_join(tmp_path):
  plain(tmp_path, *(f'{kind}/{number}.png' for kind in 'ab' for number in range(20)))
  names, source = names_of(tmp_path)
  assert len({name[0] for name in names[:20]}) == 2  # a slice has both classes
  assert sorted(names) != names
  plain(tmp_path, 'a/99.png')
  more, _ = names_of(tmp_path)
  assert [name for name in more if name != 'a/99.png'] == names
  part, rest = (open_folder(tmp_path, split) for split in ('train[:90%]', 'train[90%:]'))
  assert (len(part), len(rest), len(source)) == (36, 5, 40)


def test_folders_of_splits(tmp_path):
  plain(tmp_path, 'train/cat/1.png', 'train/dog/2.png', 'test/dog/3.png', 'val/cat/4.png')
  for split, labels in (('train', {0, 1}), ('test', {1}), ('validation', {0}), ('train+test', {0, 1})):
    source = open_folder(tmp_path, split)
    assert set(source.get(np.arange(len(source)))['label'].tolist()) == labels
  with pytest.raises(UserError, match=r"has no split 'dev'; it has train \(2\), test \(1\), validation \(1\)"):
    open_folder(tmp_path, 'dev')
  plain(tmp_path, 'other/5.png')  # then train and test are classes
  assert set(folder.classes(tmp_path).values()) == {'train', 'test', 'val', 'other'}


def test_captions_and_other_columns(tmp_path):
  plain(tmp_path, 'a.png', 'b.png', 'sub/c.png', 'd.png')
  (tmp_path / 'b.txt').write_text('﻿ from a file\n')
  (tmp_path / 'metadata.jsonl').write_text('\n'.join(json.dumps(row) for row in (
    {'file_name': 'a.png', 'prompt': 'α β', 'stars': 3, 'score': 0.5, 'place': [1, 2.5]},
    {'file_name': 'b.png', 'stars': 1, 'score': 1, 'place': [0, 0]},
    {'file_name': 'd.png', 'prompt': None, 'stars': 2, 'score': 2.0, 'place': [3, 4]})))
  (tmp_path / 'sub' / 'metadata.jsonl').write_text(
    '{"file_name": "c.png", "prompt": "below", "stars": 5, "score": 1.5, "place": [9, 9]}')
  names, source = names_of(tmp_path, field='prompt')
  rows = source.get(np.arange(4))
  found = {name: [rows[column][row] for column in ('text', 'stars', 'score')] for row, name in enumerate(names)}
  assert found == {'a.png': ['α β', 3, 0.5], 'b.png': ['from a file', 1, 1.0], 'sub/c.png': ['below', 5, 1.5],
                   'd.png': ['', 2, 2.0]}
  assert rows['stars'].dtype == np.int32 and rows['score'].dtype == np.float32
  assert rows['place'].shape == (4, 2) and 'label' not in rows
  wanted = open_folder(tmp_path, options=Options(columns=('size', 'text'), field='prompt')).get(np.array([0]))
  assert wanted['size'].tolist() == [[3, 4]] and set(wanted) == {'image', 'size', 'text'}


def test_text_files_that_caption_nothing_at_all_are_no_captions(tmp_path):
  plain(tmp_path, 'a.png')
  (tmp_path / 'README.txt').write_text('about these pictures')
  assert 'text' not in open_folder(tmp_path).get(np.array([0]))
  with pytest.raises(UserError, match=r"has no column 'text'.*Write captions into metadata\.jsonl"):
    open_folder(tmp_path, options=Options(columns=('text',)))


def bad(tmp_path, lines='', texts=()):
  plain(tmp_path, 'a.png', 'b.png', 'c.png', 'c.jpg')
  (tmp_path / 'metadata.jsonl').write_text(lines)
  for name in texts:
    (tmp_path / name).write_text('words')


A = '{"file_name": "a.png", "text": "one"}\n'


@pytest.mark.parametrize(('lines', 'texts', 'message'), [
  (A + '{"file_name": "z.png"}', (), r"metadata\.jsonl, line 2: names 'z\.png', and .* has no such file"),
  ('{"file_name": "../a.png"}', (), r"line 1: names '\.\./a\.png'"),
  ('{"file_name": "notes.md"}', ('notes.md',), r'has no such file of this kind'),
  (A + '\n' + A, (), r"line 3: describes 'a\.png', which .*metadata\.jsonl, line 1 describes already"),
  (A, ('a.txt',), r"a\.txt, line 1: captions 'a\.png', which .*metadata\.jsonl, line 1 captions already"),
  ('', ('c.txt',), r'c\.txt: is the caption of c\.jpg, c\.png, and a caption belongs to one file'),
  ('', ('a.txt', 'y.txt'), r'y\.txt: no file beside it has this name .*captions=none'),
  (A + '{"file_name": "b.png", "text": 3}', (), r"line 2: 'text' must be a text, or a list of texts .*, got 3"),
  (A + '{"file_name": ["b.png", "c.png"], "text": "x"}', (), r"line 2: .*the path of one file, got file_name=\["),
  ('{broken', (), r'line 1: expected a JSON object'), ('[1]', (), r'line 1: .* got list'),
  (A + '{"file_name": "b.png", "text": "\\ud800"}', (), r'line 2: character 1 .*half of a surrogate'),
])
def test_captions_that_do_not_fit(tmp_path, lines, texts, message):
  bad(tmp_path, lines, texts)
  with pytest.raises(UserError, match=message):
    open_folder(tmp_path)
  assert 'text' not in open_folder(tmp_path, options=Options(captions='none')).get(np.array([0]))


def test_a_caption_that_is_no_utf8(tmp_path):
  bad(tmp_path)
  (tmp_path / 'metadata.jsonl').write_bytes(A.encode() + b'{"file_name": "b.png", "text": "\xff"}')
  with pytest.raises(UserError, match=r'metadata\.jsonl, line 2: expected UTF-8'):
    open_folder(tmp_path)


def test_columns_with_holes(tmp_path):
  bad(tmp_path, A + '{"file_name": "b.png", "stars": 3}')
  assert 'stars' not in open_folder(tmp_path).get(np.array([0]))
  with pytest.raises(UserError, match=r"has no column 'stars': 3 files have no 'stars', the first is"):
    open_folder(tmp_path, options=Options(columns=('stars',)))
  with pytest.raises(UserError, match=r"no column 'label': .* lies in no class folder\. Put the files into one folder"):
    open_folder(tmp_path, options=Options(columns=('label',)))
  with pytest.raises(UserError, match="no column 'depth': it has text beside the pictures"):
    open_folder(tmp_path, options=Options(columns=('depth',)))


def test_broken_files_are_listed_or_left_out(tmp_path, capsys):
  expected = pictures.write(tmp_path / 'x', 40, broken=(8, 17, 30))
  with pytest.raises(UserError) as error:
    open_folder(tmp_path / 'x')
  assert '3 of 40 pictures cannot be decoded' in str(error.value) and 'broken=skip' in str(error.value)
  for name in ('owl/picture008.jpg', 'owl/picture017.png', 'cat/picture030.tiff'):
    assert f'{tmp_path}/x/{name}: ' in str(error.value)
  assert len(str(error.value).splitlines()) == 5
  source = open_folder(tmp_path / 'x', options=Options(broken='skip'))
  assert len(source) == 37 == len(expected) and source.fingerprint()['broken'] == 3
  assert 'picture017.png' in capsys.readouterr().err
  for path in (tmp_path / 'x').rglob('picture*'):
    path.write_bytes(b'')
  with pytest.raises(UserError, match='40 of 40 pictures cannot be decoded'):
    open_folder(tmp_path / 'x', options=Options(broken='skip'))


def test_the_fingerprint_follows_names_contents_and_captions(tmp_path):
  plain(tmp_path, 'a/1.png', 'b/2.png')
  checksum = lambda: open_folder(tmp_path).fingerprint()['checksum']
  first = checksum()
  assert checksum() == first
  (tmp_path / 'a' / '1.png').touch()
  assert checksum() == first
  plain(tmp_path, 'a/1.png', shade=8)
  second = checksum()
  (tmp_path / 'a' / '1.png').rename(tmp_path / 'a' / '3.png')
  third = checksum()
  (tmp_path / 'a' / '3.txt').write_text('new')
  assert len({first, second, third, checksum()}) == 4


def test_checked_files_are_not_decoded_again(tmp_path, monkeypatch):
  plain(tmp_path, 'a.png', 'b.png')
  open_folder(tmp_path)
  checked = []
  monkeypatch.setattr(folder.checking, '_check', lambda path, kind: checked.append(path.name))
  open_folder(tmp_path)
  assert not checked
  plain(tmp_path, 'c.png')
  with pytest.raises(TypeError):
    open_folder(tmp_path)
  assert checked == ['c.png']


def test_a_file_that_is_gone_is_named(tmp_path):
  plain(tmp_path, 'a.png', 'b.png')
  names, source = names_of(tmp_path)
  (tmp_path / 'a.png').unlink()
  (tmp_path / 'b.png').write_bytes(b'no picture')
  for row, name in enumerate(names):
    with pytest.raises(UserError, match=name + '.*damaged or gone since the pictures were checked'):
      source.get(np.array([row]))


@pytest.mark.parametrize(('files', 'options', 'message'), [
  ((), {}, 'must hold files of one kind among pictures, clips, sounds, got none'),
  ((), {'kind': 'pictures'}, r'has no pictures: expected files that end in \.png, .*got nothing'),
  (('a.png', 'b.wav'), {}, r'got pictures \(a\.png\), sounds \(b\.wav\)'),
  (('a.wav',), {'kind': 'pictures'}, r'has no pictures: .*got \.wav'),
  (('a.png',), {'broken': 'keep'}, r"config\.data\.broken must be one of \('refuse', 'skip'\), got 'keep'")])
def test_what_is_no_folder_of_pictures(tmp_path, files, options, message):
  (tmp_path / 'x').mkdir()
  for name in files:
    (tmp_path / 'x' / name).write_bytes(b'x')
  with pytest.raises(UserError, match=message):
    open_folder(tmp_path / 'x', options=Options(**options))


def test_a_pipe_and_a_link_to_nothing_are_broken(tmp_path):
  plain(tmp_path, 'a.png', 'folder.png/b.png')  # the second a class
  os.mkfifo(tmp_path / 'pipe.png')
  (tmp_path / 'link.png').symlink_to('nowhere.png')
  with pytest.raises(UserError, match=r'(?s)2 of 4 pictures .*link.png: it cannot be read: No such file.*\n'
                                      '.*pipe.png: it cannot be read: it is no file') as error:
    open_folder(tmp_path)
  assert 'b.png' not in str(error.value)
  assert len(open_folder(tmp_path, options=Options(broken='skip'))) == 2


def test_what_may_be_read_again_is_tried_again(tmp_path, monkeypatch):
  plain(tmp_path, 'a.png', 'b.png')
  real = open

  def refuse(path, *given):
    if str(path).endswith('b.png'):
      raise PermissionError(13, 'Permission denied')
    return real(path, *given)

  monkeypatch.setattr(checking, 'open', refuse, raising=False)
  with pytest.raises(UserError, match='b.png: it cannot be read: Permission denied'):
    open_folder(tmp_path)
  monkeypatch.undo()
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path / 'cache'))
  assert len(open_folder(tmp_path)) == 2


def test_a_folder_inside_that_cannot_be_listed(tmp_path, monkeypatch):
  plain(tmp_path, 'open/a.png', 'shut/b.png')
  real = os.scandir

  def refuse(path):
    if str(path).endswith('shut'):
      raise PermissionError(13, 'Permission denied', path)
    return real(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match='shut cannot be listed: Permission denied; make it readable'):
    open_folder(tmp_path)


def test_a_path_that_is_no_folder(tmp_path):
  with pytest.raises(UserError, match='nowhere is no folder'):
    open_folder(tmp_path / 'nowhere')


def test_a_field_may_not_take_the_place_of_the_pictures(tmp_path):
  Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
  (tmp_path / 'metadata.jsonl').write_text(json.dumps({'file_name': 'a.png', 'image': 'b.png'}) + '\n')
  with pytest.raises(UserError, match="has the field 'image', which is what the pictures themselves become"):
    folder.open_folder(tmp_path)


@pytest.mark.parametrize('values, message', [
  ([[[1, 2], [3]], [1]], "[[1, 2], [3]] for 'a.png'"),
  ([1, 2**70], f"{2**70} for 'b.png'"), ([[1, None], [1, 2]], "[1, None] for 'a.png'")])
def test_columns_that_are_no_arrays_are_none(tmp_path, values, message):
  plain(tmp_path, 'a.png', 'b.png')
  lines = [json.dumps({'file_name': name, 'told': value}) for name, value in zip(('a.png', 'b.png'), values)]
  (tmp_path / 'metadata.jsonl').write_text('\n'.join(lines))
  assert 'told' not in open_folder(tmp_path).get(np.arange(2))
  with pytest.raises(UserError) as error:
    open_folder(tmp_path, 'train', Options(columns=('told',)))
  assert message in str(error.value) and 'metadata.jsonl' in str(error.value)


def test_a_file_without_a_label_is_of_no_class(tmp_path):
  plain(tmp_path, 'a.png', 'b.png')
  (tmp_path / 'metadata.jsonl').write_text('{"file_name": "a.png", "label": "cat"}\n')
  with pytest.raises(UserError, match="1 files have no 'label', the first is 'b.png'"):
    open_folder(tmp_path)


@pytest.mark.parametrize('links, count', [
  ({'x/up': '..', 'x/here': '.'}, 3), ({'x/there': '../y', 'y/back': '../x'}, 5)])
def test_links_in_a_circle_end(tmp_path, links, count):
  root = tmp_path / 'root'
  plain(root, 'x/a.png', 'y/b.png')
  plain(tmp_path / 'elsewhere', 'c.png')
  (root / 'z').symlink_to(tmp_path / 'elsewhere')
  for link, target in links.items():
    (root / link).symlink_to(target)
  names = folder.Files(root, Options()).names
  assert len(names) == count and {'x/a.png', 'y/b.png', 'z/c.png'} <= set(names)


@pytest.mark.parametrize('name', ['../other/a.png', '/a.png'])
def test_a_caption_of_a_file_outside(tmp_path, name):
  plain(tmp_path, 'a.png')
  (tmp_path / 'metadata.jsonl').write_text(json.dumps({'file_name': name, 'text': 'a'}))
  with pytest.raises(UserError, match='relative to the folder of metadata.jsonl'):
    open_folder(tmp_path)
