"""The builder of flows between distributions of points: columns, conditions, the measure, what is refused."""

import dataclasses

import numpy as np
import pytest

from genjax.configs.diffusion import mnist_flow, moons_flow
from genjax.data import points as distributions
from genjax.experiments import diffusion, points
from genjax.metrics import transport
from genjax.runs import builders
from genjax.training import drawing
from genjax.training.run import Run
from genjax.types import UserError


@pytest.mark.parametrize(('arguments', 'columns'), [
  ('smoke', {'point', 'source'}), ('smoke,coupling=independent', {'point', 'source'}),
  ('smoke,source=noise', {'point', 'noise'}), ('smoke,source=noise,coupling=independent', {'point'})])
def test_batches_have_the_columns_of_the_example(arguments, columns):
  experiment = points.build(moons_flow.get_config(arguments))
  batch = experiment.train.batch(0)
  experiment.check_columns(batch)
  assert set(batch) == columns == set(experiment.example)
  assert set(experiment.conditions) == columns & {'source'}


def test_coupled_rows_are_those_of_one_batch():
  coupled, plain = (points.build(moons_flow.get_config(f'smoke,coupling={name}')).train.batch(3)
                    for name in ('ot', 'independent'))
  np.testing.assert_array_equal(coupled['point'], plain['point'])
  assert sorted(coupled['source'][:, 0]) == sorted(plain['source'][:, 0])


def test_samples_begin_where_the_user_says():
  condition = points.build(moons_flow.get_config('smoke')).conditions['source']
  np.testing.assert_array_equal(condition.parse('1.5,-2'), np.float32([1.5, -2]))
  assert condition.default(3).shape == (2,) and (condition.default(3) != condition.default(4)).any()
  for text in ('1', 'a,b', '1,2,3', 'nan,0'):
    with pytest.raises(UserError, match='two numbers'):
      condition.parse(text)


def test_the_measure_compares_each_number_of_steps_with_the_data():
  config = moons_flow.get_config('smoke')
  config.evaluation.num_samples = 300
  metric, = points.build(config).metrics

  class Samples:
    """Samples of the data itself for two steps, and points at its mean for one."""

    def by(self, objective, num, conditions):
      assert conditions['source'].shape == (num, 2)
      exact = distributions.drawn('moons', num, 77)
      return {'point': exact if len(objective.sampler.times) == 3 else np.tile(exact.mean(axis=0), (num, 1))}

  values = metric.compute(Samples(), 0)
  assert set(values) == {'euler_1', 'euler_2', 'floor'}
  real = distributions.drawn('moons', 300, 2)
  assert values['euler_1'] == pytest.approx(transport.wasserstein_2(
    np.tile(distributions.drawn('moons', 300, 77).mean(axis=0), (300, 1)), real))
  assert values['euler_2'] < 0.3 * values['euler_1'] and values['floor'] < 0.3 * values['euler_1']


@pytest.mark.parametrize(('key', 'value', 'words'), [
  ('data.name', 'moon', "Did you mean 'moons'|'moons'"), ('data.source', 'nothing', 'config.data.source'),
  ('objective.coupling', 'sinkhorn', "'independent', 'ot'"), ('objective.coupling_size', 3, 'do not divide'),
  ('sampler.guidance', 2.0, 'no conditions'), ('model.activation', 'sin', 'config.model.activation')])
def test_refused(key, value, words):
  config = moons_flow.get_config('smoke')
  section, name = key.split('.')
  config[section][name] = value
  with pytest.raises(UserError, match=words):
    points.build(config)


def test_pictures_from_coupled_noise():
  config = mnist_flow.get_config('smoke')
  config.data.name, config.data.shape, config.data.heldout = 'digits', (8, 8, 1), 'test'
  config.objective.coupling = 'ot'
  experiment = diffusion.build(config)
  batch = experiment.train.batch(0)
  experiment.check_columns(batch)
  assert batch['noise'].shape == (8, 8, 8, 1) and experiment.objective.noise_column == 'noise'
  config.objective.coupling = 'independent'
  plain = diffusion.build(config)
  np.testing.assert_array_equal(plain.train.batch(0)['image'], batch['image'])
  assert 'noise' not in plain.example and plain.objective.noise_column == ''


def test_coupling_of_pictures_needs_one_shape():
  config = mnist_flow.get_config('smoke')
  config.objective.coupling_size = 4
  with pytest.raises(UserError, match="coupling_size is of coupling='ot'"):
    diffusion.build(config)


def test_other_samplers_draw_from_the_same_starts():
  """`Samples.by` with the objective of the run is `Run.sample`; with one step of Euler, samples are elsewhere."""
  config = moons_flow.get_config('smoke').lock()
  run = Run(points.build(config), builders.settings(config))
  run.initialise()
  objective, samples = run.experiment.objective, drawing.Samples(run, 0)
  begin = {'source': distributions.drawn('eight_gaussians', 5, 9)}
  same = samples.by(objective, 5, begin)
  np.testing.assert_array_equal(same['point'], samples(5, begin)['point'])
  once = dataclasses.replace(objective.sampler, times=(1.0, 0.0))
  other = samples.by(dataclasses.replace(objective, sampler=once), 5, begin)
  np.testing.assert_array_equal(other['source'], same['source'])
  assert (other['point'] != same['point']).all()
  values = run.experiment.metrics[0].compute(samples, 0)
  assert all(np.isfinite(value) and value > 0 for value in values.values())
