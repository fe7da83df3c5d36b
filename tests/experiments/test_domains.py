"""The builder of StarGAN v2: its settings, what it refuses, and pictures and references as conditions."""

import jax
import numpy as np
from PIL import Image
import pytest

from genjax.configs.gans import stargan2
from genjax.experiments import domains
from genjax.options import known
from genjax.training import drawing
from genjax.types import UserError


def test_settings_of_the_original():
  """The command for AFHQ in the README of clovaai/stargan-v2, and the defaults of its main.py."""
  config = stargan2.get_config()
  objective = config.objective
  assert (objective.r1, objective.style, objective.diversity, objective.cycle, objective.l2) == (1, 1, 2, 1, 1e-4)
  assert config.steps == objective.diversity_steps == 100_000 and config.batch_size == 8
  rates = {group: options.lr for group, options in config.optimizers.items()}
  assert rates == dict(generator=1e-4, mapping=1e-6, style_encoder=1e-4, discriminator=1e-4)
  assert {(options.b1, options.b2) for options in config.optimizers.values()} == {(0.0, 0.99)}
  assert set(config.ema) == {'generator', 'mapping', 'style_encoder'} and set(config.ema.values()) == {0.999}
  assert 'objective.diversity' in known(domains.options(config)).options


def test_pictures_and_references_are_conditions(tmp_path):
  """Without a reference the style is that of a latent; every condition becomes the column that the objective reads."""
  experiment = domains.build(stargan2.get_config('smoke'))
  conditions = experiment.conditions
  rows = drawing.rows(conditions, 4, None)
  assert set(rows) == {'image', 'label'} and rows['image'].shape == (4, 8, 8, 3)
  np.testing.assert_array_equal(rows['label'], [0, 1, 2, 0])
  Image.fromarray(np.full((16, 16, 3), 7, np.uint8)).save(tmp_path / 'one.png')
  picture = conditions['reference'].parse(str(tmp_path / 'one.png'))
  assert picture.shape == (8, 8, 3) and (picture == 7).all()
  given = drawing.rows(conditions, 2, {'reference': np.stack([picture, picture])})
  assert {key for name in given for key in (conditions[name].encode or (lambda rows, name=name: {name: rows}))(
    given[name])} == {'source', 'label', 'reference'}
  shapes = jax.eval_shape(lambda key: experiment.objective.init(key, {}).params, jax.random.key(0))
  assert set(shapes) == {'generator', 'mapping', 'style_encoder', 'discriminator'} == set(experiment.axes)
  with pytest.raises(UserError, match="condition 'reference' takes uint8 pixels"):
    conditions['reference'].convert(np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize(('changes', 'message'), [
  (dict(num_classes=0), 'config.data.num_classes, the number of domains, must be at least 2, got 0'),
  (dict(shape=(8, 16, 3)), 'must be square images'), (dict(shape=(24, 24, 3)), 'size must be a power of two')])
def test_what_does_not_fit_is_refused(changes, message):
  config = stargan2.get_config('smoke')
  config.data.update(changes)
  with pytest.raises(UserError, match=message):
    domains.build(config)


def test_references_need_other_pictures():
  config = stargan2.get_config('smoke')
  config.microbatches = 8
  with pytest.raises(UserError, match='microbatches need two at least; got 1'):
    domains.build(config)
