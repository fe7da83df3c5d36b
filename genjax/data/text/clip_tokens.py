"""The tokenizer of CLIP (Radford et al. 2021), from tokenizer.json or from vocab.json and merges.txt."""

import json
import os
import pathlib

import tokenizers as library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from genjax.data.text.tokenizers import LIBRARY, SETTINGS, Pieces, open_tokenizer
from genjax.types import UserError

VOCABULARY, MERGES = 'vocab.json', 'merges.txt'
START, END = '<|startoftext|>', '<|endoftext|>'
_SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # the published pattern, for lower case


def open_clip_tokenizer(folder: str | os.PathLike[str]) -> tuple[Pieces, int, int, int]:
  """The tokenizer in a folder of a public CLIP.

  Returns:
    The tokenizer, and its tokens for the start, the end and padding.

  Raises:
    UserError: there is no tokenizer, or it lacks the tokens for start and end.
  """
  folder = pathlib.Path(folder)
  if not (folder / LIBRARY).is_file() and (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
    path = folder / SETTINGS
    found = Pieces(_of_files(folder), path.read_text('utf-8-sig') if path.is_file() else '', str(folder / VOCABULARY))
  elif (folder / LIBRARY).is_file():
    found = open_tokenizer(folder / LIBRARY)
  else:
    raise UserError(f'{folder} has no tokenizer of CLIP: expected {LIBRARY}, or {VOCABULARY} and {MERGES}')
  assert isinstance(found, Pieces)
  ends = [found.encode(text) for text in (START, END)]
  if any(len(tokens) != 1 for tokens in ends):
    raise UserError(f'{folder}: its tokenizer has not the tokens {START} and {END} of CLIP')
  start, end = (int(tokens[0]) for tokens in ends)
  return found, start, end, found.special.get('pad', end)


def _of_files(folder: pathlib.Path) -> str:
  """The tokenizer.json of the two older files."""
  try:
    vocabulary = json.loads((folder / VOCABULARY).read_text('utf-8-sig'))
    lines = (folder / MERGES).read_text('utf-8-sig').splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith('#version')]
    made = library.Tokenizer(models.BPE(vocabulary, [(left, right) for left, right in pairs],
                                        end_of_word_suffix='</w>', unk_token=END))
  except Exception as error:  # the library raises no narrower type
    raise UserError(f'{folder}: {VOCABULARY} and {MERGES} are no tokenizer of CLIP: {error}') from None
  made.normalizer = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(library.Regex(r'\s+'), ' '), normalizers.Lowercase()])
  made.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(library.Regex(_SPLIT), behavior='removed', invert=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False)])
  made.decoder = decoders.BPEDecoder(suffix='</w>')
  made.add_special_tokens([token for token in (START, END) if token in vocabulary])
  return made.to_str()
