"""`genjax data`."""

import pytest

from genjax.cli.data import main
from genjax.data.prepared.builders import BUILDERS
from genjax.types import UserError


def test_build_list_info(mnist_folder, tmp_path, capsys):
  data_dir = f'--data_dir={tmp_path / "data"}'
  assert main(['list', data_dir]) == 0
  assert 'none' in capsys.readouterr().out
  with pytest.raises(UserError, match='mnist is not prepared in .*genjax data build mnist'):
    main(['info', 'mnist', data_dir])
  assert main(['build', 'mnist', f'--from={mnist_folder}', data_dir]) == 0
  assert 'mnist 3.0.1 in' in (output := capsys.readouterr()).out and 'train 20, test 10' in output.out
  assert 'preparing mnist' in output.err
  assert main(['build', 'mnist', data_dir]) == 0
  assert 'prepared already' in capsys.readouterr().err
  assert main(['list', data_dir]) == 0
  assert '  mnist/3.0.1\n' in capsys.readouterr().out
  assert main(['info', 'mnist', data_dir]) == 0
  output = capsys.readouterr().out
  assert 'train 20, test 10' in output and 'Image(shape=(28, 28, 1)' in output and output.count('checksum') == 2


def test_info_of_text(tmp_path, capsys):
  (tmp_path / 'input.txt').write_text('Friends, Romans, countrymen, lend me your ears')
  main(['build', 'tiny_shakespeare', f'--from={tmp_path}', f'--data_dir={tmp_path / "data"}'])
  main(['info', 'tiny_shakespeare', f'--data_dir={tmp_path / "data"}'])
  assert 'validation' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['--help'], ['build', '--help']])
def test_help_names_the_files_of_every_set(arguments, capsys):
  with pytest.raises(SystemExit) as stop:
    main(arguments)
  output = capsys.readouterr().out
  assert stop.value.code == 0 and 'example' in output
  for name in BUILDERS:
    assert name in output
  for file in ('train-images-idx3-ubyte', 'cifar-10-python.tar.gz', 'train_00.webp', 'input.txt'):
    assert file in output


@pytest.mark.parametrize('arguments', [[], ['build'], ['remove', 'mnist'], ['list', '--nothing']])
def test_usage_errors(arguments, capsys):
  with pytest.raises(SystemExit) as stop:
    main(arguments)
  assert stop.value.code == 2 and 'usage: genjax data' in capsys.readouterr().err


def test_unknown_set(tmp_path):
  with pytest.raises(UserError, match='did you mean'):
    main(['build', 'cifar11', f'--data_dir={tmp_path}'])
