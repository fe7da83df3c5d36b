"""Pieces shared by the configs: arguments, the base config, the smoke variant."""

import ast
from typing import Any

import ml_collections

TOKENS = dict(length=256, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, stop=(), suppress=(),
              begin_suppress=(), beams=1, length_penalty=1.0)  # see `genjax.objectives.decoding.SamplerOptions`
SMALL_BERT = dict(layers=2, heads=2, width=128, types=1, dropout=0.1, init_scale=0.02, dtype='float32',
                  attention='auto', remat='none', unroll=True)
# What a sampler of diffusion has beside its name, steps and guidance: `genjax.experiments.diffusion.SamplerOptions`.
SAMPLING = dict(interval=(), shift=1.0, rho=7.0, sigma_min=0.002, sigma_max=0.0)
IMAGES = dict(data_dir='', originals='', resize='', crop=False, threads=1)  # see `genjax.experiments.images.batches`
IMAGE_EVALUATION = dict(num_samples=2000, classifier='', neighbours=2000)  # see `genjax.experiments.measures.Options`


def parse_arg(arg: str | None, **defaults: Any) -> Any:
  """Arguments after the colon of `--config=FILE:key=value,flag`, typed by their defaults.

  A name alone sets a flag to True. The result holds every default, replaced where the argument says so.

  Raises:
    ValueError: an unknown key, or a value of another type than the default.
  """
  values = dict(defaults)
  for item in filter(None, (arg or '').split(',')):
    name, given, text = item.partition('=')
    if name not in defaults:
      raise ValueError(f'unknown config argument {name!r}; this config takes {sorted(defaults)}')
    default = defaults[name]
    try:
      value = True if not given else text if isinstance(default, str) else ast.literal_eval(text)
    except (SyntaxError, ValueError):
      value = text
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
      value = float(value)
    if type(value) is not type(default):
      raise ValueError(
        f'config argument {name} takes {type(default).__name__} (default {default!r}), got {text or True!r}')
    values[name] = value
  return ml_collections.ConfigDict(values)


def size(sizes: dict[str, tuple], name: str) -> tuple:
  """The row of a table that the config argument `model` names.

  Raises:
    ValueError: there is none.
  """
  if name not in sizes:
    raise ValueError(f'config argument model must be one of {sorted(sizes)}, got {name!r}')
  return sizes[name]


def base(*, steps: int, batch_size: int, seed: int = 0) -> Any:
  """What every config has, with its defaults. Steps count optimizer steps, `every` counts steps.

  With an `every` of 0 nothing happens in between: what is due at the end of a run (its last line, evaluation and
  checkpoint) still is, except samples. `genjax.config.LEAST` has the smallest values.
  """
  config: Any = ml_collections.ConfigDict()  # its entries have no static types
  config.experiment = ''  # module path of the builder
  config.seed = seed  # from 0 to 2^63 - 1
  config.steps = steps
  config.batch_size = batch_size
  config.microbatches = 1  # gradient accumulation
  config.steps_per_call = 1  # steps of one call of the device; more of them help where a step takes about a millisecond
  config.reduce = 'float32'  # type in which devices sum gradients; 'bfloat16' halves what they send
  config.data = ml_collections.ConfigDict()
  config.model = ml_collections.ConfigDict()
  config.objective = ml_collections.ConfigDict()
  config.sampler = ml_collections.ConfigDict()
  config.evaluation = ml_collections.ConfigDict()  # options of sample-based metrics
  config.optimizers = ml_collections.ConfigDict()
  config.ema = ml_collections.ConfigDict()  # group -> decay
  config.mesh = ml_collections.ConfigDict(dict(data=-1, fsdp=1, tensor=1, context=1, expert=1))
  config.rules = ml_collections.ConfigDict()  # logical axis -> mesh axis
  config.log_every = 50
  config.evaluate_every = 0
  config.evaluate_batches = 0  # batches of an evaluation while training; 0 is the whole split
  config.histograms_every = 0  # of parameters, gradients and updates, for TensorBoard; each costs about a step
  config.sample_every = 0  # 0: not at the end either
  config.sample_num = 64
  # keep: the newest so many, at least 1; best: held-out metric whose best checkpoint is kept too, '' for none.
  config.checkpoint = ml_collections.ConfigDict(dict(every=1000, keep=2, best='', mode='min', asynchronous=True))
  # End with exit code 5 when nothing was finished for so long, 0 never; longer than any compilation.
  config.watchdog_seconds = 0.0
  # What a NaN or infinity does: 'abort'; 'skip' the update, at most `limit` in a row; 'rollback' to the last
  # checkpoint, at most `limit` times. Then exit code 3.
  config.nonfinite = ml_collections.ConfigDict(dict(policy='abort', limit=5))
  config.init_from = ''  # RUN_DIR or RUN_DIR@STEP: begin with its parameters
  # averaged: its averaged ones; rules: see genjax.training.checkpoints.warm_start; strict: whatever no rule covers is
  # an error.
  config.init = ml_collections.ConfigDict(dict(averaged=False, strict=True, rules=()))
  # Low-rank adapters of that run's parameters in place of training them: see `genjax.nn.lora.Options`; rank 0 and no
  # paths is none.
  # groups: those to adapt; () is all in which a path matches. dtype: in which the base is kept; '' is that in which it
  # is computed with.
  config.lora = ml_collections.ConfigDict(dict(rank=0, alpha=16.0, dropout=0.0, paths=(), groups=(), dtype=''))
  config.profile = ml_collections.ConfigDict(dict(start=0, steps=0))  # a trace of so many steps, 0 for none
  config.assets = ml_collections.ConfigDict()  # filled by a run with what it found in its data
  return config


def tokens(path: str, vocabulary_size: int, context: int) -> dict[str, Any]:
  """config.data of a language model on tokens from elsewhere: a .npy file whose last 100,000 are held out, or random
  ones without it."""
  names = dict(name=path, train='train[:-100000]', heldout='train[-100000:]')
  return dict(names if path else dict(name='random_tokens', train='train', heldout='heldout'), vocabulary='ids',
              vocabulary_size=vocabulary_size, context=context, start='1', data_dir='', originals='')


def decoder(path: str, *, steps: int, batch_size: int, vocabulary_size: int, context: int, rate: float,
            model: dict[str, Any]) -> Any:
  """A decoder as large as pods train: on tokens from elsewhere, in bfloat16, its parameters over all devices."""
  config = base(steps=steps, batch_size=batch_size)
  config.experiment = 'genjax.experiments.language'
  config.data = tokens(path, vocabulary_size=vocabulary_size, context=context)
  config.model = dict(dict(dropout=0.0, dtype='bfloat16', remat='full', unroll=False), **model)
  config.sampler = dict(TOKENS, temperature=0.8, top_p=0.95)
  config.optimizers.net = dict(name='adamw', lr=rate, b2=0.95, weight_decay=0.1, clip=1.0, warmup=2000,
                               schedule='cosine', end=0.1)
  config.mesh.update(data=1, fsdp=-1)
  config.evaluate_every = 5000
  config.sample_every = 5000
  config.sample_num = 4
  config.checkpoint.every = 2000
  return config


def gpt(arg: Any, *, steps: int, batch_size: int, rate: float, **sizes: int) -> Any:
  """A decoder with the vocabulary of GPT-2; `arg` has context, tokens and smoke, `sizes` layers, heads and width."""
  config = decoder(arg.tokens, steps=steps, batch_size=batch_size, vocabulary_size=50_257, context=arg.context,
                   rate=rate, model=dict(name='gpt', **sizes))
  config.sampler.temperature = 1.0
  config.rules.vocab = None  # 50,257 divides into no tensor axis
  if arg.smoke:
    config = smoke(config)
    smoke_tokens(config)
  return config


def smoke_tokens(config: Any) -> None:
  """Makes a language model on random tokens small."""
  config.data.update(tokens('', vocabulary_size=61, context=16))
  config.model.update(layers=2, heads=2, width=16, dtype='float32')
  config.sampler.length = 20
  config.optimizers.net.warmup = 1


def smoke(config: Any) -> Any:
  """The two-step variant that the tests run: same code, small shapes, everything switched on once."""
  config.steps = 2
  config.batch_size = 8
  config.log_every = 1
  config.evaluate_every = 2
  config.evaluate_batches = 1
  config.sample_every = 2
  config.sample_num = 4
  config.checkpoint.every = 2
  if config.data.get('name') in ('mnist', 'cifar10'):
    config.data.heldout = f'{config.data.heldout}[:16]'  # the last step is evaluated in full
  return config
