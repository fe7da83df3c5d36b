"""Conditions that stand on parts: texts by encoders, latents of pictures, pictures with holes."""


import jax
import numpy as np
import pytest

from genjax.experiments import conditions, diffusion, latents, parts
from genjax.objectives.base import Context
from genjax.objectives.kinds import Autoencoder, TextEncoder
from genjax.types import UserError
from tests.experiments.condition_data import columns_of, config_of, everything, made_of, told

pytestmark = pytest.mark.usefixtures('source')


def fake_encoder(length=8, width=6):
  """A text encoder of bytes; its parameter is a number."""

  def tokenize(texts, truncate):
    ids, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
    for row, text in enumerate(texts):
      if len(text) + 1 > length and not truncate:
        raise UserError(f'the text {text!r} has {len(text) + 1} tokens, and {length} are read')
      values = [*text.encode(), 1][:length]
      ids[row, :len(values)], mask[row, :len(values)] = values, True
    return ids, mask

  def encode(group, ids, mask):
    tokens = group['scale'] * ids[..., None] * np.ones(width, np.float32)
    return {'tokens': tokens, 'mask': mask, 'pooled': tokens.sum(1)}

  return TextEncoder(width, length, tokenize, encode)


def fake_autoencoder():
  """8 x 8 pixels -> the first channel, halved, at every second pixel."""
  encode = lambda group, image: (group['scale'] * image[:, ::2, ::2, :1].astype(np.float32),
                                 0.0 * image[:, ::2, ::2, :1])
  return Autoencoder((8, 8, 3), (4, 4, 1), encode, lambda group, z: z, lambda group: (10.0, 0.5))


@pytest.fixture
def opened(monkeypatch):
  """Parts by name, as `parts.open` would find them."""
  kinds = {'words': ('text_encoder', fake_encoder()), 'pictures': ('autoencoder', fake_autoencoder())}

  def find(config, name, kind, **options):
    if name not in kinds or kinds[name][0] != kind:
      raise UserError(f'no part {name!r} of kind {kind!r}')
    return parts.Part(name, config, {'scale': np.float32(2.0)}, (), None, None, kinds[name][1])

  monkeypatch.setattr(parts, 'open', find)


def test_texts_by_a_part_are_its_tokens_and_its_pooled_vector(opened):
  made = made_of(dict(text=dict(kind='text', part='words', pooled=True)))
  columns = columns_of(made, [1, 3])
  given = told(made, columns, {'words': {'scale': 2.0}})
  assert given['tokens'].shape == (2, 8, 6) and given['tokens'][0, 0, 0] == 2 * ord('p')
  assert given['tokens_mask'].all() and given['vector'].shape == (2, 6)
  assert made.network == {'token_width': 6, 'vector_width': 6}
  short = made_of(dict(text=dict(kind='text', part='words', length=4, tokens=False, pooled=True)))
  assert columns_of(short, [1])['text_ids'].shape == (1, 4) and short.network == {'vector_width': 6}
  with pytest.raises(UserError, match='length is 9, and the part .words. reads 8'):
    made_of(dict(text=dict(kind='text', part='words', length=9)))
  with pytest.raises(UserError, match="no part 'pictures' of kind 'text_encoder'"):
    made_of(dict(text=dict(kind='text', part='pictures')))


def test_a_picture_by_a_part_is_its_scaled_latent(opened):
  config = config_of(dict(before=dict(kind='image', column='sketch', part='pictures')))
  made = conditions.of(config, (4, 4, 1), latents.space(config).open)
  columns = columns_of(made, range(2))
  latent = told(made, columns, {'pictures': {'scale': 2.0}})['image']
  np.testing.assert_allclose(latent, (2.0 * columns['before_pixels'][:, ::2, ::2, :1] - 10) * 0.5)
  assert made.network == {'image_channels': 1}
  with pytest.raises(UserError, match=r'latents of \(4, 4\) .* of \(8, 8\)'):
    made_of(dict(before=dict(kind='image', column='sketch', part='pictures')))


def test_an_experiment_gets_parts_columns_and_files(opened):
  config = config_of(dict(text=dict(kind='text', part='words'), hole=dict(kind='mask')), sampler__guidance=2.0)
  experiment = diffusion.build(config)
  assert experiment.frozen == {'words': {'scale': 2.0}} and set(experiment.sources) == {'words'}
  assert set(experiment.example) == {'image', 'text_ids', 'text_ids_mask', 'hole_pixels'}
  experiment.check_columns(experiment.train.batch(0))
  params = experiment.objective.init(jax.random.key(0), experiment.frozen).params
  context = Context(step=0, mutable={}, ema={}, frozen=experiment.frozen)
  loss = jax.jit(lambda batch: experiment.objective.loss(params, context, batch, jax.random.key(0)).loss)
  assert np.isfinite(loss(experiment.train.batch(0)))


def with_parts(given):
  config = config_of(given)
  return conditions.of(config, (4, 4, 1), lambda split, more: everything(None, split))


def test_a_prompt_of_several_encoders(opened):
  """Tokens side by side and the vector of the last; a row of nothing is zeros."""
  made = with_parts(dict(text=dict(kind='prompt', join='sdxl', parts=('words', 'words'), zeros=True)))
  columns = columns_of(made, [1, 3])
  frozen = {'words': {'scale': 2.0}}
  given = told(made, columns, frozen)
  assert given['tokens'].shape == (2, 8, 12) and given['vector'].shape == (2, 6)
  assert made.network == {'token_width': 12, 'vector_width': 6}
  null = {column: np.stack([row, row]) for column, row in made.conditioners['text'].null.items()}
  nothing = told(made, null, frozen)
  assert not np.asarray(nothing['tokens']).any() and not np.asarray(nothing['vector']).any()
  with pytest.raises(UserError, match='joins at most 1 text encoders'):
    with_parts(dict(text=dict(kind='prompt', parts=('words', 'words'))))


def test_a_picture_with_holes(opened):
  """Mask and latent; pixels in the holes are grey, whatever the picture has there."""
  made = with_parts(dict(hole=dict(kind='inpainting', part='pictures')))
  picture = np.full((1, 8, 8, 4), 255, np.uint8)
  picture[:, :4, :, 3] = 0
  given = told(made, {'hole_pixels': picture}, {'pictures': {'scale': 2.0}})['image']
  assert given.shape == (1, 4, 4, 2) and made.network['image_channels'] == 2
  np.testing.assert_array_equal(given[0, :, 0, 0], [1, 1, 0, 0])
  np.testing.assert_allclose(given[0, :, 0, 1], (np.asarray([255, 255, 510, 510]) - 10) * 0.5)
  columns = columns_of(made, [0, 1])
  assert columns['hole_pixels'].shape == (2, 8, 8, 4)
  np.testing.assert_array_equal(columns['hole_pixels'][..., 3:], 255 - everything(None, 'train').get(
    np.arange(2))['mask'])
  with pytest.raises(UserError, match='alpha that is 0 in the holes'):
    made.conditions['hole'].convert(picture[0, ..., :3])


def test_the_latent_of_a_picture_is_zeros_where_there_is_none(opened):
  made = with_parts(dict(before=dict(kind='latent', column='sketch', part='pictures', dropout=0.5)))
  columns, frozen = columns_of(made, [0, 1]), {'pictures': {'scale': 2.0}}
  seen = told(made, columns, frozen)['image']
  np.testing.assert_allclose(seen, 2.0 * columns['before_pixels'][:, ::2, ::2, :1])
  null = {column: np.stack([row, row]) for column, row in made.conditioners['before'].null.items()}
  assert not np.asarray(told(made, null, frozen)['image']).any()


def test_vectors_and_numbers_that_stand_for_none():
  made = made_of(dict(size=dict(kind='numbers', column=('height', 'width'), absent=(50.0, 60.0)),
                      text=dict(kind='tokens', column='x', width=3, length=2)))
  np.testing.assert_array_equal(made.conditioners['size'].null['size_numbers'], [50, 60])
  assert made.network['token_width'] == 3 and not made.conditioners['text'].null['text_tokens'].any()
  with pytest.raises(UserError, match=r'takes finite numbers of shape \(2, 3\), got float64 of shape \(3,\)'):
    made.conditions['text'].convert(np.ones(3))
  with pytest.raises(UserError, match='absent must be 1 numbers'):
    made_of(dict(size=dict(kind='numbers', column='height', absent=(50.0, 60.0))))
