"""The builder of VAEs: log-likelihoods, and scores of anomalies, as measures of `genjax evaluate`; conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from genjax.configs.autoencoders import conditional_vae, digits_vae, iwae, one_class
from genjax.experiments import parts, vae
from genjax.objectives.base import Context
from genjax.runs import builders
from genjax.training import drawing
from genjax.training.run import Run
from genjax.types import UserError


def make(**evaluation):
  config = iwae.get_config('smoke')
  config.data.update(name='digits', shape=(8, 8, 1), heldout='test')
  config.evaluation.update(evaluation)
  config.lock()
  run = Run(vae.build(config), builders.settings(config))
  run.initialise()
  return run


def test_likelihood_is_the_mean_of_a_tight_bound_over_the_first_images():
  run = make(likelihood_samples=400, likelihood_chunk=50, likelihood_examples=20)
  metric, = run.experiment.metrics
  values = metric.compute(drawing.Samples(run, 0), 0)
  scores = run.scores(False)[1]
  assert set(scores) >= {'negative_elbo', 'negative_bound_3'}
  loose, elbo = scores['negative_bound_3'][:20], scores['negative_elbo'][:20]
  assert values['nll'] < loose.mean() < elbo.mean() and values['nll'] > 0.5 * loose.mean()
  # what the loose bound draws adds to the variation between images
  assert 0.1 * loose.std(ddof=1) < np.sqrt(20) * values['nll_error'] < loose.std(ddof=1)
  assert metric.card['importance_samples'] == 400 and metric.card['examples'] == 20


def test_other_configs_have_no_such_measure():
  assert vae.build(digits_vae.get_config('smoke')).metrics == ()


def test_refused():
  config = iwae.get_config('smoke')
  config.evaluation.likelihood_chunk = 0
  with pytest.raises(UserError, match='likelihood_chunk'):
    vae.build(config)
  config = iwae.get_config('smoke')
  config.evaluation.likelihood_examples = 1
  with pytest.raises(UserError, match='at least 2'):
    vae.build(config)


def anomalies(score='negative_elbo', **changes):
  config = one_class.get_config(f'smoke,digit=4,score={score}')
  config.data.update(heldout='test', **changes)
  config.batch_size = 50
  config.lock()
  return config


@pytest.mark.parametrize('score', ['negative_elbo', 'typicality'])
def test_anomalies_are_the_other_classes(score):
  """The measure is scikit-learn's of the values of all held-out examples, which the run is not trained on."""
  config = anomalies(score)
  run = Run(vae.build(config), builders.settings(config))
  run.initialise()
  assert len(run.experiment.train.source) < 200 and len(run.experiment.heldout.source) < 50  # fours alone
  metric, = run.experiment.metrics
  metric.check()
  found = metric.compute(drawing.Samples(run, False), 0)
  everything = Run(vae.build(anomalies(classes=tuple(range(10)), num_classes=10)), builders.settings(config))
  everything.restore(run.state)
  data = everything.experiment.heldout
  label = data.source.get(np.arange(len(data.source)))['label']
  value = vae.anomaly.values(everything, data, 'negative_elbo', 0, False)
  if score == 'typicality':
    value = np.abs(value - vae.anomaly.values(run, run.experiment.train, 'negative_elbo', 1, False).mean())
  assert found['auroc'] == pytest.approx(metrics.roc_auc_score(label != 4, value), abs=0.02)
  assert 0 < found['auroc'] < 1 and metric.card == {'score': score, 'normal': [4], 'split': 'test'}


@pytest.mark.parametrize(('changes', 'words'), [
  (dict(score='surprise'), "got 'surprise'"), (dict(classes=()), 'classes that are normal')])
def test_anomalies_that_cannot_be_scored(changes, words):
  with pytest.raises(UserError, match=words):
    vae.build(anomalies(**changes))


def test_a_class_without_anomalies_is_refused_before_anything_is_computed():
  config = anomalies()
  config.evaluation.normal = tuple(range(10))
  metric, = vae.build(config).metrics
  with pytest.raises(UserError, match='0 are of other classes'):
    metric.check()


def test_conditions_reach_training_and_samples():
  config = conditional_vae.get_config('smoke,model=mlp')
  config.lock()
  run = Run(vae.build(config), builders.settings(config))
  run.initialise()
  metrics = run.train_step(next(run.experiment.train.iterate(0, run.rows(run.settings.batch_size))))
  assert np.isfinite(jax.device_get(metrics)['elbo/loss'])
  assert set(run.experiment.conditions) == {'label'}
  images = run.sample(2, 0, {'label': np.int32([1, 7])})['image']
  same = run.sample(2, 0, {'label': np.int32([1, 1])})['image']
  np.testing.assert_array_equal(images[0], same[0])
  assert (images[1] != same[1]).any()
  with pytest.raises(UserError, match='conditions .*encodes and decodes with them'):
    vae.autoencoder(config, run.experiment)


def test_dropout_of_conditions_is_refused():
  config = conditional_vae.get_config('smoke')
  config.conditions.label.dropout = 0.1
  with pytest.raises(UserError, match='label.dropout=0.1 is for guidance'):
    vae.build(config)


def test_the_kind_autoencoder():
  config = digits_vae.get_config('smoke')
  experiment = vae.build(config)
  assert 'autoencoder' in parts.offered(vae)
  maps = vae.autoencoder(config, experiment)
  variables = jax.jit(lambda key: experiment.objective.init(key, {}))(jax.random.key(0))
  group = {'params': variables.params, 'mutable': variables.mutable, 'frozen': {}}
  image = jnp.full((2, 8, 8, 1), 77, jnp.uint8)
  code = jax.jit(maps.encode)(group, image)[0]
  assert code.shape == (2, *maps.latent)
  context = Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})
  np.testing.assert_array_equal(jax.jit(maps.decode)(group, code),
                                jax.jit(experiment.objective.reconstruct)(variables.params, context, image))
