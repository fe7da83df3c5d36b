"""Fake runs: run directories as a training leaves them, written in a millisecond."""

import json
import pathlib

import pytest

from genjax import config as config_lib
from genjax.configs import common
from genjax.runs import atomic

VERSIONS = {'genjax': '0.1.0', 'jax': '0.10.2'}


def card(**changes):
  """A metric card."""
  return {'step': 10, 'data': {'name': 'digits', 'split': 'test', 'examples': 360, 'checksum': 'abc'}, 'examples': 360,
          'parameters': "averaged ['net']", 'seed': 0, 'sampler': {'name': 'heun', 'steps': 4, 'guidance': 1.0},
          'measures': {'samples': {'num_samples': 200, 'feature_extractor': {'heldout_accuracy': 0.98, 'folder': '/a'},
                                   'pictures': {'resize': 'area'}}},
          'versions': VERSIONS, 'version': 1, **changes}


@pytest.fixture
def fake_run():
  """fake_run(folder, changes=..., ...) -> the folder of a run; see the arguments."""

  def make(folder: pathlib.Path, changes=None, loss=None, step=10, evaluation=None, source='s', job=None, curve=()):
    folder.mkdir(parents=True, exist_ok=True)
    config = common.base(steps=10, batch_size=4)
    config.experiment = 'genjax.experiments.diffusion'
    config.sampler = dict(name='heun', steps=4, guidance=1.0)
    for key, value in (changes or {}).items():
      node, *rest = key.split('.')
      if rest:
        config[node]['.'.join(rest)] = value
      else:
        config[key] = value
    atomic.write_json(folder / 'config.json', config_lib.plain(config))
    atomic.write_json(folder / 'run.json', {'versions': VERSIONS, 'source': source, 'seed': config.seed, 'data': {},
                                            'paths': [], 'code': []})
    atomic.write_json(folder / 'status.json', {'attempt': 1, 'process': 1, 'doing': 'ended', 'step': step, 'reached': 0,
                                               'seconds': {'startup': 3.0, 'step': 2.0, 'data': 0.5}})
    if loss is not None:
      atomic.write_json(folder / 'summary.json', {'step': step, 'heldout': {'loss': loss, 'examples': 360.0}})
    if evaluation is not None:
      atomic.write_json(folder / 'evaluation.json', evaluation)
    if job:
      atomic.write_json(folder / 'job.json', job)
    if curve:
      lines = [json.dumps({'step': at, 'net/loss': value}) for at, value in curve]
      (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
    return folder

  return make


@pytest.fixture
def fake_sweep(tmp_path, fake_run):
  """fake_sweep({setting: {seed: loss}}, ...) -> the folder of a sweep over sampler.guidance with evaluations.

  A loss of None is a run that has not begun, one of 'failed' a run that failed at step 3.
  """

  def make(losses, name='sweep', cards=None, **options):
    folder, runs = tmp_path / name, []
    for guidance, seeds in losses.items():
      for seed, loss in seeds.items():
        run = f'guidance={guidance:g},seed={seed}'
        changes = {'sampler.guidance': guidance, 'seed': seed}
        found = card(**(cards or {}))
        found['sampler'] = {**found['sampler'], 'guidance': guidance}
        if loss == 'failed':
          fake_run(folder / run, changes, step=3, job={'command': 'train', 'exit': 3, 'log': 'job.log'}, **options)
        elif loss is not None:
          fake_run(folder / run, changes, loss=loss, evaluation={
            'metrics': {'heldout/loss': loss, 'samples/frechet': 10 * loss, 'samples/odd': 1.0}, 'card': found},
            curve=[(5, loss + 1), (10, loss)], **options)
        given = fake_run(tmp_path / f'{name}_given' / run, changes)
        atomic.write(folder / '.sweep' / run, {'config.json': (given / 'config.json').read_bytes()})
        runs.append({'name': run, 'overrides': changes, 'current': True})
    atomic.write_json(folder / 'sweep.json', {
      'file': 'fake.py', 'argument': '', 'fixed': {}, 'imports': [], 'paths': [],
      'labels': {'sampler.guidance': 'guidance', 'seed': 'seed'}, 'runs': runs})
    return folder

  return make
