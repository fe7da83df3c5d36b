"""The data sets and public weights of baselines: whether they are there, and how sets are made from original files
before a run begins."""

from collections.abc import Iterable
import dataclasses
import pathlib

from genjax.data.prepared import prepare
from genjax.types import UserError, listed

WEIGHTS = 'weights'  # the folder of converted weights, beside those of rows


@dataclasses.dataclass(frozen=True)
class Set:
  """A data set that does not come with an installed package.

  Attributes:
    folders: names that the folder of its original files may have below the one of --from.
    marker: pattern of a file in it.
    in_place: whether it is read where it is, from config.data.originals, and not prepared once for all runs.
  """

  folders: tuple[str, ...]
  marker: str
  in_place: bool = False


SETS = {
  'mnist': Set(('mnist',), 't10k-images*'),
  'fashion_mnist': Set(('fashion_mnist', 'fashion-mnist', 'dataset-fashion-mnist'), 't10k-images*'),
  'cifar10': Set(('cifar10', 'cifar-10'), '*test*'),
  'tiny_shakespeare': Set(('tiny_shakespeare', 'tinyshakespeare'), 'input.txt'),
  'names': Set(('names',), 'names.txt'),
  'shuffled_names': Set(('shuffled_names', 'names'), 'names.txt'),
  'multi30k': Set(('multi30k',), 'train.*'),
  'sst2': Set(('sst2', 'sst'), 'stsa.binary.*'),
  'jsb_chorales': Set(('jsb_chorales', 'jsb-chorales'), '*quarter.json'),
  'lpc_sprites': Set(('lpc_sprites', 'lpc-sprites'), 'bottomwear'),
  'lpc_sprites_orcs': Set(('lpc_sprites_orcs', 'lpc-sprites'), 'bottomwear'),
  'lpc_sprites_full': Set(('lpc_sprites_full', 'lpc-sprites'), 'bottomwear'),
  'emoji_noto_all': Set(('emoji_noto_all', 'emoji-noto'), 'noto_emoji_64.webp'),
  'free_spoken_digits': Set(('free_spoken_digits', 'free-spoken-digit-dataset', 'fsdd', 'recordings'), '*.[nw][pa][zv]',
                            in_place=True),
}


def folder(name: str, originals: pathlib.Path | None) -> pathlib.Path | None:
  """Where the original files of a set are below the folder of --from, or None."""
  if originals is None:
    return None
  found = SETS[name]
  for place in [originals / known for known in found.folders] + [originals]:
    if place.is_dir() and any(place.glob(found.marker)):
      return place
  return None


def lacking(name: str, originals: pathlib.Path | None) -> str:
  """Why a set cannot be read as it is, '' if it can; nothing is prepared or fetched."""
  if folder(name, originals) is not None:
    return ''
  if SETS[name].in_place:
    return f'{name} is not below --from ({" or ".join(SETS[name].folders)})'
  if prepare.prepared(name) is None:
    return f'{name} is not prepared in {prepare.data_directory()}'
  return ''


def make(names: Iterable[str], originals: pathlib.Path | None) -> dict[str, str]:
  """Prepares data sets, from their original files or by download.

  Args:
    names: of the sets.
    originals: the folder of --from.

  Returns:
    Why sets are missing, by name.
  """
  missing = {}
  for name in names:
    place = folder(name, originals)
    if SETS[name].in_place:
      if place is None:
        missing[name] = f'{name} is read from its original files; name the folder that holds them: --from=FOLDER'
      continue
    try:
      prepare.open_builder(name, None, place)
    except UserError as error:
      missing[name] = str(error)
  return missing


def weights(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Where the converted weights of a public network are, in the folder of all rows."""
  return workdir.absolute() / WEIGHTS / name


def no_weights(workdir: pathlib.Path, name: str) -> str:
  """Why a row cannot read weights, with the command that makes them; '' where they are."""
  place = weights(workdir, name)
  if (place / 'config.json').is_file():
    return ''
  return (f'it needs the weights {name}; convert them once (docs/extractors.md says from which file): genjax import '
          f'--from=FILE --as={name} --to={place}')


def check_names(names: Iterable[str]) -> None:
  """Checks that data sets are known.

  Raises:
    UserError: one is not.
  """
  if unknown := sorted(set(names) - set(SETS)):
    raise UserError(f'rows name the data sets {listed(unknown, 5)}; known are {sorted(SETS)}')
