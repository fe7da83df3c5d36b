"""config.sampler of diffusion: names of diffusers, and what is refused before anything is computed."""

import pytest

from genjax.diffusion import samplers, schedules
from genjax.experiments import sampling
from genjax.types import UserError

LATENT = schedules.vp_scaled_linear()


def _sampler(process=LATENT, tokens=0, **options):
  return sampling.sampler(sampling.SamplerOptions(**{'steps': 10, **options}), process, tokens=tokens)


def test_a_class_of_diffusers_is_a_name_with_its_own_spacing():
  named = _sampler(name='EulerAncestralDiscreteScheduler')
  assert named.method.func is samplers.euler_ancestral and named.times == _sampler(
    name='euler_ancestral', spacing='linspace').times
  assert _sampler(name='PNDMScheduler').times[0] == 901  # leading
  assert _sampler(name='DDIMScheduler').times == _sampler(name='ddim', spacing='leading').times
  assert _sampler(name='ddim').times[0] == 1000  # a name of genjax keeps its spacing
  assert _sampler(schedules.flow(), name='FlowMatchEulerDiscreteScheduler').times[0] == 1


def test_the_shift_follows_the_tokens_of_the_network():
  class Model:
    patch = 2

  assert sampling.tokens(Model(), (128, 64, 16)) == 64 * 32 and sampling.tokens(object(), (128, 64, 16)) == 0
  line = (256, 0.5, 4096, 1.15)
  few, many = (_sampler(schedules.flow(), tokens, name='flow_euler', shift_by_tokens=line) for tokens in (256, 4096))
  assert many.times[5] > few.times[5] > 0.5


@pytest.mark.parametrize('options, match', [
  (dict(name='euler_discrte'), "Did you mean 'euler_discrete'"),
  (dict(name='pndm', options={'predicts': 'x0'}), 'predicts must be one of'),
  (dict(name='pndm', options={'runge_kutta': True}, steps=3), 'at least 4 steps'),
  (dict(name='pndm', process=schedules.vp_scaled_linear(rescale=True)), "options.predicts='v'"),
  (dict(name='unipc', options={'order': 4}), 'order must be one of'),
  (dict(name='tcd', options={'eta': 1.5}), 'eta must be at most 1'),
  (dict(name='lcm', options={'eta': 0.5}), 'eta is not an option of lcm'),
  (dict(name='ddim', threshold=1.5), 'threshold must be at least 0 and at most 1'),
  (dict(name='ddim', threshold=0.9, clip=1.0), 'both bound the estimate'),
  (dict(name='ddim', offset=-1), 'offset must not be negative'),
  (dict(name='dpmpp_2m', sigmas='karras', process=schedules.flow(), shift=3.0), 'infinite at the start of a flow')])
def test_what_makes_no_sense_is_refused(options, match):
  with pytest.raises(UserError, match=match):
    _sampler(**options)
