"""CLIP: counts of the published sizes, the causal tower, pooling, and blocks that are left out."""

import jax
import numpy as np
import pytest

from genjax.models.transformers.clip import LEGACY_END, ClipConfig, ClipImage, ClipText, clip, encoder
from genjax.nn.functional import count
from genjax.types import UserError

# CLIPModel of transformers with the published configs
COUNTS = {'B/32': 151_277_313, 'B/16': 149_620_737, 'L/14': 427_616_513}
TEXT = {'L/14': 123_650_304, 'bigG/14': 694_659_840}  # with the projection
IMAGE = {'L/14': 303_966_208, 'H/14': 632_076_800}
SMALL = ClipConfig(ClipText(3, 2, 8, vocab=20, context=9, end=19),
                   ClipImage(2, 2, 8, shape=(8, 12, 3), patch=4, activation='gelu'), 6)


def size(config):
  return count(jax.eval_shape(encoder(config).init, jax.random.key(0))[0])


def test_counts():
  assert {name: size(clip(name)) for name in COUNTS} == COUNTS
  assert {name: size(clip(name, image=None)) for name in TEXT} == TEXT
  assert {name: size(clip(name, text=None)) for name in IMAGE} == IMAGE
  assert size(clip('L/14', image=None, width=0)) == 123_060_480
  penultimate = ClipText(23, 16, 1024, activation='gelu')  # the text encoder of Stable Diffusion 2
  assert size(ClipConfig(penultimate, None, 0)) == 340_387_840


def test_texts():
  net = encoder(SMALL)
  params, _ = net.init(jax.random.key(0))
  apply = jax.jit(net.apply, static_argnames='skip')
  ids = np.array([[18, 3, 4, 19, 19, 19], [18, 5, 19, 19, 19, 19]], np.int32)
  found, _ = apply(params, {}, None, ids)
  assert found['text'].shape == (2, 6) and found['hidden'].shape == (2, 6, 8)
  other = ids.copy()
  other[:, 4:] = 7  # after the end
  changed, _ = apply(params, {}, None, other)
  np.testing.assert_allclose(changed['text'], found['text'], rtol=1e-5)
  masked, _ = apply(params, {}, None, ids, ids != 19)
  assert not np.allclose(masked['text'], found['text'])  # without its end a text is another one
  mask = np.arange(6) < np.array([[4], [3]])
  masked, _ = apply(params, {}, None, ids, mask)
  np.testing.assert_allclose(masked['text'], found['text'], rtol=1e-5)
  skipped, _ = apply(params, {}, None, ids, skip=1)
  np.testing.assert_allclose(skipped['text'], found['text'], rtol=1e-5)
  assert not np.allclose(skipped['raw'], found['raw'])
  with pytest.raises(UserError, match='can leave out 0 to 2'):
    net.apply(params, {}, None, ids, skip=3)
  with pytest.raises(UserError, match='9 positions'):
    net.apply(params, {}, None, np.zeros((1, 10), np.int32))


def test_the_legacy_end_is_the_largest_token():
  ids = np.array([[18, 3, 19, 3]], np.int32)
  legacy = ClipConfig(ClipText(3, 2, 8, vocab=20, context=9, end=LEGACY_END), None, 6)
  new = ClipConfig(SMALL.text, None, 6)
  params, _ = encoder(new).init(jax.random.key(0))
  ours, theirs = (encoder(config).apply(params, {}, None, ids)[0]['text'] for config in (new, legacy))
  np.testing.assert_array_equal(ours, theirs)
  ids[0, 2] = 17  # no end: the largest token is the first one
  theirs = encoder(legacy).apply(params, {}, None, ids)[0]
  hidden = theirs['hidden'][:, 0] @ params['text']['head']['projection']['kernel']
  np.testing.assert_allclose(theirs['text'], hidden, rtol=1e-5)


def test_images():
  net = encoder(SMALL)
  params, _ = net.init(jax.random.key(0))
  image = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
  found, _ = net.apply(params, {}, image)
  assert found['image'].shape == (2, 6) and found['image_hidden'].shape == (2, 7, 8) and 'text' not in found
  with pytest.raises(UserError, match=r'reads images of shape \(8, 12, 3\)'):
    net.apply(params, {}, image[:, :4])
  np.testing.assert_allclose(np.exp(params['scale']), 1 / 0.07, rtol=1e-6)


@pytest.mark.parametrize(('make', 'message'), [
  (lambda: ClipConfig(None, None, 3), 'needs a text tower'),
  (lambda: ClipConfig(SMALL.text, SMALL.image, 0), 'set width'),
  (lambda: ClipImage(1, 1, 4, shape=(9, 8, 3), patch=4), 'patch must divide'),
  (lambda: clip('S/8'), 'size must be one')])
def test_options_that_cannot_be_built(make, message):
  with pytest.raises(ValueError, match=message):
    make()
