"""Shared code for runs of public models: files of the model, a tokenizer by path, and no data at first."""

from collections.abc import Sequence
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Tokens
from genjax.types import UserError

PUBLIC = 'public.json'  # facts about the public model of an imported run, see `genjax.experiments.public`
# Further files of public models, which genjax exports unchanged.
CARRIED = ('generation_config.json', 'preprocessor_config.json', 'processor_config.json', 'special_tokens_map.json',
           'added_tokens.json', 'normalizer.json', 'spiece.model', 'tokenizer.model', 'vocab.txt', 'vocab.json',
           'merges.txt')


def folder(config: Config) -> pathlib.Path | None:
  """The folder of the run's files if they belong to the vocabulary of the config."""
  kept = config_lib.plain(config.assets)
  same = kept.get('vocabulary') == config.data.get('vocabulary')
  return pathlib.Path(kept['folder']) if same and 'folder' in kept else None


def files(config: Config) -> dict[str, bytes]:
  """The files of a public model that its runs, and runs that start from them, keep; name -> bytes."""
  return given(kept, (PUBLIC, *CARRIED)) if (kept := folder(config)) else {}


def folders(data: Config) -> tuple[str | None, str | None]:
  """Folders of prepared sets and of original files that config.data names, None for the usual ones."""
  return data.get('data_dir') or None, data.get('originals') or None


def given(where: pathlib.Path, names: tuple[str, ...]) -> dict[str, bytes]:
  """The files of a folder that exist."""
  return {name: (where / name).read_bytes() for name in names if (where / name).is_file()}


def check_data(config: Config) -> None:
  """Checks that a config names data.

  Raises:
    UserError: it does not, e.g. after an import.
  """
  if not config.data.name:
    raise UserError(
      'this run has no data: set data.name, data.train and data.heldout (`--config.data.name=...` of train, '
      '`--set data.name=...` of evaluate)')


def sampler(config: Config, size: int, unused: Sequence[int] = ()) -> SamplerOptions:
  """The sampler of a config. It never draws tokens without text.

  Args:
    config: the whole config.
    size: size of the vocabulary: tokens from this number on have no text.
    unused: tokens below it without text.

  Raises:
    UserError: an option is unknown or out of range.
  """
  given = {**config.sampler, **({'suppress': (*config.sampler.get('suppress', ()), *unused)} if unused else {})}
  return config_lib.build(SamplerOptions, given, 'config.sampler', vocabulary=size)


def check_size(config: Config, vocabulary: int, model: int, option: str) -> None:
  """Checks that a model has all tokens of its tokenizer; `option` sets their number in the model.

  Raises:
    UserError: it has fewer.
  """
  if vocabulary > model:
    raise UserError(
      f'the tokenizer {config.data.vocabulary!r} has {vocabulary} tokens and the model {model}: set {option} '
      'to at least as many, or take the tokenizer that belongs to the model')


def tokens(config: Config, **more: Any) -> Tokens:
  """The special tokens of config.data.tokens; `more` are further fields of `Tokens`.

  Raises:
    UserError: a token is outside the vocabulary of the model.
  """
  found, size = Tokens(**config.data.tokens, **more), config.data.vocabulary_size
  if outside := [token for token in (found.start, found.stop, found.padding) if not 0 <= token < size]:
    raise UserError(f'config.data.tokens must be from 0 to {size - 1}, got {outside[0]}')
  return found
