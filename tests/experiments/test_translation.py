"""The builder of pictures from pictures: what it refuses, drawing from a folder, and measures beside baselines."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from genjax.cli.main import main
from genjax.configs.gans import emoji_pix2pix, sprites_cyclegan, sprites_enlarge
from genjax.experiments import translation, translation_data
from genjax.experiments.measuring import translations
from genjax.training.optimization import optimizers
from genjax.types import UserError


def changed(module, **changes):
  """The smoke config with other options, 'data__shape' for config.data.shape."""
  config = module.get_config('smoke')
  for key, value in changes.items():
    section, _, name = key.partition('__')
    config[section].update({name: value})
  return config


def _opened(config):
  """Builds, opens the data, and initialises without computing."""
  experiment = translation.build(config)
  count = len(experiment.train.source)
  jax.eval_shape(lambda key: experiment.objective.init(key, {}).params, jax.random.key(0))
  return count


@pytest.mark.parametrize('module, changes, match', [
  (emoji_pix2pix, dict(data__shape=(40, 32, 3)), 'multiples of 32, at least 32, got 40 x 32'),
  (emoji_pix2pix, dict(model__layers=6), 'multiples of 64'),
  (emoji_pix2pix, dict(critic__layers=4), 'critic with config.critic.layers=4 needs pictures of at least 48'),
  (emoji_pix2pix, dict(data__pairs='smaller', data__margin=0), 'use config.model.name=enlarger'),
  (emoji_pix2pix, dict(data__pairs='halfs'), 'config.data.pairs'),
  (emoji_pix2pix, dict(data__pairs='halves'), 'needs a folder in config.data.name'),
  (emoji_pix2pix, dict(objective__name='cycle'), 'is not an option of'),
  (emoji_pix2pix, dict(evaluation__measures=('fid',)), 'config.evaluation.measures'),
  (emoji_pix2pix, dict(objective__l1=0.0, objective__adversarial=0.0), 'the generator learns nothing'),
  (emoji_pix2pix, dict(data__background=(300, 0, 0)), 'background must be red, green and blue'),
  (emoji_pix2pix, dict(sampler__drop=True), 'sampler.drop=True is of dropout, .* at least 6 config.model.layers'),
  (emoji_pix2pix, dict(model__dropout=0.3), 'config.model.dropout=0.3 has no effect with layers=5'),
  (emoji_pix2pix, dict(model__norm='instance', sampler__statistics='picture'), 'is of batch normalisation'),
  (sprites_cyclegan, dict(data__shape=(26, 16, 3)), 'multiples of 4, at least 8, got 26 x 16'),
  (sprites_cyclegan, dict(critic__norm='batch'), 'keep no statistics'),
  (sprites_cyclegan, dict(sampler__direction='up'), 'direction must be one of'),
  (sprites_enlarge, dict(data__shape=(30, 32, 3)), 'sides that factor=4 divides'),
])
def test_what_does_not_fit_is_refused(module, changes, match):
  with pytest.raises(UserError, match=match):
    _opened(changed(module, **changes))


def test_rates_of_the_papers():
  """100 epochs at 2e-4 and 100 in which it falls to 0: of 400 pictures and of 1,000."""
  for module, images in ((emoji_pix2pix, 400), (sprites_cyclegan, 1000)):
    config = module.get_config('paper')
    assert config.steps == 200 * images and config.batch_size == 1
    for made in optimizers.from_config(config.optimizers, config.steps).values():
      rate, = made.rates.values()
      found = [float(rate(epoch * images)) for epoch in (0, 50, 99, 100, 150, 199)]
      np.testing.assert_allclose(found, 2e-4 * np.array([1, 1, 1, 1, 0.5, 0.01]), rtol=1e-4)


def test_empty_domains_and_pairs_that_do_not_match_are_refused(tmp_path):
  for domain in ('trainA', 'testA', 'trainB', 'testB'):
    (tmp_path / domain).mkdir()
  for number in range(2):
    Image.new('RGB', (16, 24)).save(tmp_path / 'trainA' / f'{number}.png')
  folders = dict(data__name=str(tmp_path), data__pairs='folders', data__heldout='test')
  with pytest.raises(UserError, match='trainB has no pictures'):
    _opened(changed(sprites_cyclegan, **folders))
  Image.new('RGB', (16, 24)).save(tmp_path / 'trainB' / 'other.png')
  assert _opened(changed(sprites_cyclegan, **folders)) == 2
  with pytest.raises(UserError, match='no counterpart: 2 of the source pictures'):
    translation_data.open_pairs(changed(emoji_pix2pix, **folders), 'train')
  with pytest.raises(UserError, match='must hold a folder trainC'):
    translation_data.open_pairs(changed(emoji_pix2pix, **folders, data__domains=('C', 'B')), 'train')


def test_pairs_of_other_sizes_are_refused_and_grey_ones_become_colour(tmp_path):
  config = changed(sprites_cyclegan, data__name=str(tmp_path), data__pairs='folders')
  for domain, mode in (('trainA', 'L'), ('trainB', 'RGB')):
    (tmp_path / domain).mkdir()
    Image.new(mode, (16, 24)).save(tmp_path / domain / '0.png')
  columns = translation_data.open_pairs(config, 'train').get(np.arange(1))
  assert columns['source'].shape == columns['image'].shape == (1, 24, 16, 3)
  for domain in ('trainA', 'trainB'):
    Image.new('RGB', (20, 24)).save(tmp_path / domain / '1.png')
  with pytest.raises(UserError, match=r'1 of 2 pictures of .*A have other sizes, such as 24 x 20; resize them'):
    translation_data.open_pairs(config, 'train')


def test_samples_of_a_folder(smoke_run, tmp_path, capsys):
  run = smoke_run('gans/sprites_enlarge')
  random = np.random.default_rng(0)
  for number in range(3):
    Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f'{number}.png')
  (tmp_path / 'notes.txt').write_text('no picture')
  out = tmp_path / 'drawn'
  assert main(['sample', f'--workdir={run}', f'--conditions=image={tmp_path}', f'--out={out}/']) == 0  # one of each
  lines = [json.loads(line) for line in (out / 'metadata.jsonl').read_text().splitlines()]
  assert [line['image'].rpartition('/')[2] for line in lines] == ['0.png', '1.png', '2.png']
  with Image.open(out / '000002.png') as drawn:
    assert drawn.size == (32, 32)
  (tmp_path / 'empty').mkdir()
  assert main(['sample', f'--workdir={run}', f'--conditions=image={tmp_path / "empty"}', f'--out={out}/']) == 2
  assert 'has no files that end in .png' in capsys.readouterr().err


def test_measures_stand_beside_baselines(monkeypatch):
  """A generator that enlarges by repeating pixels is the copy; the counterpart itself is right everywhere."""
  monkeypatch.setattr(translations, 'MEAN_OF', 100)
  config = changed(sprites_enlarge, evaluation__num_samples=4)
  metric, = translations.metrics(config)
  metric.check()
  held = translation_data.open_pairs(config, 'heldout').get(np.arange(4))

  def repeat(num, conditions):
    np.testing.assert_array_equal(conditions['image'], held['source'])
    return {'image': conditions['image'].repeat(4, axis=1).repeat(4, axis=2)}

  values = metric.compute(repeat, 0)
  for name in ('l1', 'psnr', 'ssim'):
    assert values[name] == values[f'{name}_of_copy']
  values = metric.compute(lambda num, conditions: {'image': held['image']}, 0)
  assert values['l1'] == 0 and values['psnr'] == 100 and values['ssim'] == 1
  # Of noise a smaller copy knows a little, and the mean picture nothing
  assert 0.2 < values['l1_of_copy'] < values['l1_of_mean'] < 0.3 and values['psnr_of_bicubic'] < 20
  assert metric.card['num_samples'] == 4
