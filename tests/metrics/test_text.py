"""BLEU, ROUGE and word error rate on texts small enough to count by hand."""

import math

import numpy as np
import pytest

from genjax.metrics import text
from genjax.types import UserError


def words(*texts):
  return [one.split() for one in texts]


def test_bleu_by_hand():
  """Papineni et al. 2002: 'the' is clipped; all lengths and n-grams are summed before they are divided."""
  candidates = words('the the the the the the the', 'a cat sat on the mat')
  references = [words('the cat is on the mat', 'there is a cat on the mat'), words('a cat sat on the mat today')]
  found = text.bleu(candidates, references)
  assert found.precisions == (8 / 13, 5 / 11, 4 / 9, 3 / 7)
  assert found.length_ratio == 13 / 14 and found.brevity_penalty == pytest.approx(math.exp(1 - 14 / 13))
  assert found.score == pytest.approx(found.brevity_penalty * (8 * 5 * 4 * 3 / (13 * 11 * 9 * 7)) ** 0.25)
  assert text.bleu(candidates[:1], references[:1], order=1).score == pytest.approx(2 / 7)


def test_bleu_of_equal_longer_and_empty_texts():
  same = words('one two three four', 'five six seven eight nine')
  assert text.bleu(same, [[one] for one in same]) == (1.0, (1.0,) * 4, 1.0, 1.0)
  assert text.bleu(words('one two three four five'), [words('one two three four')]).brevity_penalty == 1.0
  assert text.bleu(words('one two three'), [words('one two three')]).score == 0.0  # it has no 4-gram
  assert text.bleu([[]], [words('one')]) == (0.0, (0.0,) * 4, 0.0, 0.0)


def test_bleu_agrees_with_sacrebleu():
  sacrebleu = pytest.importorskip('sacrebleu')
  candidates = [
    'a man rides a bike on the street .', 'two dogs play in the snow', 'the girl in a red dress is singing loudly'
  ]
  references = [
    'a man is riding a bike down the street .', 'two brown dogs play in snow', 'a girl in a red dress is singing'
  ]
  ours = text.bleu(words(*candidates), [[reference.split()] for reference in references])
  assert 100 * ours.score == pytest.approx(
    sacrebleu.corpus_bleu(candidates, [references], tokenize='none', smooth_method='none').score)
  score, signature = text.sacrebleu(['A Cat sat on the mat.'], ['a cat sat on the mat.'], lowercase=True)
  assert score == pytest.approx(100) and 'case:lc' in signature and 'version:' in signature
  assert text.sacrebleu(['A Cat sat on the mat.'], ['a cat sat on the mat.'])[0] < 90


def test_word_error_rate_and_rouge_by_hand():
  candidates, references = words('the cat sat on mat', 'x'), words('the cat is on the mat', 'y')
  assert [text.edits(*pair) for pair in zip(candidates, references)] == [2, 1]
  assert text.word_error_rate(candidates, references) == 3 / 7
  assert text.rouge(candidates, references, 1) == pytest.approx((2 * 4 / 11 + 0) / 2)
  assert text.rouge(candidates[:1], references[:1], 2) == pytest.approx(2 * 1 / 9)
  assert text.rouge(candidates[:1], references[:1]) == pytest.approx(2 * 4 / 11)
  assert text.rouge(words('a b c'), words('c b a')) == pytest.approx(1 / 3)
  assert text.rouge([[]], [[]]) == 1.0


@pytest.mark.parametrize(
  'measure', [lambda *sides: text.bleu(sides[0], [[side] for side in sides[1]]), text.rouge, text.word_error_rate])
def test_what_does_not_fit_is_refused(measure):
  for candidates, references in (([], []), (words('a'), words('a', 'b'))):
    with pytest.raises(UserError, match='as many references as candidates'):
      measure(candidates, references)


def test_empty_references_are_refused():
  with pytest.raises(UserError, match='one has none'):
    text.bleu(words('a'), [[]])
  with pytest.raises(UserError, match='empty ones only'):
    text.word_error_rate(words('a'), [[]])


def test_loss_of_sorted_batches():
  """Batches as torchtext's iterator makes them: in the order of interleaved lengths, each a mean over tokens, all
  alike."""
  source, target = np.array([5, 1, 3, 2]), np.array([2, 1, 6, 3])
  # In binary 101 and 010 -> 100110, 001 and 001 -> 000011, 011 and 110 -> 011110, 010 and 011 -> 001101: rows 1, 3, 2,
  # 0.
  loss = np.array([1.0, 2.0, 3.0, 4.0])
  expected = ((2.0 * 2 + 4.0 * 4) / 6 + (3.0 * 7 + 1.0 * 3) / 10) / 2
  assert text.sorted_batches_loss(loss, source, target, 2) == pytest.approx(expected)
  assert text.sorted_batches_loss(loss, source, target, 4) == pytest.approx(
    (2.0 * 2 + 4.0 * 4 + 3.0 * 7 + 1.0 * 3) / 16)
