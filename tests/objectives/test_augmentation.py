"""The controller of ADA: its strength follows the signs of the discriminator on real pictures."""

import functools

import jax
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.augmentation import AUGMENT, Adaptive, Growing
from genjax.objectives.base import Context
from genjax.objectives.gan import Gan
from genjax.objectives.gan_losses import signs
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.training.optimization import optimizers
from genjax.types import UserError

FIXED = Network(lambda key: ({'w': np.ones((), np.float32)}, {}),
                lambda params, mutable, x, label=None, key=None: (params['w'] * x[:, 0, 0, 0], mutable))
LATENTS = Network(
  lambda key: ({'w': np.ones((), np.float32)}, {}),
  lambda params, mutable, latent, label=None, key=None: (params['w'] * latent[:, None, None], mutable))


def lighter(x, strength, key):
  """An augmentation that shows its strength."""
  del key
  return x + strength


def strengths(pixels, steps, microbatches=1, kind=Adaptive, **options):
  """The strength after each step of a discriminator that does not learn, and the last state."""
  gan = Gan(LATENTS, FIXED, 1, augment=kind(lighter, **options))
  made = {group: optimizers.make('sgd', 0.0, steps) for group in ('generator', 'discriminator')}
  step = jax.jit(step_lib.make_step(gan, made, {}, 0, microbatches), static_argnums=3)
  state, found = state_lib.create(gan, made, {}, 0, {}), []
  for index in range(steps):
    image = np.full((8, 1, 1, 1), pixels(index), np.uint8)
    image[0] = 255 - image[0]  # one of eight has the other sign
    state, metrics = step(state, {}, {'image': image}, ('discriminator', 'generator'))
    found.append(float(metrics['discriminator/augment_strength']))
  return found, state


def test_strength_follows_the_signs():
  """Mean sign 3/4 is above 0.6: every 4 steps of 8 pictures the strength grows by 32 / 500 of a kimg; then it falls to
  0, and not below."""
  found, _ = strengths(lambda step: 255 if step < 8 else 0, 20, kimg=0.5)
  grown = 32 / 500
  np.testing.assert_allclose(found, [0] * 4 + [grown] * 4 + [2 * grown] * 4 + [grown] * 4 + [0] * 4, atol=1e-7)
  found, _ = strengths(lambda step: 0, 9, kimg=0.5)
  assert found == [0.0] * 9
  found, _ = strengths(lambda step: 255, 9, kimg=0.5, target=0.8)
  assert found == [0.0] * 9
  found, state = strengths(lambda step: 255, 9, target=None, initial=0.25)
  assert found == [0.25] * 9


def test_strength_that_grows_by_a_cosine():
  """The rule of R3GAN's code: from 0 to the last value over the steps, whatever the discriminator says."""
  found, state = strengths(lambda step: 255 * (step % 2), 12, microbatches=2,
                           kind=functools.partial(Growing, end=0.55, steps=8))
  done = np.minimum(np.arange(12) / 8, 1.0)
  np.testing.assert_allclose(found, 0.55 * (1 - 0.5 * (1 + np.cos(np.pi * done))), atol=1e-6)
  assert list(state.mutable[AUGMENT]) == ['strength']
  for options, message in ((dict(end=1.5, steps=8), 'end must be at least 0 and at most 1'),
                           (dict(end=0.5, steps=0), 'steps must be at least 1')):
    with pytest.raises(UserError, match=message):
      Growing(lighter, **options)


def test_microbatches_change_nothing():
  """The strength moves in the first microbatch of a step alone, and signs are counted in all of them."""
  whole, state = strengths(lambda step: 255, 7, kimg=0.5)
  parts, other = strengths(lambda step: 255, 7, microbatches=4, kimg=0.5)
  np.testing.assert_allclose(parts, whole, atol=1e-7)
  jax.tree.map(np.testing.assert_array_equal, state.mutable[AUGMENT], other.mutable[AUGMENT])
  counted = {name: float(value) for name, value in state.mutable[AUGMENT].items()}
  assert counted == dict(strength=pytest.approx(32 / 500), signs=3 * 6, logits=24, images=24, adjusted=4)


def test_a_run_that_begins_with_the_state_of_a_longer_one_goes_on():
  augment = Adaptive(lighter, kimg=1.0, initial=0.5)
  state = {**augment.init(), 'adjusted': np.int32(40_000), 'signs': np.float32(100.0), 'logits': np.float32(100.0),
           'images': np.float32(100.0)}
  begun = [augment.begin(state, np.int32(step)) for step in (0, 3, 4)]
  assert [float(state['strength']) for state in begun] == pytest.approx([0.5, 0.5, 0.6])
  assert [int(state['adjusted']) for state in begun] == [40_000, 40_000, 4]


def test_pictures_that_give_no_number_leave_the_strength():
  gan = Gan(LATENTS, FIXED, 1, augment=Adaptive(lighter, initial=0.5))
  state = gan.augment.init()
  context = Context(step=0, mutable={AUGMENT: state}, ema={}, frozen={})
  after, logged = gan._observed(context, signs(np.full(4, np.nan)), 4)
  assert np.isfinite(list(after[AUGMENT].values())).all() and logged['sign_real'] == 0


@pytest.mark.parametrize(('options', 'message'), [
  (dict(target=2.0), 'target must be at least -1'), (dict(kimg=0.0), 'kimg must be above 0'),
  (dict(every=0), 'every must be at least 1'), (dict(initial=1.5), 'initial must be at least 0'),
])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    Adaptive(lighter, **options)
