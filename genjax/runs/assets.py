"""What a run found in its data and keeps: facts in config.json under `assets`, and files beside it that these name."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import ml_collections

from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import atomic, builders, defaults
from genjax.types import UserError

FILES = 'files'  # the asset that lists [name, SHA-256]
# What the files of every run have, by which those of others, such as the config.json of a public model, are told apart.
NEEDED = {
  'config.json': ('experiment', 'steps', 'batch_size', 'seed', 'checkpoint', 'optimizers'),
  'run.json': ('paths', 'data')
}
FOLDER = 'folder'  # the asset that says, in memory only, where these files are


def read_json(path: pathlib.Path) -> Any:
  """A JSON file of a run.

  Raises:
    UserError: it is missing or damaged.
  """
  try:
    found = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise UserError(
      f'{path.parent} is no run directory: {path.name} is missing; expected the --workdir of a `genjax train`'
    ) from error
  except NotADirectoryError as error:
    raise UserError(f'{path.parent} is a file; expected the --workdir of a `genjax train`, a folder') from error
  except ValueError as error:
    raise UserError(f'{path} is damaged: {error}') from error
  if lacking := [name for name in NEEDED.get(path.name, ()) if not isinstance(found, dict) or name not in found]:
    raise UserError(
      f'{path} is damaged, or no file of a run: it has no {lacking[0]!r}. A public model becomes a run by genjax import'
    )
  return found


def read(workdir: pathlib.Path) -> dict[str, Any]:
  """The assets of a run, with the folder of its files if it has any.

  Raises:
    UserError: no run directory, or a file that is missing, damaged or elsewhere.
  """
  assets = read_json(workdir / 'config.json').get('assets', {})
  for name, expected in assets.get(FILES, ()):
    if pathlib.PurePath(name).name != name:
      raise UserError(f'{workdir / "config.json"} names a file outside of its folder: {name!r}')
    try:
      data = (workdir / name).read_bytes()
    except OSError as error:
      raise UserError(
        f'{workdir / name} belongs to the run and cannot be read: {error.strerror}; restore it from a copy') from error
    if atomic.checksum(data) != expected:
      raise UserError(f'{workdir / name} is not the file that the run began with; restore it from a copy')
  return {**assets, FOLDER: str(workdir.absolute())} if assets.get(FILES) else assets


def read_config(workdir: pathlib.Path) -> Config:
  """The config of a run, assets included.

  That of a run from before a key existed gets the key with its default, and the present name of its builder.

  Raises:
    UserError: see `read`.
  """
  config = config_lib.from_plain(read_json(workdir / 'config.json'))
  defaults.fill(config)
  with config.unlocked():
    config.experiment = builders.current_name(config.experiment, [str(workdir), *_paths(workdir)])
  put(config, read(workdir))
  return config


def _paths(workdir: pathlib.Path) -> list[str]:
  """Folders from which the builder was imported."""
  return read_json(workdir / 'run.json')['paths'] if (workdir / 'run.json').is_file() else []


def put(config: Config, assets: Mapping[str, Any]) -> None:
  """Sets `config.assets`."""
  with config.unlocked():
    config.assets = ml_collections.ConfigDict(dict(assets))


def contents(workdir: pathlib.Path, config: Config) -> dict[str, bytes]:
  """The files of a run."""
  return {name: (workdir / name).read_bytes() for name, _ in config.assets.get(FILES, ())}


def described(assets: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
  """The assets that config.json holds for facts and files."""
  digests = [[name, atomic.checksum(data)] for name, data in sorted(files.items())]
  return {**assets, **({FILES: digests} if files else {})}
