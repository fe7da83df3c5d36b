"""Parallel text: pairs of sentences as padded columns 'source' and 'target', for translation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genjax.data import sources
from genjax.data.prepared import originals, prepare
from genjax.data.sources import Arrays
from genjax.types import UserError, expanded

DIGITS = {
  'de': ('null', 'eins', 'zwei', 'drei', 'vier', 'fünf', 'sechs', 'sieben', 'acht', 'neun'),
  'en': ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
  'fr': ('zéro', 'un', 'deux', 'trois', 'quatre', 'cinq', 'six', 'sept', 'huit', 'neuf'),
}

ADDITIONS_HELDOUT = 5_000  # pairs of numbers that are held out


def read_parallel(source: prepare.Path, target: prepare.Path) -> tuple[list[str], list[str]]:
  """Reads the lines of two text files, optionally .gz; line n of one is the translation of line n of the other.

  Raises:
    UserError: see `genjax.data.prepared.originals.read_parallel`.
  """
  source_lines, target_lines = originals.read_parallel([expanded(source), expanded(target)])
  return source_lines, target_lines


def open_parallel(name: str, split: str, languages: tuple[str, str], data_dir: prepare.Path | None = None,
                  folder: prepare.Path | None = None) -> tuple[list[str], list[str]]:
  """Reads the sentences of two text features of a TFDS data set, such as ('de', 'en') of 'multi30k'.

  Args:
    name, split, data_dir: see `open_tfds`.
    languages: names of the features.
    folder: of original files.

  Raises:
    UserError: the data set, split or language does not exist.
  """
  builder = prepare.open_builder(name, data_dir, folder)
  features: Any = builder.info.features
  if unknown := [language for language in languages if language not in features]:
    raise UserError(f'{name} has no feature {unknown[0]!r}; it has {", ".join(sorted(features))}')
  source, target = (sources.read_texts(builder, split, language) for language in languages)
  return source, target


def spoken_digits(split: str, languages: tuple[str, str], size: int = 512) -> tuple[list[str], list[str]]:
  """Numbers of one to eight digits, spelled digit by digit: translation data that needs no files.

  Args:
    split: 'train' or 'validation', which are disjoint.
    languages: keys of `DIGITS`.
    size: number of sentences of the split.

  Raises:
    UserError: the split or language is unknown.
  """
  parities = {'train': 0, 'validation': 1}
  if split not in parities:
    raise UserError(f'spoken_digits has the splits {tuple(parities)}, got {split!r}')
  if unknown := [language for language in languages if language not in DIGITS]:
    raise UserError(f'spoken_digits knows the languages {tuple(DIGITS)}, got {unknown[0]!r}')
  generator = np.random.default_rng(0)
  numbers: list[np.ndarray] = []
  while len(numbers) < size:
    digits = generator.integers(0, 10, generator.integers(1, 9))
    if digits.sum() % 2 == parities[split]:
      numbers.append(digits)
  source, target = (
    [' '.join(DIGITS[language][digit] for digit in digits) for digits in numbers] for language in languages)
  return source, target


def additions(split: str, languages: tuple[str, str]) -> tuple[list[str], list[str]]:
  """All sums a+b of a number below 100 and one below 1,000, the smaller one first: '12+345' and '357'.

  They are the additions of flax' example seq2seq, which draws both numbers evenly. Here each of the 95,050 pairs occurs
  once, in an order of its own; the last `ADDITIONS_HELDOUT` are held out.

  Args:
    split: 'train' or 'heldout', which are disjoint.
    languages: of source and target: 'question' or 'answer'.

  Raises:
    UserError: the split or language is unknown.
  """
  parts = {'train': slice(None, -ADDITIONS_HELDOUT), 'heldout': slice(-ADDITIONS_HELDOUT, None)}
  if split not in parts:
    raise UserError(f'additions has the splits {tuple(parts)}, got {split!r}')
  pairs = np.asarray([(a, b) for a in range(100) for b in range(a, 1000)])
  chosen = np.random.default_rng(0).permutation(pairs)[parts[split]].tolist()
  texts = {'question': [f'{a}+{b}' for a, b in chosen], 'answer': [str(a + b) for a, b in chosen]}
  if unknown := [language for language in languages if language not in texts]:
    raise UserError(f'additions has the languages {tuple(texts)}, got {unknown[0]!r}')
  return texts[languages[0]], texts[languages[1]]


def parallel(pairs: tuple[Sequence[str], Sequence[str]],
             encode: tuple[Callable[[str], np.ndarray], Callable[[str], np.ndarray]], lengths: tuple[int, int],
             pad_ids: tuple[int, int] = (0, 0), facts: Mapping[str, Any] | None = None) -> Arrays:
  """Makes a source of examples from pairs of sentences.

  Pairs with more tokens than the length on one side are dropped; the fingerprint has their number.

  Args:
    pairs: source and target sentences.
    encode: for each side, text -> integers (T,).
    lengths: lengths S and T of the columns in tokens.
    pad_ids: padding token of each side.
    facts: facts for the fingerprint.

  Returns:
    'source' int32 (N, S), 'target' int32 (N, T), and 'source_weights', 'target_weights', float32 of the same shapes, 1
    on tokens.

  Raises:
    UserError: no pair fits.
  """
  sides = [[function(text) for text in texts] for function, texts in zip(encode, pairs, strict=True)]
  fits = [all(len(tokens) <= length for tokens, length in zip(pair, lengths)) for pair in zip(*sides, strict=True)]
  if not any(fits):
    raise UserError(f'none of the {len(fits)} pairs of sentences has at most {lengths} tokens; increase these lengths')
  columns = {}
  for name, side, length, pad_id in zip(('source', 'target'), sides, lengths, pad_ids):
    chosen = [tokens for tokens, fit in zip(side, fits) if fit]
    columns[name], columns[f'{name}_weights'] = pad(chosen, length, pad_id)
  return Arrays(columns, {**(facts or {}), 'left_out': fits.count(False)})


def pad(rows: Iterable[np.ndarray], length: int, pad_id: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Pads rows to int32 (N, T), with weights, float32 (N, T): 1 on tokens, 0 on padding.

  Raises:
    UserError: a row has more than `length` tokens.
  """
  rows = list(rows)
  sizes_N = np.asarray([len(row) for row in rows], int)
  if len(rows) and sizes_N.max() > length:
    raise UserError(f'row {sizes_N.argmax()} has {sizes_N.max()} tokens, more than the length {length}')
  mask_NT = np.arange(length) < sizes_N[:, None]
  tokens_NT = np.full((len(rows), length), pad_id, np.int32)
  tokens_NT[mask_NT] = np.concatenate([np.asarray(row, np.int32) for row in rows]) if rows else ()
  return tokens_NT, mask_NT.astype(np.float32)
