"""The builder of quantized autoencoders: its kinds, its judges, its measures, and its public layout."""

import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import interop
from genjax.cli.main import main
from genjax.configs.classifiers import mnist_classifier
from genjax.experiments import classifier, kl, parts, vq
from genjax.models.autoencoders.vq import VqGan, Whole, autoencoder
from genjax.models.features import lpips
from genjax.nn.quantizers import VectorQuantizer
from genjax.objectives.base import Context
from genjax.runs import builders, workdir
from genjax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)


def config_of(name='vqgan', arg='smoke', parts=None, **changes):
  config = importlib.import_module(f'genjax.configs.autoencoders.{name}').get_config(arg)
  config.parts = parts or {}
  for path, value in changes.items():
    section, _, key = path.partition('__')
    config[section][key] = value
  return config.lock()


@pytest.mark.parametrize('arg', ['smoke', 'smoke,learned=gradient', 'smoke,levels=4.3'])
def test_kinds_have_the_functions_of_the_run(arg):
  config = config_of(arg=arg)
  experiment = builders.build(config)
  latents, codes = vq.autoencoder(config, experiment), vq.codes(config, experiment)
  size, width = (12, 2) if 'levels' in arg else (16, 3)
  assert latents.latent == (4, 4, width) and latents.factor == codes.factor == 2
  assert (codes.latent, codes.size) == ((4, 4), size)

  def all_of_them(key, image):
    variables = experiment.objective.init(key, {})
    net = variables.params['net']
    mutable = {name: variables.mutable[name] for name in ('codebook', 'moments') if variables.mutable[name]}
    group = {'params': {'net': net}, 'mutable': mutable}  # without empty trees, as a part has them
    index = codes.encode_indices(group, image)
    z, _ = latents.encode(group, image)
    return index, codes.decode_indices(group, index), latents.decode(group, z), latents.moments(group)

  index, image, decoded, moments = jax.eval_shape(all_of_them, jax.random.key(0),
                                                  jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.uint8))
  assert index.shape == (2, 4, 4) and index.dtype == jnp.int32
  assert image.shape == decoded.shape == (2, 8, 8, 1) and image.dtype == decoded.dtype == jnp.uint8
  assert [leaf.shape for leaf in moments] == [(width,), (width,)]


def test_a_run_is_a_part_with_the_codes_that_it_learned(smoke_run):
  config = config_of(parts={'autoencoder': str(smoke_run('autoencoders/vqgan'))})
  part = parts.open(config, 'autoencoder', 'codes')
  assert set(part.shapes['mutable']['codebook']) == {'embedding'}  # and no statistics
  _, run = workdir.open_run(str(smoke_run('autoencoders/vqgan')))
  group = {'params': run.state.params, 'mutable': run.state.mutable}

  def there_and_back(group, image):
    index = part.functions.encode_indices(group, image)
    return index, part.functions.decode_indices(group, index), run.experiment.objective.reconstruct(
      group['params'], run.state.context({}), image)

  index, image, reconstruction = jax.jit(there_and_back)(group, IMAGE)
  assert 0 <= index.min() <= index.max() < 16
  np.testing.assert_array_equal(image, reconstruction)


def test_codes_are_measured_over_all_of_the_held_out_images(smoke_run, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(smoke_run('autoencoders/vqgan'), folder)
  assert main(['evaluate', f'--workdir={folder}', '--set', 'evaluation.measures=("psnr",)']) == 0
  found = json.loads((folder / 'evaluation.json').read_text())['metrics']
  _, run = workdir.open_run(str(folder))
  params, context = run.params(averaged=True), run.state.context({})
  count = jax.jit(run.experiment.objective.counts)
  total = sum(np.asarray(count(params, context, batch)) for batch in run.experiment.heldout.epoch(run.rows(8)))
  assert total.sum() == len(run.experiment.heldout.source) * 16
  share = total[total > 0] / total.sum()
  assert found['codes/used'] == len(share) and found['codes/used_share'] == len(share) / 16
  assert found['codes/perplexity'] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
  assert found['heldout/batch_perplexity'] <= found['codes/used'] and found['psnr/mean'] > 0


@pytest.mark.parametrize('builder', [vq, kl])
def test_a_classifier_judges_what_images_look_like(builder, smoke_run):
  name = builder.__name__.rpartition('.')[2].replace('vq', 'vqgan')
  config = config_of(name, 'smoke,critic_start=-1', parts={
    'perceptual': str(smoke_run('classifiers/digits_classifier'))})
  experiment = builder.build(config)
  assert set(experiment.frozen) == {'perceptual'} and set(experiment.optimizers) == {'net'}
  part = parts.open(config, 'perceptual', 'perceptual')
  loss = part.functions.loss
  group = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), part.shapes)
  a, b = (np.random.default_rng(seed).uniform(-1, 1, (2, 8, 8, 1)).astype(np.float32) for seed in (0, 1))
  values, slope = jax.jit(jax.value_and_grad(lambda a: jnp.sum(loss(group, a, b))))(a)
  assert float(values) > 0 and np.isfinite(slope).all() and np.abs(slope).max() > 0
  np.testing.assert_allclose(loss(group, b, b), 0, atol=1e-6)

  def step(key, group):
    variables = experiment.objective.init(key, {})
    context = Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={'perceptual': group})
    return experiment.objective.loss(variables.params, context, {'image': IMAGE}, key).metrics

  assert 'perceptual' in jax.eval_shape(step, jax.random.key(0), group)


def test_lpips_judges_and_its_gradient_is_finite_where_nothing_is_active():
  ours, theirs = jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3))
  slope = jax.grad(lambda x: jnp.sum(lpips.distance([x], [theirs])))(ours)
  assert np.isfinite(slope).all()
  np.testing.assert_allclose(lpips.distance([theirs], [-theirs]), 4.0, rtol=1e-5)


def test_what_only_measures_is_no_lpips(smoke_run, capsys):
  folder = smoke_run('autoencoders/vqgan')
  judge = smoke_run('classifiers/digits_classifier')
  assert main(['evaluate', f'--workdir={folder}', '--set', 'evaluation.measures=("lpips",)',
               f'evaluation.parts.lpips={judge}']) == 2
  assert 'lpips is measured by the published networks' in capsys.readouterr().err


@pytest.mark.parametrize(('arg', 'changes', 'match'), [
  ('smoke', dict(critic__layers=2), 'needs images of at least 12 pixels'),
  ('smoke', dict(critic__name='x'), 'config.critic.name must be one of'),
  ('smoke', dict(quantizer__name='x'), 'config.quantizer.name must be one of'),
  ('smoke', dict(quantizer__levels=(2,)), 'config.quantizer.levels is not an option'),
  ('smoke', dict(objective__adaptive_most=-1.0), 'config.objective.adaptive_most must not be negative'),
  ('smoke', dict(data__content='latents'), 'an autoencoder learns from pixels'),
  ('smoke', dict(optimizers__critic=None), 'config.critic needs an optimizer of its own')])
def test_bad_configs(arg, changes, match):
  config = config_of(arg=arg, **{key: value for key, value in changes.items() if value is not None})
  if changes.get('optimizers__critic', 0) is None:
    with config.unlocked():
      del config.optimizers['critic']
  with pytest.raises(UserError, match=match):
    vq.build(config)


def test_a_judge_of_another_size_is_refused(smoke_run):
  config = config_of(parts={'perceptual': str(smoke_run('classifiers/digits_classifier'))}, data__shape=(16, 16, 1))
  with pytest.raises(UserError, match=r'reads images of \(8, 8, 1\), and config.data.shape is \(16, 16, 1\)'):
    vq.build(config)


SIZE = dict(shape=(8, 8, 1), latent=3, width=2, base=8, multipliers=(1, 2), blocks=1, groups=4, attention=(2,))


def test_a_public_one_is_a_run_and_written_again(tmp_path):
  whole = Whole(VqGan(**SIZE), VectorQuantizer(16, 2, learned='gradient', commitment=1.0, codebook_weight=0.25,
                                               spread=1 / 16))
  params = jax.jit(autoencoder(whole).init)(jax.random.key(0))[0]
  interop.save(tmp_path / 'vq', whole, params, mutable={'moments': {'mean': np.zeros(2), 'square': np.full(2, 4.0)}})
  assert json.loads((tmp_path / 'vq' / 'config.json').read_text())['scaling_factor'] == pytest.approx(0.5)
  assert main(['import', f'--from={tmp_path}/vq', f'--workdir={tmp_path}/run']) == 0
  assert main(['export', f'--workdir={tmp_path}/run', f'--to={tmp_path}/again']) == 0
  for name in ('config.json', 'diffusion_pytorch_model.safetensors'):
    assert (tmp_path / 'again' / name).read_bytes() == (tmp_path / 'vq' / name).read_bytes()
  config = config_of(parts={'autoencoder': str(tmp_path / 'vq')})
  part = parts.open(config, 'autoencoder', 'autoencoder')
  assert part.functions.latent == (4, 4, 2)
  assert set(part.shapes['params']['net']) == {'encoder', 'decoder', 'codebook'}


def test_a_trained_one_is_written_with_the_codes_of_its_averages(smoke_run, tmp_path):
  folder = smoke_run('autoencoders/vqgan')
  assert main(['export', f'--workdir={folder}', f'--to={tmp_path}/public', '--raw']) == 0
  _, run = workdir.open_run(str(folder))
  model = interop.load(tmp_path / 'public')
  np.testing.assert_array_equal(model.params['codebook']['embedding'], run.state.mutable['codebook']['embedding'])
  assert 'critic' in run.state.params and set(model.params) == {'encoder', 'decoder', 'codebook'}


def test_what_has_no_public_layout():
  with pytest.raises(UserError, match='with config.quantizer.name=vector, got vqgan and finite_scalar'):
    vq.exported_options(config_of(arg='smoke,levels=4.3'), {})


def test_a_transformer_has_no_maps(smoke_run):
  with pytest.raises(UserError, match='a perceptual distance is of maps of convolutions'):
    classifier.perceptual(mnist_classifier.get_config('model=vit,smoke'), None)  # type: ignore[arg-type]
