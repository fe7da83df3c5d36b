"""What users of latent diffusion have suffered from elsewhere, and what happens here instead.

Each test names its situation by threads of other projects. What others test more deeply stands where it belongs: LoRA
in tests of adapters, resumption in tests/system/test_resume.py, pipelines in tests/parity.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.configs.diffusion import moons_flow
from genjax.diffusion import conditioning, parameterizations, samplers, schedules, weightings
from genjax.experiments import condition_texts
from genjax.models.autoencoders import kl
from genjax.models.denoisers import latent_unet
from genjax.nn.functional import Network
from genjax.objectives import codecs, kinds
from genjax.objectives.autoencoder import KlAutoencoder
from genjax.objectives.base import Context
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.runs import builders
from genjax.training.monitoring import logs
from genjax.training.optimization import optimizers
from genjax.training.run import Run
from genjax.types import UserError

CONTEXT = Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})


def test_1_decoders_compute_in_float32_from_parameters_in_half_precision():
  """candle#1060: activations of SDXL's autoencoder pass 65,504, float16 makes them infinite, and pictures are black."""
  options = kl.Kl((8, 8, 3), base=8, multipliers=(1,), latent=2, blocks=1, groups=4)
  _, decoder = kl.networks(options)
  params, mutable = jax.jit(decoder.init)(jax.random.key(0))
  halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
  latent = 1e6 * jax.random.normal(jax.random.key(1), (1, 8, 8, 2))
  assert jnp.isinf(latent.astype(jnp.float16)).any() and options.dtype == 'float32'
  decode = jax.jit(lambda params: decoder.apply(params, mutable, latent)[0])
  found, expected = decode(halves), decode(params)
  assert jnp.isfinite(found).all()
  np.testing.assert_allclose(found, expected, atol=0.02 * float(jnp.abs(expected).max()))


def test_2_scale_and_shift_are_measured_kept_and_undone_by_one_object():
  """Open-Sora#493: a scale of another autoencoder. Both are in the checkpoint, and encode and decode are inverses."""
  linear = Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (
    (7.0 + 30.0 * x[..., :1], jnp.full_like(x[..., :1], -20.0)), mutable))
  back = Network(lambda key: ({}, {}), lambda params, mutable, z, key=None: ((z - 7.0) / 30.0, mutable))
  objective = KlAutoencoder(linear, back, (8, 8, 1))
  variables = objective.init(jax.random.key(0), {})
  image = jax.random.randint(jax.random.key(1), (16, 8, 8, 1), 0, 256).astype(jnp.uint8)
  step = jax.jit(lambda mutable, step: objective.loss(
    variables.params, CONTEXT.replace(mutable=mutable, step=step), {'image': image}, jax.random.key(2)))
  mutable = variables.mutable
  for number in range(20):
    output = step(mutable, jnp.int32(number))
    mutable = output.mutable
  assert float(output.metrics['latent_deviation']) == pytest.approx(30 * 0.58, rel=0.1), 'what was measured is logged'
  autoencoder = kinds.Autoencoder(
    (8, 8, 1), (8, 8, 1), lambda group, image: objective.encode(group['params'], group['mutable'], image),
    lambda group, z: objective.decode(group['params'], group['mutable'], z),
    lambda group: objective.moments(group['mutable']))
  codec, frozen = codecs.latents('part', autoencoder), {'part': {'params': variables.params, 'mutable': mutable}}
  x = codec.encode(frozen, {'image': image}, None)
  assert float(x.mean()) == pytest.approx(0, abs=0.02) and float(x.std()) == pytest.approx(1, abs=0.02)
  np.testing.assert_array_equal(codec.decode(frozen, x)['image'], image)


@functools.cache
def visits(name):
  """The listed times of a sampler, those that its denoiser is called at, its last estimate, and its result."""
  process = schedules.vp_linear()
  times = schedules.sampling_times(process, 7)
  seen = []

  def denoise(x, t):
    x0_hat = 0.3 * jnp.tanh(x) + t / 5000
    jax.debug.callback(lambda t, x0: seen.append((float(t), np.asarray(x0))), t, x0_hat, ordered=True)
    return x0_hat

  keys = jax.random.split(jax.random.key(0), 2)
  x = samplers.prior(process, keys, (3,))
  result = jax.jit(lambda x: samplers.SAMPLERS[name](denoise, x, process, jnp.asarray(times), keys))(x)
  jax.effects_barrier()
  return times, [t for t, _ in seen], seen, np.asarray(result)


SAMPLERS = ('euler', 'heun', 'ancestral', 'ddim', 'dpmpp_2m')


@pytest.mark.parametrize('name', SAMPLERS)
def test_3_samplers_visit_the_listed_times(name):
  """diffusers#9261, #11347, #12633: a step to t - 1000 // n goes elsewhere."""
  times, visited, _, _ = visits(name)
  listed = {float(t) for t in times}
  assert set(visited) <= listed and {float(t) for t in times[:-1]} <= set(visited)


@pytest.mark.parametrize('name', SAMPLERS)
def test_4_the_last_step_leaves_no_noise(name):
  """diffusers#5689: the final sigma is 0, and the last step ends at the estimate of the data."""
  times, _, seen, result = visits(name)
  assert times[-1] == 0
  assert any(np.allclose(result, x0_hat, atol=1e-6) for t, x0_hat in seen if t == times[-2])


def test_5_the_absent_condition_of_training_is_that_of_samples():
  """diffusers#7920: zeros in training, an empty text in sampling. One null serves both; tests/experiments/
  test_conditions.py shows that the run keeps it."""
  null = np.int32([9, 8])
  condition = conditioning.Conditioner(('ids',), {'ids': null}, 0.999, lambda frozen, columns: columns)
  rows = {'ids': jnp.arange(8).reshape(4, 2)}
  dropped = conditioning.given({'text': condition}, {}, rows, jax.random.key(0))['ids']
  absent = conditioning.branches({'text': condition}, {}, rows, 4, [['text']])[0]['ids']
  np.testing.assert_array_equal(dropped, absent)
  np.testing.assert_array_equal(absent, [null] * 4)


def test_6_min_snr_of_v_and_of_zero_snr():
  """diffusers#5238, #6307: min(snr, g) / snr of the noise divides by 0 at pure noise; v has min(snr, g) / (snr + 1)."""
  process = schedules.vp_linear(rescale=True)
  t = jnp.float32([1, 400, 1000])
  weight = weightings.min_snr(5.0)(process, parameterizations.v(), t)
  snr = np.square(np.asarray(process.alpha(t), np.float64) / np.asarray(process.sigma(t), np.float64))
  np.testing.assert_allclose(weight, np.minimum(snr, 5) / (snr + 1), rtol=1e-4)
  assert snr[-1] == 0 == weight[-1]
  with pytest.raises(UserError, match="'epsilon' gives no estimate"):
    parameterizations.epsilon().check(process)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_7_new_tokens_are_learned_and_no_others_change(name):
  """diffusers#507: weight decay, momentum and Adam's moments move rows of a table whose gradient is 0."""
  params = {'table': jnp.asarray([[1.0, -0.0], [2.0, 1e-30], [3.0, 5.0], [4.0, 6.0]]), 'bias': jnp.ones(2)}
  parts = (('table', dict(rows=(2, 3))), ('bias', dict(frozen=True)))
  options = dict(momentum=0.9) if name == 'sgd' else {}
  optimizer = optimizers.from_config(
    {'net': dict(name=name, lr=0.1, weight_decay=0.5, parts=parts, **options)}, 10)['net']
  state, after = optimizer.init(params), params
  update = jax.jit(optimizer.update)
  for _ in range(3):
    updates, state = update(jax.tree.map(jnp.ones_like, params), state, after)
    after = optax.apply_updates(after, updates)
  for row in (0, 1, 3):
    assert np.asarray(after['table'][row]).tobytes() == np.asarray(params['table'][row]).tobytes()
  assert (after['table'][2] != params['table'][2]).all()
  parts = (('table', dict(rows=(2, 9))),)
  optimizer = optimizers.from_config({'net': dict(name='sgd', lr=0.1, parts=parts)}, 10)['net']
  state = optimizer.init(params)
  with pytest.raises(UserError, match='rows 2 to 8 of table, which has 4'):
    optimizer.update(params, state, params)


def test_11_a_row_depends_on_its_key_and_prompt_alone():
  """diffusers#6233, #8673, #10194: the picture changes with the batch, or with what pads the prompt."""
  def net(params, mutable, x, time, given, key=None):
    seen = jnp.where(given['tokens_mask'][..., None], given['tokens'], 0.0).sum((1, 2))
    return x * 0.2 + seen[:, None, None, None], mutable

  condition = conditioning.Conditioner(('tokens', 'tokens_mask'), {}, 0.0, lambda frozen, columns: columns)
  process = schedules.flow()
  sampler = Sampler(samplers.SAMPLERS['ancestral'], tuple(schedules.sampling_times(process, 3).tolist()))
  objective = Diffusion(Network(lambda key: ({}, {}), net), (2, 2, 1), process, parameterizations.velocity(), sampler,
                        conditioners={'text': condition}, codec=codecs.identity())
  tokens = jnp.arange(12.0).reshape(3, 4, 1) / 12
  mask = jnp.asarray([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
  keys = jax.random.split(jax.random.key(0), 3)
  draw = jax.jit(lambda keys, tokens, mask: objective.sample(
    {'net': {}}, CONTEXT, keys, {'tokens': tokens, 'tokens_mask': mask})['image'])
  together = draw(keys, tokens, mask)
  for row in range(3):
    other = tokens[row:row + 1] + jnp.where(mask[row][:, None], 0.0, 99.0)  # other padding
    np.testing.assert_allclose(draw(keys[row:row + 1], other, mask[row:row + 1])[0], together[row], atol=1e-5)


def test_12_schedules_count_optimizer_steps():
  """diffusers#4387, #3954: with accumulation a warm-up took as many times longer."""
  def rates(microbatches):
    config = moons_flow.get_config('smoke')
    config.batch_size, config.microbatches, config.steps = 8, microbatches, 4
    config.optimizers.net.update(warmup=2)
    run = Run(builders.build(config), builders.settings(config))
    schedule = optimizers.from_config(config.optimizers, config.steps)['net'].rates['own']
    run.initialise()
    found = []
    for step in range(3):
      run.train_step(next(run.experiment.train.iterate(step, run.rows(run.settings.batch_size))))
      counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(run.state.opt)
                if re.search('count', jax.tree_util.keystr(path))]
      assert {int(count) for count in counts} == {step + 1}
      found.append(float(schedule(step)))
    return found

  assert rates(1) == rates(4)


def test_a_text_that_is_cut_off_is_said(monkeypatch):
  """diffusers#2136: 77 tokens are read, and nobody says so."""
  said = []
  monkeypatch.setattr(logs, 'say', said.append)

  def tokenize(texts, truncate):
    if not truncate and max(map(len, texts)) > 5:
      raise UserError(f'the text {texts[0]!r} has {len(texts[0])} tokens, and 5 are read')
    return np.zeros((len(texts), 5), np.int32), np.ones((len(texts), 5), bool)

  cut = condition_texts.Cut('prompt', tokenize, True)
  cut(['far too long'])
  cut(['also too long'])
  assert len(said) == 1 and 'has 12 tokens, and 5 are read; it is cut off' in said[0]


@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_a_unet_that_recomputes_has_the_same_gradients(remat):
  """Training of the large ones needs it."""
  def gradient(remat):
    net = latent_unet.network_of(latent_unet.LatentUNet(
      shape=(4, 4, 2), channels=(8,), depths=(1,), heads=(2,), blocks=1, groups=4, token_width=4, middle_depth=1,
      remat=remat))
    given = {'tokens': jnp.ones((1, 3, 4))}

    def loss(params):
      return net.apply(params, {}, jnp.ones((1, 4, 4, 2)), jnp.ones(1), given, key=jax.random.key(1))[0].mean()

    params, _ = net.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    return jax.jit(jax.grad(loss))(params)

  kept, made = gradient('none'), gradient(remat)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), kept, made)
