"""Options of GANs that the builder reads: augmentations by name, corrected Adam, features."""

import pytest

from genjax.config import override
from genjax.configs.gans import digits_gan, grid_gan
from genjax.experiments import augmentation, gan, lazy
from genjax.nn.augment.pipeline import Transforms
from genjax.objectives.augmentation import Adaptive, Fixed, Growing
from genjax.objectives.base import Phase
from genjax.training.monitoring.collapse import Collapse
from genjax.types import UserError


def test_augmentations_by_name():
  config = digits_gan.get_config('smoke')
  assert gan.build(config).objective.augment is None and gan.build(config).hooks == ()
  for key, text in {'objective.augment.name': 'ada', 'objective.augment.kimg': '2', 'objective.augment.groups': 'bg',
                    'objective.watch': 'true', 'objective.consistency': '10'}.items():
    override(config, f'{key}={text}')
  experiment = gan.build(config)
  assert isinstance(experiment.objective.augment, Adaptive) and experiment.objective.augment.kimg == 2
  assert experiment.objective.augment.transform.groups == 'bg' and experiment.objective.perturb is not None
  assert isinstance(experiment.hooks[0], Collapse)
  assert isinstance(augmentation.make({'name': 'diffaugment', 'policy': ['cutout']}, 3), Fixed)
  assert augmentation.make({'name': 'none'}, 3) is None
  growing = augmentation.make({'name': 'growing', 'end': 0.5, 'steps': 9, 'cutout': 1, 'hue': 0.5}, 3)
  assert isinstance(growing, Growing) and (growing.end, growing.steps) == (0.5, 9)
  assert isinstance(growing.transform, Transforms) and (growing.transform.cutout, growing.transform.hue) == (1, 0.5)


@pytest.mark.parametrize(('options', 'channels', 'message'), [
  ({'name': 'adaa'}, 3, r"config.objective.augment.name must be one of .*'adaa'"),
  ({'name': 'ada', 'kimgs': 3}, 3, "augment.kimgs is not an option of ada.*Did you mean 'kimg'"),
  ({'name': 'ada', 'transform': 3}, 3, 'augment.transform is not an option'),
  ({'name': 'growing', 'kimg': 3}, 3, 'augment.kimg is not an option of growing'),
  ({'name': 'growing', 'end': 0.5}, 3, 'config.objective.augment.*steps'),
  ({'name': 'ada', 'target': 3.0}, 3, 'config.objective.augment.target must be'),
  ({'name': 'ada'}, 4, 'config.data.shape has 4; set config.objective.augment.groups to "bg"'),
  ({'name': 'none', 'kimg': 3}, 3, "is 'none', which has no options"),
  ({'kimg': 3}, 3, 'config.objective.augment.name must be one of'),
  ({'name': 'ada', 'groups': 'b', 'flip': 0, 'quarter': 0, 'shift': 0.0}, 3, 'has no transform left'),
])
def test_bad_augmentations(options, channels, message):
  with pytest.raises(UserError, match=message):
    augmentation.make(options, channels)


def test_points_and_models_without_features():
  config = grid_gan.get_config('smoke')
  config.objective.augment = dict(name='diffaugment')
  with pytest.raises(UserError, match='these samples are points'):
    gan.build(config)


def test_adam_is_corrected_for_lazy_phases():
  """c = 16 / 17 with R1 on every 16th step; 4 / 5 for a penalty of the generator on every fourth."""
  phases = [Phase('d', ('d',), None), Phase('r1', ('d',), None, every=16), Phase('g', ('g',), None),
            Phase('path', ('g',), None, every=4), Phase('e', ('e',), None, every=2)]
  assert [lazy.share(phases, group) for group in 'dge'] == [pytest.approx(16 / 17), pytest.approx(4 / 5), 1.0]
  assert lazy.updates(phases, 17) == {'d': 17 + 2, 'g': 17 + 5, 'e': 9}
  given = {'name': 'adam', 'lr': 0.0025, 'b1': 0.0, 'b2': 0.99}
  assert lazy.corrected(given, 4 / 5, 'x') == {
    'name': 'adam', 'lr': pytest.approx(0.002), 'b1': 0.0, 'b2': pytest.approx(0.99**0.8)}
  assert lazy.corrected({'name': 'adam', 'lr': 1.0}, 0.5, 'x')['b2'] == pytest.approx(0.999**0.5)
  assert lazy.corrected(given, 1.0, 'x') == given
  often = [Phase('g', ('g',), None, every=5), Phase('path', ('g',), None, every=4)]  # the main phase is the first one
  assert lazy.share(often, 'g') == pytest.approx(4 / 9)
  changing = lazy.corrected({**given, 'b2_end': 0.9, 'b2_steps': 80, 'warmup': 8, 'steps': 0}, 4 / 5, 'x')
  assert changing == {**changing, 'b2_end': pytest.approx(0.9**0.8), 'b2_steps': 100, 'warmup': 10, 'steps': 0}
  with pytest.raises(UserError, match="x: config.objective.corrected_adam corrects adam and adamw, got 'sgd'"):
    lazy.corrected({'name': 'sgd', 'lr': 1.0}, 0.5, 'x')


def test_the_builder_corrects_adam():
  config = digits_gan.get_config('smoke')
  config.steps, config.objective.r1_gamma, config.objective.r1_every = 64, 1.0, 16
  config.optimizers.discriminator.schedule = config.optimizers.generator.schedule = 'constant'
  rates = []
  for corrected in (False, True):
    config.objective.corrected_adam = corrected
    made = gan.build(config).optimizers
    rates.append([float(made[group].rates['own'](0)) for group in ('discriminator', 'generator')])
  assert rates[1][0] == pytest.approx(rates[0][0] * 16 / 17) and rates[1][1] == rates[0][1]


@pytest.mark.parametrize(('options', 'message'), [
  (dict(name='adam'), r"lacks \['lr'\]"), (dict(name='adam', lr='x'), "lr must be a number.* got 'x'"),
  (dict(name='adam', lr=1.0, b1=-0.5), 'b1 must be a number .* got -0.5'),
  (dict(name='adam', lr=1.0, parts=3), 'parts must be a sequence')])
def test_bad_options_are_told_before_they_are_corrected(options, message):
  config = digits_gan.get_config('smoke')
  config.objective.r1_gamma, config.objective.corrected_adam = 1.0, True
  config.optimizers.discriminator = options
  with pytest.raises(UserError, match=f'config.optimizers.discriminator.*{message}'):
    gan.build(config)
