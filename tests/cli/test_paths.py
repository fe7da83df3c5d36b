"""Paths as users write them: home folders, and any characters in the names of folders."""

import json
import pathlib

import pytest

from genjax.cli.main import PATHS, main, with_homes
from genjax.runs import checkpoints
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
NAME = 'a b@5.v2 ü日'
VAE = [
  f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke', '--config.sample_every=0', '--config.evaluate_every=0'
]


def test_home_folders_in_every_flag_of_a_path(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  for name in PATHS:
    assert with_homes([f'--{name}=~/x y', f'--{name}', '~/z',
                       '~/rest']) == [f'--{name}=/home/me/x y', f'--{name}', '/home/me/z', '~/rest']
  assert with_homes(['--work=~/x', '--fro', '~/y',
                     '--to=~/z']) == ['--work=/home/me/x', '--fro', '/home/me/y', '--to=/home/me/z']
  others = ['--prompt=~/x', '--', '~/x', '-', '~/x', 'work=~/x', '--set', 'data.name=~/x',
            '--config.init_from=~/x', '--workdir=a~b', '--workdir=/~']
  assert with_homes(others) == others
  with pytest.raises(UserError, match='there is no user of this name'):
    with_homes(['--workdir=~nobody-is-called-so/x'])


def test_an_at_in_the_path_of_a_run(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for name in ('plain', 'run@5', NAME, 'at@home/run'):
    (tmp_path / name).mkdir(parents=True)
  cases = {
    'plain': ('plain', None), 'plain@7': ('plain', 7), 'run@5': ('run@5', None), 'run@5@7': ('run@5', 7),
    NAME: (NAME, None), f'{NAME}@7': (NAME, 7), 'at@home/run': ('at@home/run', None),
    'at@home/run@7': ('at@home/run', 7), 'none@7': ('none', 7), 'at@home/none': ('at@home/none', None)
  }
  for text, (path, step) in cases.items():
    for start in (f'{tmp_path}/', '~/'):
      assert checkpoints.run_and_step(f'{start}{text}') == (tmp_path / path, step)
  for step in ('x', '²', '-1', ''):
    with pytest.raises(UserError, match='RUN_DIR@STEP'):
      checkpoints.run_and_step(f'{tmp_path}/plain@{step}')


def test_a_run_in_a_folder_of_any_name(tmp_path, monkeypatch, capsys):
  """It is trained, begins another one, is sampled and evaluated."""
  monkeypatch.setenv('HOME', str(tmp_path))
  folder = tmp_path / NAME
  assert main(['train', *VAE, f'--workdir=~/{NAME}/run.1']) == 0
  assert main(['train', *VAE, f'--workdir=~/{NAME}/run.2', f'--config.init_from=~/{NAME}/run.1@2']) == 0
  assert main(['sample', f'--workdir=~/{NAME}/run.2', '--num=2', f'--out=~/{NAME}/x.npz']) == 0
  assert main(['evaluate', '--workdir', f'~/{NAME}/run.2', f'--per-example=~/{NAME}/each.npz']) == 0
  assert {path.name for path in folder.iterdir()} == {'run.1', 'run.2', 'x.npz', 'each.npz'}
  assert json.loads((folder / 'run.2' / 'evaluation.json').read_text())['metrics']
  assert f'beginning with step 2 of {folder}/run.1' in capsys.readouterr().err
  assert not (pathlib.Path.cwd() / '~').exists()


@pytest.mark.parametrize(
  'argv',
  [['sample', '--workdir=LONG'], ['sample', '--workdir=FILE'], ['sample', '--workdir=FILE', '--out=LONG.npz'],
   ['sample', '--workdir=FILE', '--ou=~nobody-is-called-so/x.npz'],
   ['evaluate', '--workdir=FILE', '--per-example=LONG.npz'], ['merge', '--workdir=FILE', '--out=LONG'],
   ['export', '--workdir=FILE', '--to=LONG'], ['import', '--from=LONG', '--workdir=new'],
   ['import', '--from=FILE', '--workdir=LONG'], ['train', '--config=LONG', '--workdir=new'],
   ['train', VAE[0], '--workdir=LONG'], ['train', VAE[0], '--workdir=FILE'], ['plan', '--config=FILE/x.py'],
   ['data', 'tokenize', '--input=FILE', '--tokenizer=LONG', '--out=new'], ['data', 'info', 'mnist', '--data_dir=LONG']],
  ids=lambda argv: ' '.join(argv)[:60])
def test_a_path_that_cannot_be_is_named(tmp_path, monkeypatch, capsys, argv):
  """Too long a name, a file in the place of a folder: an error of one line, whoever stumbles over it."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'FILE').write_text('{}')
  assert main([arg.replace('LONG', 'a' * 300) for arg in argv]) == 2
  said = capsys.readouterr().err
  assert len(said.strip().splitlines()) == 1 and any(word in said for word in ('a' * 300, 'FILE', '~nobody')), said
  assert not (tmp_path / 'new').exists()
