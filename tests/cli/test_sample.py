"""What `genjax sample` is asked for: prompts, lists, paths, places to write; found out before anything is sampled."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from genjax import artifacts
from genjax.cli import sample
from genjax.cli.main import main
from genjax.data import folder
from genjax.runs import outputs, sampling
from genjax.runs import workdir as workdir_lib
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.experiment import Condition
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = Condition(lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.int32),
                 lambda row: np.zeros(1, np.int32), 'a text', fill=-1)
SOUND = Condition(lambda path: np.frombuffer(pathlib.Path(path).read_bytes()[:2], np.uint8),
                  lambda row: np.zeros(2, np.uint8), 'a path', path=True)
KNOWN = {'prompt': TEXT, 'label': Condition.label(10), 'source': SOUND}


@pytest.fixture(scope='module')
def text_run(smoke_run):
  return smoke_run('language/python_code')


@pytest.fixture
def unread(monkeypatch):
  """Fails when a checkpoint is read: what is refused is refused before."""
  monkeypatch.setattr(Checkpoints, 'restore', lambda *_, **__: pytest.fail('a checkpoint was read'))
  monkeypatch.setattr(Checkpoints, 'load', lambda *_, **__: pytest.fail('a checkpoint was read'))


def text_of(row):
  return bytes(row[row >= 0].astype(np.uint8)).decode()


def test_every_prompt_and_every_listed_value_is_used_at_least_once():
  rows = sample.parse_conditions('label=3,7,8', ['a', 'bc'], KNOWN, 1)
  assert [text_of(row) for row in rows['prompt']] == ['a', 'bc', 'a'] and rows['label'].tolist() == [3, 7, 8]
  assert [text_of(row) for row in sample.parse_conditions('', ['a', 'b'], KNOWN, 1)['prompt']] == ['a', 'b']
  assert [text_of(row) for row in sample.parse_conditions('', ['a', 'b'], KNOWN, 3)['prompt']] == ['a', 'b', 'a']
  assert len(sample.parse_conditions('label=0-9', None, KNOWN, 4)['label']) == 10
  # And not a machine without memory
  with pytest.raises(UserError, match='range 0-9999999999 has more than 1,000,000 values'):
    sample.parse_conditions('label=0-9999999999', None, KNOWN, 4)
  with pytest.raises(UserError, match='no user of this name'):
    sample.parse_conditions('source=~nobody-is-called-so/a.wav', None, KNOWN, 1)


def test_two_prompts_give_two_texts_whatever_the_number(text_run, capsys):
  assert main(['sample', f'--workdir={text_run}', '--num=1', '--prompt=def a', '--prompt=import b']) == 0
  said = capsys.readouterr()
  assert 'def a' in said.out and 'import b' in said.out and '2 samples instead of --num=1' in said.err


def test_commas_of_texts_and_of_names_of_files_separate_nothing(tmp_path, monkeypatch):
  rows = sample.parse_conditions('prompt=Hello, world; 3-5, bye.;label=1', None, KNOWN, 1)
  assert text_of(rows['prompt'][0]) == 'Hello, world; 3-5, bye.' and rows['label'].tolist() == [1]
  names = ('a,b.wav', 'c.wav', '1-3', 'my , song;x.wav', 'a')
  for number, name in enumerate(names):
    (tmp_path / name).write_bytes(bytes([number, 0]))
  folder = str(tmp_path)
  for asked, found in (('F/a,b.wav', [0]), ('F/a,b.wav,F/c.wav', [0, 1]), ('F/c.wav, F/a,b.wav', [1, 0]),
                       ('F/1-3', [2]), ('F/my , song;x.wav', [3]), ('F/a,F/c.wav', [4, 1])):
    rows = sample.parse_conditions(f'source={asked.replace("F", folder)};label=2', None, KNOWN, 1)
    assert rows['source'][:, 0].tolist() == found and rows['label'].tolist() == [2] * len(found)
  monkeypatch.setenv('HOME', folder)
  assert sample.parse_conditions('source=~/c.wav', None, KNOWN, 1)['source'][0, 0] == 1


def test_a_condition_that_is_given_twice():
  with pytest.raises(UserError, match="'label' is given twice"):
    sample.parse_conditions('label=1;label=2', None, KNOWN, 1)
  with pytest.raises(UserError, match="'prompt' is given twice"):
    sample.parse_conditions('prompt=a', ['b'], KNOWN, 1)


def test_conditions_with_commas_between(tmp_path):
  for text in ('source=a.wav,label=2', 'label=2,source=a.wav'):
    before, after = text.split(',')
    with pytest.raises(UserError, match=f"; between conditions .* write --conditions='{before};{after}'"):
      sample.parse_conditions(text, None, KNOWN, 1)
  (tmp_path / 'label=1.wav').write_bytes(bytes([3, 0]))
  rows = sample.parse_conditions(f'source={tmp_path}/label=1.wav', None, KNOWN, 1)
  assert rows['source'][0, 0] == 3


@pytest.mark.parametrize(('argv', 'words'), [
  (['--out={here}/x.bmp'], '.npz, .txt, .png, .jpg, .webp, .gif, .mp4, .wav, .flac'),
  (['--out={here}/x.png'], "renders 'samples' as .txt"),
  (['--out={here}/samples.v2'], 'samples.v2/'),
  (['--out='], '--out is empty'),
  (['--out={here}/file/x.txt'], 'no folder'),
  (['--out={here}/file/new'], 'no folder'),
  (['--out={here}/file/x.npz'], '--out='),
  (['--seed=-1'], '--seed'),
  (['--prompt='], '1 to 15 tokens'),
  (['--conditions=promt=a'], "'prompt'"),
  (['--stream', '--conditions=prompt=a', '--set', 'sampler.beams=1000', 'sampler.temperature=1.0'], 'beams'),
  (['--set', 'sampler.min_p=NaN'], 'config.sampler.min_p must be finite, got nan'),
])
def test_what_cannot_be_sampled_or_written_is_refused_before_a_checkpoint_is_read(text_run, tmp_path, capsys, unread,
                                                                                  argv, words):
  (tmp_path / 'file').write_text('')
  assert main(['sample', f'--workdir={text_run}', *(arg.format(here=tmp_path) for arg in argv)]) == 2
  said = capsys.readouterr().err
  assert words in said and '--workdir=' not in said, said
  assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize(('command', 'argv', 'words'), [
  ('evaluate', ['--per-example={here}/file/x.npz'], '--per-example={here}/file/x.npz cannot be written'),
  ('evaluate', ['--per-example={here}/folder.npz'], 'is a folder'),
  ('evaluate', ['--set', 'data.heldout=nothing'], "'nothing'"),
  ('export', ['--to={here}/file/x'], '--to={here}/file/x cannot be written'),
  ('export', ['--to={here}'], 'not an empty folder'),
])
def test_other_commands_refuse_before_a_checkpoint_is_read_too(text_run, tmp_path, capsys, unread, command, argv,
                                                               words):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder.npz').mkdir()
  assert main([command, f'--workdir={text_run}', *(arg.format(here=tmp_path) for arg in argv)]) == 2
  assert words.format(here=tmp_path) in capsys.readouterr().err


def test_measures_whose_data_is_missing_are_refused_before_a_checkpoint_is_read(tmp_path, capsys, unread, monkeypatch):
  argv = [
    'train', f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={tmp_path / "run"}', '--config.sample_every=0'
  ]
  with monkeypatch.context() as patch:
    patch.setattr(Run, 'train_step', lambda *_: pytest.fail('a step was computed'))
    patch.setattr(Checkpoints, 'restore', lambda *_, **__: (_ for _ in ()).throw(UserError('stop here')))
    assert main(argv) == 2
  capsys.readouterr()
  # The run reads its held-out split, and the classifier that judges the samples its training split as well.
  assert main(['evaluate', f'--workdir={tmp_path / "run"}', '--set', 'data.train=nothing']) == 2
  assert "'nothing'" in capsys.readouterr().err


def test_a_folder_may_have_a_dot_in_its_name(text_run, tmp_path):
  (tmp_path / 'there.d').mkdir()
  for out in ('there.d', 'new.d/', 'plain'):
    assert main(['sample', f'--workdir={text_run}', '--num=1', f'--out={tmp_path}/{out}']) == 0
    assert (tmp_path / out / '000000.txt').is_file()


def test_a_home_folder_is_one_in_outputs_too(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert outputs.file('~/x.npz', '--out') == tmp_path / 'x.npz'
  assert sampling.destination('~/new').path == tmp_path / 'new'


def test_what_a_terminal_cannot_spell_is_escaped(text_run):
  program = ('import sys\nfrom genjax.cli import main\nfrom genjax.runs import sampling\n'
             "sampling.write = lambda samples, *_: print('caf\\xe9 \\u4e16 \\ud800 end') or []\n"
             'sys.exit(main.main(sys.argv[1:]))')
  done = subprocess.run(
    [sys.executable, '-c', program, 'sample', f'--workdir={text_run}', '--num=1'], capture_output=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'ascii', 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 0, done.stderr.decode()
  assert done.stdout == b'caf\\xe9 \\u4e16 \\ud800 end\n'


def test_half_of_a_surrogate_pair_is_written_as_an_escape(tmp_path):
  assert artifacts.write(tmp_path / 'x', 'a \ud800 é').read_text(encoding='utf-8') == 'a \\ud800 é'
  writer = logs.Writer(tmp_path)
  writer.start(0)
  assert writer.artifact(1, 'samples', 'a \ud800')[0].read_text() == 'a \\ud800'
  writer.close()


def test_the_flag_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='--out=.* cannot be written'):
    workdir_lib.prepare(str(tmp_path / 'file' / 'x'), '--out')


def test_a_folder_has_a_file_of_each_sample_and_its_conditions(smoke_run, tmp_path, capsys):
  """And every ending that pictures have shows all of them."""
  argv = ['sample', f'--workdir={smoke_run("quickstart")}', '--num=5', '--seed=3', '--conditions=label=7,2']
  assert main([*argv, f'--out={tmp_path}/digits']) == 0
  assert main([*argv, f'--out={tmp_path}/digits.npz']) == 0
  assert 'wrote 5 samples and ' in capsys.readouterr().err
  lines = [json.loads(line) for line in (tmp_path / 'digits' / 'metadata.jsonl').read_text().splitlines()]
  assert lines == [{'file_name': f'{row:06d}.png', 'row': row, 'seed': 3, 'label': (7, 2)[row % 2]} for row in range(5)]
  with np.load(tmp_path / 'digits.npz') as arrays:
    for line, image in zip(lines, arrays['image'], strict=True):
      with Image.open(tmp_path / 'digits' / line['file_name']) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image[..., 0])
  source = folder.open_folder(tmp_path / 'digits')
  assert source.get(np.arange(5))['label'].tolist().count(7) == 3
  for ending in ('jpg', 'webp', 'gif'):
    assert main([*argv, f'--out={tmp_path}/grid.{ending}']) == 0
    with Image.open(tmp_path / f'grid.{ending}') as picture:
      assert picture.width > 100
  for ending in ('mp4', 'wav', 'flac', 'txt'):
    assert main([*argv, f'--out={tmp_path}/grid.{ending}']) == 2
    assert "renders 'samples' as .png (picture)" in capsys.readouterr().err


def test_metadata_of_other_files_stays(smoke_run, tmp_path, capsys):
  out = tmp_path / 'digits'
  argv = ['sample', f'--workdir={smoke_run("quickstart")}', f'--out={out}/']
  told = lambda: {line['file_name']: (line['label'], line['seed']) for line in map(
    json.loads, (out / 'metadata.jsonl').read_text().splitlines())}
  assert main([*argv, '--num=3', '--conditions=label=7']) == 0
  Image.new('L', (8, 8)).save(out / 'mine.png')
  with (out / 'metadata.jsonl').open('a') as file:
    file.write('{"file_name": "./mine.png", "label": 4, "seed": 0}\n{"file_name": "gone.png", "label": 5}\n')
  assert main([*argv, '--num=2', '--start=2', '--seed=1', '--conditions=label=8']) == 0
  assert told() == {'000000.png': (7, 0), '000001.png': (7, 0), './mine.png': (4, 0), '000002.png': (8, 1),
                    '000003.png': (8, 1)}
  source = folder.open_folder(out)
  assert sorted(source.get(np.arange(5))['label'].tolist()) == [4, 7, 7, 8, 8]
  before = sorted(path.name for path in out.iterdir())
  (out / 'metadata.jsonl').write_text('{"file_name": "000000.png"}\nno JSON\n')
  assert main([*argv, '--num=9']) == 2  # before anything is drawn
  assert 'metadata.jsonl, line 2: expected a JSON object' in capsys.readouterr().err
  assert sorted(path.name for path in out.iterdir()) == before


def test_endings_may_be_in_upper_case(smoke_run, tmp_path, capsys):
  argv = ['sample', f'--workdir={smoke_run("quickstart")}', '--num=2']
  for name in ('x.PNG', 'x.Jpg', 'x.NPZ'):
    assert main([*argv, f'--out={tmp_path}/{name}']) == 0
  assert sorted(path.name for path in tmp_path.iterdir()) == ['x.Jpg', 'x.NPZ', 'x.PNG']
  with Image.open(tmp_path / 'x.PNG') as png, Image.open(tmp_path / 'x.Jpg') as jpg:
    assert (png.format, jpg.format) == ('PNG', 'JPEG')
  assert set(np.load(tmp_path / 'x.NPZ')) == {'image', 'label'}
  assert main([*argv, f'--out={tmp_path}/x.MP4']) == 2
  assert "renders 'samples' as .png (picture)" in capsys.readouterr().err


def test_prompts_are_captions_of_a_folder(text_run, tmp_path):
  assert main(['sample', f'--workdir={text_run}', '--num=2', '--prompt=def a', f'--out={tmp_path}/texts']) == 0
  lines = [json.loads(line) for line in (tmp_path / 'texts' / 'metadata.jsonl').read_text().splitlines()]
  assert [(line['file_name'], line['prompt'], line['text']) for line in lines] == [
    ('000000.txt', 'def a', 'def a'), ('000001.txt', 'def a', 'def a')]
  assert 'def a' in (tmp_path / 'texts' / '000001.txt').read_text()
