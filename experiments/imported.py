"""What runs of public models have in common: files that came with the model, a tokenizer by path, and no data until
some is named."""

from collections.abc import Sequence
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Tokens
from genjax.types import UserError

PUBLIC = 'public.json'  # of an imported run: what its model came with, see `genjax.experiments.public`
# Further files of public models, which genjax gives back as they were; it may have read others that say the same.
CARRIED = ('generation_config.json', 'preprocessor_config.json', 'processor_config.json', 'special_tokens_map.json',
           'added_tokens.json', 'normalizer.json', 'spiece.model', 'tokenizer.model', 'vocab.txt', 'vocab.json',
           'merges.txt')


def folder(config: Config) -> pathlib.Path | None:
  """Where the files of the run are, if it keeps some that belong to the vocabulary that the config names."""
  kept = config_lib.plain(config.assets)
  same = kept.get('vocabulary') == config.data.get('vocabulary')
  return pathlib.Path(kept['folder']) if same and 'folder' in kept else None


def files(config: Config) -> dict[str, bytes]:
  """What a run of a public model, or one that goes on from it, keeps of what came with the model; name -> bytes."""
  return given(kept, (PUBLIC, *CARRIED)) if (kept := folder(config)) else {}


def folders(data: Config) -> tuple[str | None, str | None]:
  """Folders of prepared sets and of original files that config.data names, None for the usual ones."""
  return data.get('data_dir') or None, data.get('originals') or None


def given(where: pathlib.Path, names: tuple[str, ...]) -> dict[str, bytes]:
  """Those files of a folder that there are."""
  return {name: (where / name).read_bytes() for name in names if (where / name).is_file()}


def check_data(config: Config) -> None:
  """Checks that a config names data.

  Raises:
    UserError: it does not, as that of a run that was imported.
  """
  if not config.data.name:
    raise UserError(
      'this run has no data: name some with data.name, data.train and data.heldout (`--config.data.name=...` of train, '
      '`--set data.name=...` of evaluate)')


def sampler(config: Config, size: int, unused: Sequence[int] = ()) -> SamplerOptions:
  """The sampler of a config, which chooses none of the tokens of a padded vocabulary that no text has.

  Args:
    config: the whole config.
    size: of the vocabulary: tokens from this number on have no text.
    unused: tokens below it that have none.

  Raises:
    UserError: an unknown option, or a value out of its range.
  """
  given = {**config.sampler, **({'suppress': (*config.sampler.get('suppress', ()), *unused)} if unused else {})}
  return config_lib.build(SamplerOptions, given, 'config.sampler', vocabulary=size)


def check_size(config: Config, vocabulary: int, model: int, option: str) -> None:
  """Checks that a model has the tokens of its tokenizer; `option` is what sets the number of the model's.

  Raises:
    UserError: it has fewer.
  """
  if vocabulary > model:
    raise UserError(
      f'the tokenizer {config.data.vocabulary!r} has {vocabulary} tokens and the model {model}: set {option} '
      'to at least as many, or take the tokenizer that belongs to the model')


def tokens(config: Config, **more: Any) -> Tokens:
  """The tokens with a meaning of their own that config.data.tokens names; `more` are further fields of `Tokens`.

  Raises:
    UserError: one is beyond the vocabulary of the model.
  """
  found, size = Tokens(**config.data.tokens, **more), config.data.vocabulary_size
  if outside := [token for token in (found.start, found.stop, found.padding) if not 0 <= token < size]:
    raise UserError(f'config.data.tokens must be from 0 to {size - 1}, got {outside[0]}')
  return found
