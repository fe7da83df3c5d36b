"""Sums by the builder of encoder-decoders: letters as tokens, disjoint splits, whole answers, what is refused."""

import jax
import numpy as np
import pytest

from genjax.configs.language import additions
from genjax.data.text import parallel
from genjax.data.text.words import STOP
from genjax.experiments import seq2seq
from genjax.objectives.base import Context
from genjax.types import UserError

SIDES = ('question', 'answer')


@pytest.fixture
def few(monkeypatch):
  """The first 64 sums of each split: reading all takes a second."""
  whole = parallel.additions
  monkeypatch.setitem(seq2seq.GENERATED, 'additions', lambda split, languages: tuple(
    side[:64] for side in whole(split, languages)))


def test_splits_are_disjoint_and_have_every_sum_once():
  train, heldout = (parallel.additions(split, SIDES) for split in ('train', 'heldout'))
  assert len(train[0]) == 90_050 and len(heldout[0]) == 5_000
  assert len({*train[0], *heldout[0]}) == 95_050
  for question, answer in zip(*heldout):
    first, second = map(int, question.split('+'))
    assert first <= min(second, 99) and second < 1000 and int(answer) == first + second
  assert parallel.additions('heldout', SIDES[::-1]) == heldout[::-1]


@pytest.mark.parametrize(('split', 'languages', 'words'), [('test', SIDES, 'has the splits'),
                                                           ('train', ('de', 'answer'), 'has the languages')])
def test_unknown_splits_and_languages_are_refused(split, languages, words):
  with pytest.raises(UserError, match=words):
    parallel.additions(split, languages)


def test_letters_are_tokens_and_come_back_as_they_were(few):
  experiment = seq2seq.build(additions.get_config('smoke').lock())
  source = experiment.conditions['source'].parse('12+345')
  assert len(source) == 8 and experiment.example['source'].shape == (8,)
  kept = {'source': source[None], 'tokens': source[None]}
  assert experiment.render(kept)['samples'].splitlines()[0] == '12+345'


def test_exact_counts_whole_answers(few):
  experiment = seq2seq.build(additions.get_config('smoke').lock())
  right = experiment.heldout.source.get(np.arange(64))['target']
  wrong = np.array(right)
  wrong[:16, 0] = np.where(wrong[:16, 0] == 4, 5, 4)  # another first letter
  values = [experiment.metrics[0].compute(lambda num, conditions, drawn=drawn: {'tokens': drawn[:num]}, 0)['exact']
            for drawn in (right, wrong)]
  assert values == [1.0, 0.75]


def test_beams_find_at_least_as_likely_sums(few):
  """The cache of an LSTM may be reordered, as that of a transformer."""
  config = additions.get_config('smoke')
  config.model.hidden = 8
  found = {}
  for beams in (1, 4):
    config.sampler.beams = beams
    objective = seq2seq.build(config).objective
    variables = objective.init(jax.random.key(0), {})
    params = jax.tree.map(lambda leaf: 3 * leaf, variables.params)
    source = seq2seq.build(config).conditions['source'].parse('1+23')[None]
    context, keys = Context(0, variables.mutable, {}, {}), jax.random.split(jax.random.key(0), 1)
    tokens = jax.jit(objective.sample)(params, context, keys, {'source': source})['tokens']
    weights = np.cumsum(np.cumsum(np.asarray(tokens) == STOP, axis=1), axis=1) <= 1  # up to the first stop token
    values = jax.jit(objective.evaluate)(params, context, {
      'source': source, 'target': tokens, 'target_weights': weights.astype(np.float32)}, jax.random.key(0))
    found[beams] = float(values['loss'][0])
  assert found[4] <= found[1] + 1e-5


def test_an_lstm_is_no_part_of_other_runs_and_is_not_exported(few):
  config = additions.get_config('smoke').lock()
  experiment = seq2seq.build(config)
  for use in (lambda: seq2seq.text_encoder(config, experiment), lambda: seq2seq.model_options(config, 5, 5)):
    with pytest.raises(UserError, match="only the model 'transformer' can be exported"):
      use()


def test_unknown_models_and_options_of_another_are_refused(few):
  config = additions.get_config('smoke')
  config.model.name = 'gru'
  with pytest.raises(UserError, match='config.model.name'):
    seq2seq.build(config)
  config = additions.get_config('smoke')
  config.model.heads = 2
  with pytest.raises(UserError, match='heads'):
    seq2seq.build(config)
