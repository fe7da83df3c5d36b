"""Choosing tokens: options of drawing, ends of texts, beams, prompts of several lengths."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.transformers import decoder as models
from genjax.objectives.base import Context
from genjax.objectives.decoding import END, SamplerOptions, draw, penalise, seen
from genjax.objectives.language import LanguageModel, segment_positions
from genjax.types import UserError

SIZES = dict(vocab=7, context=24, layers=2, heads=2, width=8, mlp_width=16)
CONFIGS = {'rope': models.llama(**SIZES, kv_heads=1, window=5), 'learned': models.TransformerConfig(**SIZES),
           'unrolled': models.llama(**SIZES, unroll=True)}
CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})


@functools.cache
def large(config):
  """Parameters that are large, so that the likeliest token changes with the text."""
  return jax.tree.map(lambda leaf: 4 * leaf, jax.jit(models.transformer(config).init)(jax.random.key(0))[0])


def sampled(config, prompts, keys=None, params=None, emit=None, **options):
  """Texts of a model whose weights are large, so that the likeliest token changes with the text."""
  objective = LanguageModel(models.transformer(config), functools.partial(models.init_cache, config), config.context,
                            SamplerOptions(**options), lay_out=functools.partial(models.lay_out, config))
  params = params or {'net': large(config)}
  keys = jax.random.split(jax.random.key(1), len(prompts)) if keys is None else keys
  rows = jax.jit(functools.partial(objective.sample, emit=emit))(params, CONTEXT, keys,
                                                                 {'prompt': jnp.asarray(prompts)})['tokens']
  return np.asarray(rows)


def best_text(config, params, prompt, length, stop, penalty):
  """The continuation of the highest score, of all that there are."""
  texts_XT = np.array(list(itertools.product(range(config.vocab), repeat=length)))
  whole = jnp.asarray(np.concatenate([np.tile(prompt, (len(texts_XT), 1)), texts_XT], axis=1))
  logits_XTV = jax.jit(models.transformer(config).apply)(params, {}, whole[:, :-1])[0][:, len(prompt) - 1:]
  scores_XT = np.cumsum(
    np.take_along_axis(np.asarray(jax.nn.log_softmax(logits_XTV)), texts_XT[:, :, None], axis=2)[:, :, 0], axis=1)
  sizes_X = [text.index(stop) + 1 if stop in text else length for text in texts_XT.tolist()]
  best = max(range(len(texts_XT)), key=lambda index: scores_XT[index, sizes_X[index] - 1] / sizes_X[index] ** penalty)
  return texts_XT[best, :sizes_X[best]].tolist()


def test_min_p_keeps_a_share_of_the_likeliest():
  logits_V = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
  keys = jax.random.split(jax.random.key(0), 20_000)
  tokens = draw(jnp.tile(logits_V, (len(keys), 1)), keys, SamplerOptions(min_p=0.25))
  np.testing.assert_allclose(
    np.bincount(tokens, minlength=4) / len(keys),
    np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.015)


def test_penalised_scores():
  marks = seen(jnp.array([[2, END, 0]]), 4)
  np.testing.assert_array_equal(marks, [[True, False, True, False]])
  np.testing.assert_allclose(penalise(jnp.array([[2.0, 2.0, -1.0, -1.0]]), marks, 2.0), [[1.0, 2.0, -2.0, -1.0]])


def test_the_penalty_counts_prompt_and_new_tokens():
  config = CONFIGS['learned']
  network = models.transformer(config)
  params = large(config)
  forward = jax.jit(network.apply)
  text = [1, 5]
  for size in range(2, 14):
    logits_V = np.asarray(forward(params, {}, jnp.asarray([text + [0] * (14 - size)]))[0][0, size - 1], np.float64)
    had = np.isin(np.arange(7), text)
    text.append(int(np.argmax(np.where(had, np.where(logits_V > 0, logits_V / 1.7, logits_V * 1.7), logits_V))))
  rows = sampled(config, [[1, 5], [2, END]], params={'net': params}, length=12, temperature=0, repetition_penalty=1.7)
  assert rows[0].tolist() == text and rows[0].tolist() != sampled(config, [[1, 5]], length=12,
                                                                  temperature=0)[0].tolist()


def test_tokens_that_may_not_begin_come_later_in_every_window():
  prompts = np.full((200, 3), 1)
  tokens = sampled(CONFIGS['learned'], prompts, length=40, temperature=9.0, begin_suppress=[0, 2, 3, 4, 6])[:, 3:]
  assert set(np.unique(tokens[:, 0])) == {1, 5}
  assert all(set(np.unique(tokens[:, place])) == set(range(7)) for place in range(1, 40))
  found = sampled(CONFIGS['rope'], [[1, 2]], length=3, beams=49, begin_suppress=[2, 3])[0, 2:]
  free = sampled(CONFIGS['rope'], [[1, 2]], length=3, beams=49, begin_suppress=[])[0, 2:]
  assert found[0] not in (2, 3) and (free[0] in (2, 3) or found.tolist() == free.tolist())


@pytest.mark.parametrize('name', CONFIGS)
def test_prompts_of_several_lengths_go_on_as_each_alone(name):
  prompts = [[1, 2, 3, 4, 5], [6, 2, END, END, END], [3, END, END, END, END]]
  keys = jax.random.split(jax.random.key(5), 3)
  for length in (8, 40):  # 40: past the context
    together = sampled(CONFIGS[name], prompts, keys, length=length)
    for row, prompt, key in zip(together, prompts, keys):
      size = prompt.index(END) if END in prompt else 5
      np.testing.assert_array_equal(row[size + length:], END)
      if length == 8:
        np.testing.assert_array_equal(row[:size + length],
                                      sampled(CONFIGS[name], [prompt[:size]], key[None], length=length)[0])


def test_a_text_ends_at_a_stop_token():
  whole = sampled(CONFIGS['learned'], [[1, 2], [3, 4], [5, 6]], length=40)
  stop = (int(whole[0, 6]), int(whole[1, 9]))
  for row, free in zip(sampled(CONFIGS['learned'], [[1, 2], [3, 4], [5, 6]], length=40, stop=stop), whole):
    end = 2 + int(np.flatnonzero(np.isin(free[2:], stop))[0])
    np.testing.assert_array_equal(row, np.where(np.arange(42) <= end, free, END))


@pytest.mark.parametrize('penalty', [1.0, 0.0])
def test_many_beams_find_the_likeliest_text(penalty):
  config = CONFIGS['rope']
  params = large(config)
  prompts = [[1, 2, 3], [4, END, END]]
  found = sampled(config, prompts, params={'net': params}, length=3, beams=49, stop=[2], length_penalty=penalty)
  for row, prompt in zip(found, ([1, 2, 3], [4])):
    best = best_text(config, params, prompt, 3, 2, penalty)
    np.testing.assert_array_equal(row, [*prompt, *best, *[END] * (6 - len(prompt) - len(best))])


def test_what_is_emitted_is_what_is_returned():
  told = {}
  row = sampled(CONFIGS['unrolled'], [[1, 2]], emit=lambda index, token_N: told.update({int(index): int(token_N[0])}),
                length=30)[0]
  assert list(told) == list(range(30)) and [*told.values()] == row[2:].tolist()


@pytest.mark.parametrize('name', CONFIGS)
def test_packed_texts_are_scored_as_each_alone(name):
  config = CONFIGS[name]
  objective = LanguageModel(models.transformer(config), functools.partial(models.init_cache, config), config.context)
  params, loss = {'net': large(config)}, jax.jit(objective.loss)
  text = np.random.default_rng(0).integers(0, 7, 14)
  segments = np.array([0] * 6 + [1] * 5 + [2] * 3)
  weights = (segments[1:] < 2).astype(np.float32)  # the third is padding
  batch = {
    'tokens': jnp.asarray(text)[None], 'segments': jnp.asarray(segments)[None], 'weights': jnp.asarray(weights)[None]
  }
  output = loss(params, CONTEXT, batch, jax.random.key(0))
  parts = [{'tokens': jnp.asarray(text)[None, part]} for part in (slice(0, 6), slice(6, 11))]
  alone = [loss(params, CONTEXT, part, jax.random.key(0)) for part in parts]
  assert float(output.weight) == 9
  assert float(output.loss) == pytest.approx(sum(float(part.loss) * float(part.weight) for part in alone) / 9, rel=1e-5)
  np.testing.assert_array_equal(
    segment_positions(jnp.asarray(segments)[None])[0], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2])


@pytest.mark.parametrize(
  'options', [{'min_p': 2.0}, {'repetition_penalty': 0.0}, {'beams': 0}, {'stop': [-3]}, {'beams': 2, 'top_k': 3}])
def test_bad_options(options):
  with pytest.raises(UserError, match=f'{next(iter(options))}(=2| must)'):
    SamplerOptions(**options)


def test_beams_stay_within_the_context():
  with pytest.raises(UserError, match='limited to the context of 24'):
    sampled(CONFIGS['learned'], [[1, 2]], length=23, beams=2)


@pytest.mark.parametrize('options', [dict(), dict(temperature=0.0), dict(top_k=7), dict(beams=2, length=8)], ids=str)
def test_tokens_that_no_text_has_are_never_chosen(options):
  """Those of a padded vocabulary; what is chosen is what a model without them chooses."""
  options = {'length': 20, **options}
  config, keys = CONFIGS['learned'], jax.random.split(jax.random.key(1), 4)
  params = large(config)
  prompts = [[1, 2], [3, 0], [2, 2], [0, 1]]
  free = sampled(config, prompts, keys, {'net': params}, **options)
  assert free.max() > 4  # it would
  held = sampled(config, prompts, keys, {'net': params}, vocabulary=5, **options)
  assert held.min() >= 0 and held.max() < 5
  np.testing.assert_array_equal(held, sampled(config, prompts, keys, {'net': params}, suppress=(5, 6), **options))
