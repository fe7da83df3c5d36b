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
IMAGES = dict(data_dir='', originals='', resize='', crop=False, threads=1)  # see `genjax.experiments.images.Data`
PICTURES = {'digits': (8, 1), 'mnist': (28, 1), 'fashion_mnist': (28, 1), 'cifar10': (32, 3)}  # side and channels
IMAGE_EVALUATION = dict(num_samples=2000, classifier='', neighbours=2000)  # see `genjax.experiments.measures.Options`


def parse_arg(arg: str | None, **defaults: Any) -> Any:
  """Parses the arguments in `--config=FILE:key=value,flag`; their types are those of the defaults.

  A name without a value sets a flag to True. The result has all defaults, overridden by the arguments.

  Raises:
    ValueError: a key is unknown, or a value has another type than its default.
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


def size(sizes: dict[str, tuple], name: str, argument: str = 'model') -> tuple:
  """Looks up the table row for the config argument `argument`.

  Raises:
    ValueError: there is no such row.
  """
  if name not in sizes:
    raise ValueError(f'config argument {argument} must be one of {sorted(sizes)}, got {name!r}')
  return sizes[name]


def base(*, steps: int, batch_size: int, seed: int = 0) -> Any:
  """What every config has, with its defaults; a builder takes the sections data, model, objective, sampler, evaluation
  and optimizers.

  Where an `every` is 0, nothing happens in between; the last line of the log, the evaluation and the checkpoint at the
  end of a run still do, samples do not. `genjax.config.MIN_VALUES` has the smallest values.

  Options:
    experiment: module path of the builder, such as 'genjax.experiments.diffusion'.
    seed: of all random numbers, from 0 to 2^63 - 1.
    steps: optimizer steps of the whole run.
    batch_size: examples of a step, over all devices.
    microbatches: parts into which a batch is split to accumulate gradients.
    steps_per_call: steps in one call of the device; more help where a step takes about a millisecond.
    reduce: type in which devices sum gradients; 'bfloat16' halves what they send.
    ema: decay of the moving average of this group's parameters, per step, or a dict of several averages, see
      docs/averages.md; without it there is no average.
    mesh.data: devices along the axis that splits the batch; -1 is all that the others leave.
    mesh.fsdp: devices along the axis that splits the batch and the parameters; -1 is all that the others leave.
    mesh.tensor: devices along the axis that splits hidden channels, heads, vocabulary; -1 is all that the others leave.
    mesh.context: devices along the axis that splits sequences; -1 is all that the others leave.
    mesh.expert: devices along the axis that splits experts; -1 is all that the others leave.
    rules: mesh axis, or axes, that split arrays along this logical axis; None for none.
    loggers: names of services that are told all that is logged: 'wandb', 'mlflow', see docs/seeing.md.
    log_every: steps from one line of the log to the next.
    evaluate_every: steps from one evaluation on held-out data to the next.
    evaluate_batches: held-out batches of an evaluation during training; 0 is the whole split.
    histograms_every: steps from one histogram of parameters, gradients and updates to the next, for TensorBoard; 0 for
      none. Each costs about a step.
    sample_every: steps from one set of samples to the next; with 0 there are none at the end either.
    sample_num: samples in a set.
    checkpoint.every: steps from one checkpoint to the next.
    checkpoint.keep: how many of the newest checkpoints are kept, at least 1.
    checkpoint.best: held-out metric whose best checkpoint is kept too; '' for none.
    checkpoint.mode: 'min' or 'max', which values of that metric are best.
    checkpoint.asynchronous: whether training goes on while a checkpoint is written.
    watchdog_seconds: seconds without a finished step after which the run ends with exit code 5; 0 is never. It must be
      longer than any compilation.
    nonfinite.policy: what a NaN or infinite loss or gradient does: 'abort' ends the run with exit code 3, 'skip'
      leaves out the update, 'rollback' goes back to the last checkpoint.
    nonfinite.limit: how many updates in a row 'skip', and how many times 'rollback', bears before it aborts.
    init_from: RUN_DIR or RUN_DIR@STEP, whose parameters the run begins with; '' for fresh ones.
    init.averaged: whether it begins with the moving averages of that run.
    init.strict: whether a parameter that only one of both has, and that no rule covers, is an error.
    init.rules: how its parameters are renamed, dropped and kept, see `genjax.training.checkpoints.warm_start`.
    parts: runs and folders of public weights that the run stands on, by name, see `genjax.runs.sources.Options`.
    lora.rank: rank of the low-rank adapters that are trained in place of the parameters of init_from; 0 for none.
    lora.alpha: adapters are multiplied by alpha / rank.
    lora.dropout: rate at which inputs of adapters are dropped in training.
    lora.paths: regular expressions of the paths of the kernels that get adapters.
    lora.groups: groups of parameters to adapt; () is all in which a path matches.
    lora.dtype: type in which the base is kept; '' is the one in which it is computed with.
    lora.measures: whether `genjax evaluate` measures what merging changes, see docs/lora.md.
    profile.start: step at which a trace of the device begins.
    profile.steps: steps of the trace; 0 for none.
  """
  config: Any = ml_collections.ConfigDict()  # its entries have no static types
  config.experiment = ''
  config.seed = seed
  config.steps = steps
  config.batch_size = batch_size
  config.microbatches = 1
  config.steps_per_call = 1
  config.reduce = 'float32'
  config.data = ml_collections.ConfigDict()
  config.model = ml_collections.ConfigDict()
  config.objective = ml_collections.ConfigDict()
  config.sampler = ml_collections.ConfigDict()
  config.evaluation = ml_collections.ConfigDict()  # options of sample-based metrics
  config.optimizers = ml_collections.ConfigDict()
  config.ema = ml_collections.ConfigDict()  # group -> decay, or averages by name
  config.mesh = ml_collections.ConfigDict(dict(data=-1, fsdp=1, tensor=1, context=1, expert=1))
  config.rules = ml_collections.ConfigDict()  # logical axis -> mesh axis
  config.loggers = ()
  config.log_every = 50
  config.evaluate_every = 0
  config.evaluate_batches = 0
  config.histograms_every = 0
  config.sample_every = 0
  config.sample_num = 64
  config.checkpoint = ml_collections.ConfigDict(dict(every=1000, keep=2, best='', mode='min', asynchronous=True))
  config.watchdog_seconds = 0.0
  config.nonfinite = ml_collections.ConfigDict(dict(policy='abort', limit=5))
  config.init_from = ''
  config.init = ml_collections.ConfigDict(dict(averaged=False, strict=True, rules=()))
  config.parts = ml_collections.ConfigDict()  # name -> RUN_DIR, RUN_DIR@STEP, a folder, or a dict of options
  config.lora = ml_collections.ConfigDict(dict(rank=0, alpha=16.0, dropout=0.0, paths=(), groups=(), dtype='',
                                             measures=False))
  config.profile = ml_collections.ConfigDict(dict(start=0, steps=0))
  config.assets = ml_collections.ConfigDict()  # filled by a run with what it found in its data
  return config


def pictures(arg: Any, share: int, resize: str) -> dict[str, Any]:
  """config.data of a standard set, or of a folder of pictures.

  Args:
    arg: has `data`, a set of `PICTURES` or a folder; `pixels`, the side to which pictures are resized and cropped, 0
      for that of the set; and `channels`.
    share: of a folder's pictures, per cent, that are trained on.
    resize: the filter.

  Raises:
    ValueError: no side is given, and none is known.
  """
  if not arg.pixels and arg.data not in PICTURES:
    raise ValueError(f'config argument pixels is needed, the side of the images, for data={arg.data!r}: it is known of '
                     f'{sorted(PICTURES)} only')
  side, channels = (arg.pixels, arg.channels) if arg.pixels else PICTURES[arg.data]
  splits = ('train', 'test') if arg.data in PICTURES else (f'train[:{share}%]', f'train[{share}%:]')
  given = {**IMAGES, **(dict(resize=resize, crop=True) if arg.pixels else {})}
  return dict(name=arg.data, train=splits[0], heldout=splits[1], shape=(side, side, channels), num_classes=0, **given)


def classifier(arg: Any, data: dict[str, Any], *, steps: int, width: int, layers: int, features: int = 64,
               rate: float = 2e-3, smoothing: float = 0.0, shift: int = 0, flip: bool = False, log_every: int = 50,
               evaluations: int = 0) -> Any:
  """A small convolutional classifier of pictures.

  Args:
    arg: has `smoke`.
    data: config.data beside `IMAGES`.
    steps: of the run.
    width: of the network.
    layers: of it.
    features: of it.
    rate: peak learning rate.
    smoothing: see the objective, as `shift` and `flip`.
    log_every: see `base`.
    evaluations: how many there are in the run; 0 for one at its end alone.
  """
  config = base(steps=steps, batch_size=128)
  config.experiment = 'genjax.experiments.classifier'
  config.data = dict(IMAGES, **data)
  config.model = dict(name='convolutional', width=width, layers=layers, convolutions=1, features=features, dropout=0.0)
  config.objective = dict(smoothing=smoothing, shift=shift, flip=flip)
  config.optimizers = dict(net=dict(name='adam', lr=rate, warmup=0, schedule='cosine'))
  config.log_every = log_every
  config.evaluate_every = max(1, steps // evaluations) if evaluations else 0
  if arg.smoke:
    smoke(config)
    config.model.update(width=8, features=8)
  config.sample_every = 0  # nothing to sample
  return config


def translation(*, steps: int, batch_size: int, every: int, sample_num: int, **data: Any) -> Any:
  """Pictures from pictures, without networks and optimizers.

  Args:
    steps: of the run.
    batch_size: of it.
    every: steps from one evaluation, and one set of samples, to the next.
    sample_num: see `base`.
    **data: config.data, see `genjax.experiments.translation_data.Data`.
  """
  config = base(steps=steps, batch_size=batch_size)
  config.experiment = 'genjax.experiments.translation'
  config.data = dict(dict(IMAGES, train='train', heldout='test', margin=0, flip=True), **data)
  config.evaluation = dict(num_samples=1000, measures=('l1', 'psnr', 'ssim'))
  config.evaluate_every = config.sample_every = every
  config.evaluate_batches = 20
  config.sample_num = sample_num
  return config


def tokens(path: str, vocabulary_size: int, context: int) -> dict[str, Any]:
  """config.data of a language model on a .npy file of tokens (the last 100,000 are held out), or random tokens."""
  names = dict(name=path, train='train[:-100000]', heldout='train[-100000:]')
  return dict(names if path else dict(name='random_tokens', train='train', heldout='heldout'), vocabulary='ids',
              vocabulary_size=vocabulary_size, context=context, start='1', data_dir='', originals='')


def decoder(path: str, *, steps: int, batch_size: int, vocabulary_size: int, context: int, rate: float,
            model: dict[str, Any]) -> Any:
  """A decoder for pods: trained on given tokens in bfloat16, with parameters sharded over all devices."""
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
  config.rules.vocab = None  # no tensor axis divides 50,257
  if arg.smoke:
    config = smoke(config)
    smoke_tokens(config)
  return config


def smoke_tokens(config: Any) -> None:
  """Shrinks a language model on random tokens."""
  config.data.update(tokens('', vocabulary_size=61, context=16))
  config.model.update(layers=2, heads=2, width=16, dtype='float32')
  config.sampler.length = 20
  config.optimizers.net.warmup = 1


def smoke(config: Any) -> Any:
  """The two-step variant for tests: the same code with small shapes, and every feature used once."""
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


def captioned_shapes(config: Any) -> None:
  """Coloured shapes with captions of a few words, which a text encoder of the network's own reads."""
  config.data = dict(IMAGES, name='captioned_shapes', train='train', heldout='heldout', shape=(16, 16, 3),
                     num_classes=0, flip=False)
  config.conditions = dict(text=dict(kind='text', column='text', dropout=0.1, truncate=True, length=12,
                                     vocabulary='wordpiece', vocabulary_size=200))


def smoke_captions(config: Any) -> None:
  """The two-step variant of a model of `captioned_shapes`."""
  smoke(config)
  config.data.shape, config.conditions.text.vocabulary_size = (8, 8, 3), 100
  config.sampler.steps = 2
  config.optimizers.net.warmup = 1


def captioned_latents(config: Any, folder: str, size: int, parts: dict[str, str], prompt: dict[str, Any]) -> None:
  """Pictures with captions that `genjax data encode --prompts` encoded.

  Args:
    config: is changed.
    folder: the encoded data.
    size: side of the pictures.
    parts: name in config.parts -> run, or folder of public weights.
    prompt: how the captions were read, options of the condition of kind 'prompt'.
  """
  config.data = dict(IMAGES, name=folder, train='train', heldout='heldout', content='latents', num_classes=0,
                     shape=(size, size, 3), flip=False, resize='bicubic', crop=True, threads=4)
  config.parts = dict(parts)
  config.conditions = dict(text=dict(kind='prompt', column='text', dropout=0.1, stored=True, **prompt))


def random_latents(config: Any, size: int, channels: int, tokens: tuple[int, int], pooled: int = 0) -> None:
  """Noise in the place of encoded pictures with captions: neither an autoencoder nor text encoders are there, and the
  network has its size, for `genjax inspect` and `genjax plan`.

  Args:
    config: is changed.
    size: side of the pictures.
    channels: of the latents.
    tokens: how many there are of a caption, and their width.
    pooled: width of the vector of a caption; 0 for none.
  """
  config.data = dict(IMAGES, name='random_latents', train='train', heldout='heldout', content='latents', num_classes=0,
                     shape=(size // 8, size // 8, channels), flip=False)
  length, width = tokens
  config.conditions = dict(text=dict(kind='tokens', column='text_tokens', width=width, length=length, dropout=0.1))
  if pooled:
    config.conditions.pooled = dict(kind='vector', column='text_pooled', width=pooled, dropout=0.1)


def flow_matching(config: Any, small: bool, steps: int, shift: float, guidance: float) -> None:
  """Flow matching with times as in Stable Diffusion 3, and the rates of a small model or of a large one."""
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=0.0, std=1.0), weighting=dict(name='uniform'),
                          stratified=True)
  config.sampler = dict(name='heun' if small else 'euler', steps=12 if small else steps, spacing='', clip=0.0,
                        guidance=3.0 if small else guidance, rescale=0.0, options=dict(),
                        **{**SAMPLING, 'shift': 1.0 if small else shift})
  rate = dict(lr=1e-3, warmup=100, schedule='cosine', end=0.02) if small else dict(lr=1e-4, warmup=1000)
  config.optimizers = dict(net=dict(name='adamw', b2=0.99 if small else 0.95, **rate))
  config.ema = dict(net=0.995 if small else 0.9999)
  every(config, 1500 if small else 10_000)


def every(config: Any, steps: int) -> None:
  """Evaluates, samples and saves all these steps."""
  config.evaluate_every = config.sample_every = config.checkpoint.every = steps
