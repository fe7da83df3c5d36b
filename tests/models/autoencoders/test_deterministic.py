"""TAESD and DC-AE: shapes, what the options ask for, layouts; and as runs that train and that others stand on."""

import json
import re

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.cli.main import main
from genjax.configs.autoencoders import kl as configs
from genjax.configs.diffusion import captioned_flow
from genjax.experiments import diffusion, kl
from genjax.models.autoencoders import dc, tiny
from genjax.models.autoencoders.dc_blocks import averaged
from genjax.nn.conv import double, halve, shuffle, unshuffle
from genjax.types import UserError, named_leaves

TINY = dict(shape=(8, 12, 3), latent=3, encoder_channels=(8, 8), decoder_channels=(6, 6), encoder_blocks=(1, 1),
            decoder_blocks=(1, 0))
DC = dict(shape=(8, 12, 3), latent=3, encoder_channels=(6, 12), decoder_channels=(6, 12), encoder_blocks=(1, 1),
          decoder_blocks=(1, 1), attention=1, head_dim=4)


def shapes(module, options):
  return [jax.eval_shape(network.init, jax.random.key(0))[0] for network in module.networks(options)]


@pytest.mark.parametrize('module, kind, options', [(tiny, tiny.Tiny, TINY), (dc, dc.DcAe, DC)], ids=['tiny', 'dc'])
def test_shapes_parts_and_axes(module, kind, options):
  config = kind(**options)
  encoder, decoder = module.networks(config)

  def both(key, image):
    (mean, log_variance), _ = encoder.apply(*encoder.init(key), image)
    params = decoder.init(key)[0]
    hidden = decoder.apply(params, {}, mean, part='hidden')[0]
    return mean, log_variance, decoder.apply(params, {}, mean)[0], decoder.apply(params, {}, hidden, part='last')[0]

  image = np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32)
  mean, log_variance, out, again = jax.jit(both)(jax.random.key(0), image)
  assert mean.shape[1:] == config.latent_shape == (4, 6, 3) and out.shape == image.shape
  assert (log_variance == -30).all() and np.array_equal(out, again) and out.dtype == mean.dtype == np.float32
  names = [f'{side}/{name}' for side, tree in zip(('encoder', 'decoder'), shapes(module, config))
           for name in named_leaves(tree)]
  for pattern, axes in module.AXES:
    assert [name for name in names if re.fullmatch(pattern, name)], (pattern, axes)


def test_channels_become_pixels_and_back():
  x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
  small = unshuffle(x)
  assert small.shape == (2, 2, 3, 12)
  np.testing.assert_array_equal(shuffle(small), x)
  np.testing.assert_allclose(averaged(small, 4), halve(x), atol=1e-6)
  np.testing.assert_allclose(halve(double(x)), x, atol=1e-6)


@pytest.mark.parametrize('kind, options, message', [
  (tiny.Tiny, TINY | dict(decoder_blocks=(1,)), 'must have an entry for each stage'),
  (tiny.Tiny, TINY | dict(encoder_channels=(8, 4)), 'must be alike'),
  (tiny.Tiny, TINY | dict(shape=(7, 8, 3)), 'multiple of 2'), (tiny.Tiny, TINY | dict(activation='mish'), 'activation'),
  (dc.DcAe, DC | dict(encoder_channels=(6, 13)), 'divide 4 times'), (dc.DcAe, DC | dict(scales=(4,)), 'scales odd'),
  (dc.DcAe, DC | dict(encoder_blocks=(1, 0)), 'in the first stage only'), (dc.DcAe, DC | dict(latent=5), 'latent must'),
  (dc.DcAe, DC | dict(head_dim=16), 'head_dim must'), (dc.DcAe, DC | dict(shrink='pool'), 'shrink must be one of')])
def test_options_that_do_not_fit(kind, options, message):
  with pytest.raises(UserError, match=message):
    kind(**options)


@pytest.mark.parametrize('model, kind', [('f16', 'Kl'), ('tiny', 'Tiny'), ('dc', 'DcAe')])
def test_the_config_gives_each_kind(model, kind):
  config = configs.get_config(f'model={model},latent=8,pixels=64')
  options = kl.model_options(config)
  assert type(options).__name__ == kind and options.latent == 8
  assert config.objective.normalisation == ('channels' if kind == 'Kl' else 'all')


@pytest.mark.slow
@pytest.mark.parametrize('model', ['tiny', 'dc'])
def test_one_is_trained_written_and_read_again(model, tmp_path):
  assert main(['train', f'--config=configs/autoencoders/kl.py:smoke,model={model}', f'--workdir={tmp_path}/run']) == 0
  assert main(['export', f'--workdir={tmp_path}/run', f'--to={tmp_path}/public']) == 0
  assert main(['import', f'--from={tmp_path}/public', f'--workdir={tmp_path}/again']) == 0
  told = json.loads((tmp_path / 'public' / 'config.json').read_text())
  assert told['_class_name'] == {'tiny': 'AutoencoderTiny', 'dc': 'AutoencoderDC'}[model]
  assert told['scaling_factor'] != 1
  config = json.loads((tmp_path / 'again' / 'config.json').read_text())
  assert config['experiment'] == kl.__name__ and config['model']['name'] == model


def test_a_run_decodes_with_a_tiny_one(tmp_path):
  options = tiny.Tiny(**TINY | dict(shape=(8, 8, 1)))
  network = tiny.autoencoder(options)
  interop.save(tmp_path / 'taesd', options, network.init(jax.random.key(0))[0])
  config = captioned_flow.get_config('smoke')
  with config.unlocked():
    config.parts = {'autoencoder': str(tmp_path / 'taesd')}
    config.data.update(name='digits', train='train', heldout='test', shape=(8, 8, 1), resize='', crop=False, flip=False)
    config.conditions = {}
    config.sampler.guidance = 1.0
  codec = diffusion.build(config).objective.codec
  model = interop.load(tmp_path / 'taesd')
  frozen = {'autoencoder': {'params': {'net': model.params}, 'mutable': model.mutable, 'frozen': {}}}
  image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
  x = codec.encode(frozen, {'image': image}, None)
  mean, _, out = network.apply(model.params, {}, image.astype(np.float32) / 127.5 - 1)[0]
  np.testing.assert_allclose(x, mean, atol=1e-5)  # as it was published: neither shifted nor scaled
  wanted = np.clip(np.round(127.5 * (np.asarray(out) + 1)), 0, 255)
  assert np.abs(codec.decode(frozen, x)['image'].astype(int) - wanted).max() <= 1
