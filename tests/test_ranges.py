"""Numbers out of their range are refused by name, before data is read and before anything is computed."""

import pathlib
import re

import jax
import numpy as np
import pytest

from genjax import checks
from genjax import config as config_lib
from genjax.cli import configs, sample
from genjax.cli.main import main
from genjax.configs import common
from genjax.data.pipeline import Pipeline
from genjax.diffusion import parameterizations, schedules
from genjax.runs import builders
from genjax.training import keys
from genjax.training.experiment import Condition
from genjax.training.run import Settings
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent

# Config file -> (key, value, what the message says after the key, or the whole key that it names in its place).
BAD = {
  'quickstart': (
    # What every config has.
    ('seed', '-1', 'must not be negative'), ('seed', '9223372036854775809', 'below'),
    ('seed', '9223372036854775808', 'below'), ('seed', '18446744073709551617', 'below'),
    ('steps', '-1', 'must not be negative'), ('steps', '2147483648', 'at most 2147483647'),
    ('batch_size', '0', 'at least 1'), ('batch_size', '-8', 'at least 1'), ('microbatches', '0', 'at least 1'),
    ('log_every', '-1', 'must not be negative'), ('evaluate_every', '-2', 'must not be negative'),
    ('evaluate_batches', '-1', 'must not be negative'), ('sample_every', '-1', 'must not be negative'),
    ('sample_num', '0', 'at least 1'), ('checkpoint.every', '-1', 'must not be negative'),
    ('checkpoint.keep', '0', 'at least 1'), ('checkpoint.keep', '-1', 'at least 1'),
    ('watchdog_seconds', '-1', 'must not be negative'), ('watchdog_seconds', 'nan', 'must be finite'),
    ('nonfinite.limit', '0', 'at least 1'), ('profile.start', '-1', 'must not be negative'),
    ('profile.steps', '-1', 'must not be negative'), ('lora.rank', '-1', 'must not be negative'),
    ('lora.alpha', 'nan', 'must be finite'), ('lora.alpha', '-1', 'must not be negative'),
    ('lora.dropout', '1', r'must lie in \[0, 1\)'), ('optimizers.net.lr', 'nan', 'must be finite'),
    ('optimizers.net.lr', 'inf', 'must be finite'), ('ema.net', 'nan', 'must be finite'),
    ('sampler.guidance', 'nan', 'must be finite'),
    # A diffusion transformer.
    ('model.patch', '0', 'at least 1'), ('model.width', '0', 'at least 1'), ('model.depth', '0', 'at least 1'),
    ('model.depth', '-3', 'at least 1'), ('model.heads', '0', 'at least 1'),
    ('model.heads', '3', 'config.model.width must be a multiple'),
    ('data.shape', '(0,8,1)', 'whole numbers of at least 1'), ('data.shape', '(8,8)', 'height, width and channels'),
    ('data.num_classes', '-1', 'must not be negative'), ('objective.label_dropout', '1.5', r'must lie in \[0, 1\)'),
    ('objective.label_dropout', '-0.1', r'must lie in \[0, 1\)'), ('sampler.guidance', '-1', 'must not be negative'),
    ('sampler.clip', '-1', 'must not be negative'), ('sampler.steps', '0', 'at least 1'),
    ('data.threads', '0', 'config.data.threads must be at least 1'),
    ('sampler.spacing', 'cubic', 'config.sampler.spacing must be one of'),
    ('evaluation.num_samples', '0', 'at least 2'), ('evaluation.neighbours', '-1', 'at least 1')),
  'diffusion/digits_edm': (
    ('objective.process.sigma_max', '0', 'above 0'), ('objective.parameterization.data_std', '-0.5', 'above 0'),
    ('objective.times.std', '0', 'above 0')),
  'diffusion/cifar10_ddpm': (
    ('model.base', '0', 'at least 4'), ('model.multipliers', '()', 'at least one level'),
    ('model.multipliers', '(1,0)', 'at least 1'), ('model.blocks', '0', 'at least 1'),
    ('model.groups', '0', 'at least 1'), ('model.dropout', '1.0', r'must lie in \[0, 1\)'),
    ('model.dropout', '-0.5', r'must lie in \[0, 1\)'), ('model.dtype', 'float31', r"one of \('float32', 'bfloat16'"),
    ('objective.process.steps', '0', 'at least 1')),
  'diffusion/dit_imagenet': (
    ('model.dtype', 'bf16', 'one of'), ('model.width', '18', 'multiple of 4')),
  'language/python_code': (
    ('data.context', '0', 'at least 2'), ('data.context', '-16', 'at least 2'), ('model.layers', '0', 'at least 1'),
    ('model.heads', '0', 'at least 1'),
    ('model.heads', '3', 'config.model.width .16. must be a multiple of heads .3.'),
    ('model.kv_heads', '-1', 'must not be negative'), ('model.width', '0', 'at least 1'),
    ('model.mlp_width', '-1', 'must not be negative'), ('model.dropout', '1', r'must lie in \[0, 1\)'),
    ('model.dropout', '-0.1', r'must lie in \[0, 1\)'), ('model.dtype', 'int8', 'one of'),
    ('sampler.length', '0', 'at least 1'), ('sampler.temperature', '-1', 'must not be negative'),
    ('sampler.top_k', '-1', 'must not be negative'), ('sampler.top_p', '0', 'above 0'),
    ('sampler.top_p', '1.5', 'at most 1'), ('sampler.min_p', '2', 'at most 1'),
    ('sampler.repetition_penalty', '0', 'above 0'), ('sampler.beams', '0', 'at least 1'),
    ('sampler.length_penalty', 'inf', 'must be finite')),
  'language/llama': (
    ('model.kv_heads', '3', r'config.model.heads .2. must be a multiple of kv_heads .3.'),
    ('model.rope_theta', '0', 'above 0'), ('model.norm_eps', '-1e-6', 'above 0'),
    ('data.vocabulary_size', '-5', 'must not be negative'), ('model.heads', '16',
                                                             'config.model.head_dim must be even')),
  'language/mixtral': (
    ('model.experts_per_token', '0', 'between 1 and experts'), ('model.balance', '-1', 'not be negative')),
  'language/shakespeare_char': (
    ('model.attention_dropout', '1', r'must lie in \[0, 1\)'), ('data.heldout_stride', '-1', 'must not be negative')),
  'language/names': (
    ('model.init_scale', '0', 'above 0'), ('sampler.stop', '(-1,)', 'at least 0')),
  'language/names_ngram': (
    ('model.levels', '0', 'at least 1'), ('model.width', '0', 'at least 1'),
    ('model.momentum', '1', r'must lie in \[0, 1\)'), ('sampler.length', '0', 'at least 1')),
  'language/additions': (
    ('model.hidden', '0', 'at least 1'), ('model.embedding', '-1', 'must not be negative'),
    ('model.dtype', 'int8', 'one of')),
  'autoregressive/mnist_made': (
    ('model.hidden', '()', 'at least one layer'), ('model.hidden', '(8,0)', 'at least 1'),
    ('model.orderings', '0', 'at least 1'), ('model.order', 'snake', 'one of')),
  'autoregressive/mnist_nade': (
    ('model.hidden', '0', 'at least 1'), ('model.activation', 'tanh', 'one of')),
  'audio/chorales': (
    ('data.steps', '0', 'at least 1'), ('model.layers', '0', 'at least 1')),
  'language/bert': (
    ('data.context', '2', 'at least 3'), ('data.vocabulary_size', '0', 'at least 1'),
    ('model.layers', '0', 'at least 1'), ('model.types', '0', 'at least 1'),
    ('model.dropout', '1', r'must lie in \[0, 1\)'),
    ('model.heads', '3', 'config.model.width .16. must be a multiple')),
  'language/sst2': (
    ('model.context', '-1', 'must not be negative'), ('model.width', '0', 'at least 1'),
    ('model.dtype', 'half', 'one of')),
  'language/multi30k': (
    ('data.context', '0', 'at least 2'), ('data.least_count', '0', 'at least 1'), ('model.layers', '0', 'at least 1'),
    ('model.heads', '3', 'config.model.width .16. must be a multiple'),
    ('model.dropout', '2', r'must lie in \[0, 1\)'), ('evaluation.batch', '-1', 'must not be negative'),
    ('sampler.beams', '-1', 'at least 1')),
  'audio/spoken_digits': (
    ('data.seconds', '0', 'above 0'), ('data.bands', '0', 'at least 1'), ('data.hop', '0', 'at least 1'),
    ('data.shift', '-1', 'must not be negative'), ('data.rate', '-8000', 'must not be negative'),
    ('data.longest', '-1', 'must not be negative'), ('model.decoder_layers', '-1', 'must not be negative'),
    ('objective.smoothing', '1', r'must lie in \[0, 1\)')),
  'autoencoders/digits_vae': (
    ('model.latent', '0', 'at least 1'), ('model.channels', '()', 'at least one stage'),
    ('model.channels', '(8,0)', 'at least 1'), ('objective.scale', '0', 'above 0'),
    ('objective.beta', '-1', 'must not be negative'), ('objective.kl_warmup', '-1', 'must not be negative'),
    ('objective.importance_samples', '0', 'at least 1'), ('model.dtype', 'float', 'one of')),
  'autoencoders/vqgan': (
    ('quantizer.size', '0', 'at least 1'), ('quantizer.decay', '1', r'must lie in \[0, 1\)'),
    ('quantizer.revive', '-1', 'must not be negative'), ('critic.layers', '0', 'at least 1'),
    ('objective.critic_start', '-1', 'must not be negative'), ('objective.critic_weight', '-1', 'must not be negative'),
    ('model.groups', '0', 'at least 1')),
  'autoencoders/mnist_vae': (
    ('model.hidden', '(0,)', 'at least 1'), ('model.latent', '-1', 'at least 1')),
  'gans/digits_gan': (
    ('model.latent', '0', 'at least 1'), ('model.generator_width', '0', 'at least 1'),
    ('model.discriminator_width', '-1', 'at least 1'), ('model.momentum', '1', r'must lie in \[0, 1\)'),
    ('model.pack', '0', 'at least 1'), ('objective.r1_every', '-1', 'negative'),
    ('objective.r1_gamma', '-1', 'must not be negative'), ('objective.discriminator_steps', '-1', 'at least 1'),
    ('model.dtype', '', 'one of')),
  'gans/grid_gan': (
    ('model.pieces', '0', 'at least 1'), ('model.scale', '0', 'above 0'),
    ('model.generator_widths', '(8,0)', 'at least 1'), ('data.size', '0', 'at least 1')),
  'classifiers/digits_classifier': (
    ('model.width', '0', 'at least 1'), ('model.layers', '0', 'at least 1'),
    ('model.dropout', '1', r'must lie in \[0, 1\)'), ('objective.smoothing', '-0.1', r'must lie in \[0, 1\)'),
    ('objective.shift', '-1', 'must not be negative'), ('data.num_classes', '-1', 'must not be negative'),),
}
CASES = [(name, *case) for name, cases in BAD.items() for case in cases]


def build(name, *overrides):
  """As `genjax train` does before it makes a run."""
  values, paths = configs.parse(
    'train', [f'--config={ROOT}/configs/{name}.py:smoke', *(f'--config.{text}' for text in overrides)], '')
  builders.build(values.config, paths)
  return builders.settings(values.config)


@pytest.mark.parametrize(('name', 'key', 'value', 'words'), CASES, ids=lambda value: str(value)[:24])
def test_refused_by_name(name, key, value, words, monkeypatch):
  monkeypatch.setattr(Pipeline, 'source', property(lambda self: pytest.fail('data was read')))
  with pytest.raises(UserError) as error:
    build(name, f'{key}={value}')
  assert re.search(words, str(error.value)), error.value
  assert f'config.{key} ' in str(error.value) or words.startswith('config.'), error.value


def test_the_table_covers_all_families():
  assert len(CASES) >= 60
  files = [[f'--config={ROOT}/configs/{name}.py:smoke'] for name in BAD]
  assert {configs.parse('train', argv, '')[0].config.experiment for argv in files} == {
    f'genjax.experiments.{name}' for name in ('diffusion', 'language', 'chorales', 'bert', 'seq2seq', 'speech', 'vae',
                                              'gan', 'classifier', 'ngrams', 'autoregressive', 'vq')
  }


@pytest.mark.parametrize('override', [
  'log_every=0', 'evaluate_every=0', 'evaluate_batches=0', 'sample_every=0', 'checkpoint.every=0', 'watchdog_seconds=0',
  'lora.rank=0', 'profile.steps=0', 'sampler.guidance=0', 'sampler.clip=0', 'objective.label_dropout=0.0', 'steps=0',
  f'seed={2**63 - 1}'
])
def test_what_switches_off_is_no_error(override):
  extra = ('sampler.guidance=1.0',) if 'label_dropout' in override else ()
  steps = ('optimizers.net.warmup=0',) if override == 'steps=0' else ()
  build('quickstart', override, *extra, *steps)


def test_every_other_command_refuses_too(tmp_path, capsys):
  config = f'--config={ROOT}/configs/quickstart.py:smoke'
  for argv in (['train', config, f'--workdir={tmp_path / "run"}'], ['plan', config,
                                                                    '--topology=cpu:1'], ['inspect', config]):
    assert main([*argv, '--config.seed=-3']) == 2
    assert 'config.seed must not be negative, got -3' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('command', ['sample', 'evaluate'])
@pytest.mark.parametrize('seed', [-1, 2**63, 2**64])
def test_seeds_of_flags(command, seed, tmp_path, capsys):
  """Before the run is opened: there is none."""
  assert main([command, f'--workdir={tmp_path}', f'--seed={seed}',
               *(['--out=x.npz'] if command == 'sample' else [])]) == 2
  assert '--seed must ' in capsys.readouterr().err


def test_seeds_that_are_taken_give_keys_of_their_own():
  """`jax.random.key` alone would take 2^32 for 0."""
  for seed in (2**63, 2**64):
    with pytest.raises(UserError, match='config.seed must be below 9223372036854775808'):
      Settings(steps=1, batch_size=1, seed=seed)
    with pytest.raises(UserError, match='seed must be below'):
      Pipeline(lambda: pytest.fail('opened'), 4, seed)
  taken = [
    jax.random.key_data(keys.of(seed, 'init')).tolist()
    for seed in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1)
  ]
  assert all(taken.count(one) == 1 for one in taken)


def test_a_range_of_conditions_that_runs_backwards():
  known = {'label': Condition.label(10)}
  assert sample.parse_conditions('label=2-4', None, known, 4)['label'].tolist() == [2, 3, 4, 2]
  with pytest.raises(UserError, match='the range 9-0 is empty; write the smaller number first, 0-9'):
    sample.parse_conditions('label=9-0', None, known, 4)


def test_nan_hides_nowhere():
  config = common.base(steps=3, batch_size=4)
  config.data = dict(shape=(1, 2), nested=((0.5, ('x', float('nan'))),))
  with pytest.raises(UserError, match='config.data.nested must be finite'):
    config_lib.check(config)
  config.data = dict(part=dict(dtype='complex64'))
  with pytest.raises(UserError, match='config.data.part.dtype must be one of'):
    config_lib.check(config)


def test_functions_that_make_processes():
  for make, options in (
    (schedules.vp_linear, dict(steps=0)), (schedules.vp_linear, dict(beta_start=0.0)),
    (schedules.vp_linear, dict(beta_end=1.5)), (schedules.vp_cosine, dict(steps=-1)),
    (schedules.vp_cosine, dict(beta_max=0.0)), (schedules.edm, dict(sigma_max=-1.0)),
    (schedules.logit_normal, dict(std=0.0)), (schedules.log_normal, dict(std=-1.0)),
    (parameterizations.edm, dict(data_std=float('nan')))):
    with pytest.raises(UserError, match=f'^{next(iter(options))} must'):
      make(**options)


@pytest.mark.parametrize(('check', 'words'),
                         [(lambda: checks.require('x', 'a', at_least=0), "x must be a number, got 'a'"),
                          (lambda: checks.require('x', True), 'x must be a number'),
                          (lambda: checks.require('x', 2, above=0, at_most=1, meaning='a share'),
                           r'x must be above 0 and at most 1 \(a share\), got 2'),
                          (lambda: checks.whole({'x': 1.5}, 1, 'x'), 'x must be a whole number of at least 1, got 1.5'),
                          (lambda: checks.whole({'x': (1, True)}, 1, 'x'), 'x must be whole numbers'),
                          (lambda: checks.rates({'x': 'a'}, 'x'), 'x must lie in')])
def test_checks(check, words):
  with pytest.raises(checks.OutOfRange, match=words):
    check()
  with pytest.raises(UserError, match=f'config.model.{words}'), checks.under('config.model'):
    check()
  checks.whole({'x': None}, 1, 'x', 'absent')
  checks.whole({'x': np.int32(3)}, 1, 'x')
