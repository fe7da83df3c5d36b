"""Metrics of generated text against references: BLEU, ROUGE and word error rate.

Texts are sequences of words or other hashable pieces.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
import math
from typing import NamedTuple

import numpy as np

from genjax.types import UserError

Words = Sequence[Hashable]


class Bleu(NamedTuple):
  """Corpus BLEU and what it is made of.

  score: in [0, 1]. precisions: of n-grams for n = 1 .. order. brevity_penalty: 1 where the candidates are as long as
    the references.
  length_ratio: words of the candidates by those of the references.
  """

  score: float
  precisions: tuple[float, ...]
  brevity_penalty: float
  length_ratio: float


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4) -> Bleu:
  """Corpus BLEU (Papineni et al. 2002) without smoothing, as in `torchtext`: 0 if no n-gram of some n matches.

  Args:
    candidates: texts.
    references: the references of each candidate. The one nearest in length (the shorter of two) counts for brevity.
    order: largest n of n-grams; all n have the same weight.

  Raises:
    UserError: there are no candidates, the numbers of candidates and lists of references differ, or a list is empty.
  """
  _check(candidates, references)
  matches, totals, length, reference_length = [0] * order, [0] * order, 0, 0
  for candidate, texts in zip(candidates, references):
    length += len(candidate)
    reference_length += min((len(text) for text in texts), key=lambda size: (abs(size - len(candidate)), size))
    for n in range(1, order + 1):
      found, most = ngrams(candidate, n), Counter()
      for text in texts:
        most |= ngrams(text, n)
      matches[n - 1] += (found & most).total()
      totals[n - 1] += found.total()
  precisions = tuple(match / total if total else 0.0 for match, total in zip(matches, totals))
  penalty = math.exp(min(0.0, 1.0 - reference_length / length)) if length else 0.0
  score = penalty * math.exp(sum(map(math.log, precisions)) / order) if all(precisions) else 0.0
  return Bleu(score, precisions, penalty, length / reference_length if reference_length else math.inf)


def rouge(candidates: Sequence[Words], references: Sequence[Words], n: int = 0) -> float:
  """Mean F1 of ROUGE-n (overlap of n-grams), or with n = 0 of ROUGE-L (longest common subsequence), in [0, 1].

  Source: Lin 2004.

  Args:
    candidates, references: texts, one reference per candidate. Two empty texts are equal.
    n: length of n-grams.

  Raises:
    UserError: there are no texts, or the numbers differ.
  """
  _check(candidates, [[reference] for reference in references])
  scores = []
  for candidate, reference in zip(candidates, references):
    if n:
      shared = (ngrams(candidate, n) & ngrams(reference, n)).total()
      sizes = [max(0, len(text) - n + 1) for text in (candidate, reference)]
    else:
      shared, sizes = _common(candidate, reference), [len(candidate), len(reference)]
    scores.append(2 * shared / sum(sizes) if sum(sizes) else 1.0)
  return sum(scores) / len(scores)


def word_error_rate(candidates: Sequence[Words], references: Sequence[Words]) -> float:
  """Word error rate: edits (insertions, deletions, substitutions) per word of the references.

  Raises:
    UserError: there are no texts, the numbers differ, or the references have no words.
  """
  _check(candidates, [[reference] for reference in references])
  if not (words := sum(map(len, references))):
    raise UserError('word error rate needs references with words, got empty ones only')
  return sum(map(edits, candidates, references)) / words


def edits(candidate: Words, reference: Words) -> int:
  """Levenshtein distance."""
  row = list(range(len(reference) + 1))
  for index, word in enumerate(candidate, 1):
    before, row[0] = row[0], index
    for place, other in enumerate(reference, 1):
      before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
  return row[-1]


def ngrams(text: Words, n: int) -> Counter:
  """Counts the n-grams of a text."""
  return Counter(zip(*(text[start:] for start in range(n))))


def check_sacrebleu() -> None:
  """Checks that the package of `sacrebleu` is installed.

  Raises:
    UserError: it is not installed.
  """
  try:
    import sacrebleu.metrics.bleu  # noqa: F401
  except ImportError:
    raise UserError(
      "this measure needs sacrebleu, which is not installed: pip install 'genjax-research[text]' (or pip install "
      'sacrebleu)') from None


def sacrebleu(candidates: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[float, str]:
  """BLEU of texts as `sacrebleu` computes it (Post 2018), in [0, 100], and its signature.

  Args:
    candidates, references: untokenized texts, one reference per candidate.
    lowercase: ignores case.

  Raises:
    UserError: sacrebleu is not installed, or the numbers differ.
  """
  _check(candidates, [[reference] for reference in references])
  check_sacrebleu()
  from sacrebleu.metrics.bleu import BLEU
  measure = BLEU(lowercase=lowercase)
  score = measure.corpus_score(list(candidates), [list(references)]).score
  return score, str(measure.get_signature())


def _common(first: Words, second: Words) -> int:
  """Length of the longest common subsequence."""
  row = [0] * (len(second) + 1)
  for word in first:
    before = 0
    for place, other in enumerate(second, 1):
      before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
  return row[-1]


def _check(candidates: Sequence, references: Sequence[Sequence]) -> None:
  if not len(candidates) or len(candidates) != len(references):
    raise UserError(f'expected as many references as candidates and at least one, got {len(candidates)} candidates and '
                    f'{len(references)} references')
  if not all(len(texts) for texts in references):
    raise UserError('every candidate needs a reference, but one has none')


def sorted_batches_loss(loss_N: np.ndarray, source_N: np.ndarray, target_N: np.ndarray, batch: int) -> float:
  """The mean over batches of similar lengths of the loss per target token, batched as by torchtext's iterators.

  Batches have equal weight whatever their lengths, so this differs from the mean over all tokens. Sentences are sorted
  by the interleaved bits of both lengths, source first (`torchtext.data.interleave_keys`).

  Args:
    loss_N: mean loss of each target per token.
    source_N, target_N: lengths without start and stop tokens; the weight of a target includes its stop token.
    batch: sentences per batch; the last batch may have fewer.
  """
  order_N = sorted(range(len(loss_N)), key=lambda row: _interleaved(int(source_N[row]), int(target_N[row])))
  parts = [np.asarray(order_N[start:start + batch]) for start in range(0, len(order_N), batch)]
  return float(np.mean([np.average(loss_N[part], weights=target_N[part] + 1) for part in parts]))


def _interleaved(first: int, second: int) -> int:
  """The interleaved bits of two numbers, beginning with the highest bit of the first."""
  return int(''.join(bits for pair in zip(f'{first:032b}', f'{second:032b}') for bits in pair), 2)
