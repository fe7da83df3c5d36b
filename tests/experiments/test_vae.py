"""The builder of VAEs: log-likelihoods by importance sampling as a measure of `genjax evaluate`."""

import numpy as np
import pytest

from genjax.configs.autoencoders import digits_vae, iwae
from genjax.experiments import vae
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
