"""Conditions of a config: what data, network, training, guidance and `genjax sample` need of them.

See docs/conditions.md. Builders call `of`:

    made = conditions.of(config, shape, open)           # config.conditions.NAME = dict(kind='text', ...)
    objective = Diffusion(conditioners=made.conditioners, net=network(**made.network), ...)
    experiment = made.complete(Experiment(objective=objective, train=..., heldout=..., ...))

Without config.conditions, a class label is the condition where config.data.num_classes is above 0.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import inspect
import io
from typing import Any

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Columns, Pipeline, Source
from genjax.diffusion import conditioning
from genjax.diffusion.conditioning import NEGATIVE, Conditioner
from genjax.experiments import condition_kinds as kinds
from genjax.experiments import condition_media, condition_pictures, condition_prompts, condition_texts, parts
from genjax.experiments.condition_interface import Made, Scope
from genjax.options import Section
from genjax.tables import Table
from genjax.training.experiment import Condition, Experiment
from genjax.types import UserError

# Kind -> class of its options, function that makes it
KINDS: Table = Table('kind of condition', {
  'classes': (kinds.Classes, kinds.classes), 'text': (condition_texts.Text, condition_texts.text),
  'image': (kinds.Picture, kinds.picture), 'mask': (kinds.Mask, kinds.mask),
  'numbers': (kinds.Numbers, kinds.numbers), 'vector': (kinds.Vector, kinds.vector),
  'tokens': (kinds.Tokens, kinds.tokens),
  'clip': (condition_media.Clip, condition_media.clip), 'sound': (condition_media.Sound, condition_media.sound),
  'prompt': (condition_prompts.Prompt, condition_prompts.prompt),
  'inpainting': (condition_pictures.Inpainting, condition_pictures.inpainting),
  'latent': (condition_pictures.Latent, condition_pictures.latent)})
# Options of networks that conditions set
NETWORK = ('num_classes', 'vector_width', 'numbers', 'image_channels', 'token_width', 'vocabulary', 'text_length')
FILE = 'conditions.npz'  # of a run: what stands for the absence of each condition
# Names that mean something else: columns of samples, and arguments of `LoadedRun.sample`
TAKEN = ('image', 'prompt', 'negative', 'num', 'seed', 'start', 'averaged', 'chunk', 'noise', 'exact', 'conditions')
_SINGLE = ('num_classes', 'vocabulary', 'text_length')  # options of networks that one condition alone may set
Open = Callable[[str, tuple[str, ...]], Source]


@dataclasses.dataclass(frozen=True)
class Conditions:
  """The conditions of a config.

  Attributes:
    conditioners: name -> what the objective is given.
    conditions: name -> what `genjax sample` accepts.
    network: option of the network -> value.
    reads: columns of the data beside those that are diffused.
    example: column -> shape and type of a row of a batch.
    mirrored: columns of batches that are mirrored with the images.
    dropouts: name -> config key of the probability with which training leaves it out.
  """

  conditioners: Mapping[str, Conditioner]
  conditions: Mapping[str, Condition]
  network: Mapping[str, int]
  reads: tuple[str, ...]
  example: Mapping[str, jax.ShapeDtypeStruct]
  mirrored: tuple[str, ...] = ()
  dropouts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  _scopes: Mapping[str, Scope] = dataclasses.field(default_factory=dict)
  _made: Mapping[str, Made] = dataclasses.field(default_factory=dict)

  def of_network(self, kind: Callable[..., Any]) -> dict[str, int]:
    """`network` with 0 classes where there are none, for the options class of a network.

    Raises:
      UserError: the network has no such option: it cannot read a condition of that kind.
    """
    takes = inspect.signature(kind).parameters
    for name, entry in self._made.items():
      if lacking := [option for option in entry.network if option not in takes]:
        raise UserError(f'the network {kind.__name__} cannot read the condition {name!r}: it has no option '
                        f'{lacking[0]}; choose another config.model.name, or leave the condition out')
    return {'num_classes': 0, **self.network}

  def check_guidance(self, guidance: float, guidances: Mapping[str, float]) -> None:
    """Checks that training drops the conditions that guidance needs dropped.

    Args:
      guidance: scale of all together.
      guidances: name -> scale.

    Raises:
      UserError: it does not, or there is no such condition.
    """
    made = self.conditioners
    if not made and (guidance != 1.0 or guidances):
      raise UserError(f'guidance by {dict(guidances) or guidance} (config.sampler) needs a condition, such as classes '
                      '(config.data.num_classes) or text (config.conditions); without one set '
                      'config.sampler.guidance=1.0')
    for name, scale in guidances.items():
      config_lib.choose(made, name, 'a name in config.sampler.guidances')
      if scale != 1.0 and not made[name].dropout:
        raise UserError(f'config.sampler.guidances.{name}={scale} needs the condition {name!r} left out at times in '
                        f'training: {self.dropouts[name]} above 0; without that set the scale to 1.0')
    if guidance != 1.0 and not guidances and not any(condition.dropout for condition in made.values()):
      told = ' or '.join(f'{self.dropouts[name]} above 0 for the condition {name!r}' for name in made)
      raise UserError(f'config.sampler.guidance={guidance} needs a condition that training leaves out at times: '
                      f'{told}; '
                      'without that set config.sampler.guidance=1.0')

  def source(self, source: Source, keeps: tuple[str, ...]) -> Source:
    """The data with the columns that the conditions give, and the columns `keeps` as they are.

    Raises:
      UserError: the data lacks a column.
    """
    return Conditioned(source, keeps, self._scopes, self._made)

  def complete(self, experiment: Experiment) -> Experiment:
    """An experiment with the conditions' columns, what the run keeps of them, and the parts that they stand on."""
    experiment = dataclasses.replace(experiment, conditions={**experiment.conditions, **self.conditions})
    if not self._made:
      return experiment
    made = {column for entry in self._made.values() for column in entry.batches}
    keeps = tuple(name for name in experiment.example if name not in made)
    facts = {name: {**made.assets} for name, made in self._made.items() if made.assets}
    files = {name: data for made in self._made.values() for name, data in made.files.items()}
    experiment = dataclasses.replace(
      experiment, example={**experiment.example, **self.example}, train=self._data(experiment.train, keeps),
      heldout=self._data(experiment.heldout, keeps),
      assets={**experiment.assets, **({'conditions': facts} if facts else {})},
      files={**experiment.files, **files, FILE: self._nulls()})
    opened = {part.name: part for made in self._made.values() for part in (made.part, *made.further) if part}
    there = {name: (source.path, source.step) for name, source in experiment.sources.items()}
    new = [part for name, part in opened.items()
           if name not in there or there[name] != (part.source.path, part.source.step)]
    return parts.attach(experiment, *new) if new else experiment  # a condition may stand on the autoencoder, too

  def _data(self, data: Any, keeps: tuple[str, ...]) -> Any:
    if not isinstance(data, Pipeline):
      raise UserError(f'conditions read their columns from a genjax.data.pipeline.Pipeline, got {type(data).__name__}')
    return dataclasses.replace(data, open=lambda: self.source(data.open(), keeps))

  def _nulls(self) -> bytes:
    """The file that keeps what stands for the absence of each condition."""
    file = io.BytesIO()
    rows = {column: np.asarray(row) for condition in self.conditioners.values()
            for column, row in condition.null.items()}
    np.savez(file, **rows)  # type: ignore[arg-type]
    return file.getvalue()


def of(config: Config, shape: tuple[int, ...], open: Open, label_dropout: float = 0.1) -> Conditions:
  """The conditions of a config.

  Args:
    config: of the run.
    shape: (H, W, C) of what is diffused.
    open: (split, further columns) -> the data before any transform.
    label_dropout: of class labels where config.conditions says nothing of them.

  Raises:
    UserError: an unknown kind or option, a name that is taken, two conditions that a network has but one of, or a part
      that is missing or of another kind.
  """
  given = config_lib.plain(config.get('conditions') or {})
  count = config.data.get('num_classes', 0)
  labels = [name for name, options in given.items() if isinstance(options, dict) and options.get('kind') == 'classes']
  if len(labels) > 1:
    raise UserError(f'config.conditions has several conditions of kind classes, {labels}; a network takes one')
  plain = bool(count) and not labels
  if 'label' in given and 'label' not in labels:
    raise UserError("config.conditions.label must be of kind 'classes'; call a condition of another kind otherwise")
  conditioners = {'label': conditioning.classes(count, label_dropout)} if plain else {}
  known = {'label': Condition.label(count)} if plain else {}
  scopes, made = {}, {}
  folder, nulls = _kept(config)
  for name, options in given.items():
    kind, make = _kind(name, options)
    facts = config_lib.plain(config.assets).get('conditions', {}).get(name, {})
    scopes[name] = Scope(name, config, tuple(shape), open, facts, folder)
    chosen = config_lib.build(kind, options, scopes[name].where)
    made[name] = make(scopes[name], chosen)
    # What the run keeps goes first: training and sampling have the same, whatever has become of a tokenizer.
    null = {column: nulls.get(column, row) for column, row in made[name].null.items()}
    conditioners[name] = Conditioner(tuple(made[name].columns), null, chosen.dropout, made[name].give,
                                     made[name].stored)
    known.update(_accepted(scopes[name], chosen, made[name]))
  network = _network(made, {'num_classes': count} if plain else {})
  example = {column: row for entry in made.values() for column, row in entry.batches.items()}
  reads = tuple(dict.fromkeys(column for entry in made.values() for column in entry.data))
  mirrored = tuple(column for entry in made.values() for column in entry.mirrored)
  if plain:
    example['label'] = jax.ShapeDtypeStruct((), np.int32)
  dropouts = {name: f'config.conditions.{name}.dropout' if name in made else 'config.objective.label_dropout'
              for name in conditioners}
  return Conditions(conditioners, known, network, reads, example, mirrored, dropouts, scopes, made)


def options(config: Config) -> dict[str, Section]:
  """What config.conditions takes, and config.sampler.guidances."""
  given = config.get('conditions') or {}
  sections = {'': Section((All,))}
  for name, options in given.items():
    kind = options.get('kind') if hasattr(options, 'get') else None
    own = KINDS[kind][0] if kind in KINDS else None
    sections[f'conditions.{name}'] = Section(
      (own,) if own else (), chooser=f'conditions.{name}.kind',
      others={other: (row[0],) for other, row in KINDS.items() if other != kind})
  names = list(given) + (['label'] if config.data.get('num_classes', 0) and 'label' not in given else [])
  if names:
    sections['sampler.guidances'] = Section((_scales(tuple(names)),))
  return sections


@dataclasses.dataclass(frozen=True)
class All:
  """All conditions in one.

  Attributes:
    conditions: name -> dict of its kind and options, see docs/conditions.md.
  """

  conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@functools.cache
def _scales(names: tuple[str, ...]) -> Any:
  """A function that takes a scale for each condition, for `genjax.options`."""
  def scales(**named: float) -> None:
    del named

  entries = '\n'.join(f'  {name}: scale of guidance by the condition {name!r}, in place of sampler.guidance.'
                      for name in names)
  scales.__doc__ = f'Scales.\n\nArgs:\n{entries}\n'
  scales.__annotations__ = dict.fromkeys(names, float)
  scales.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=float) for name in names])
  return scales


class Conditioned:
  """Data with the columns that conditions give; see `Conditions.source`."""

  def __init__(self, source: Source, keeps: tuple[str, ...], scopes: Mapping[str, Scope], made: Mapping[str, Made]):
    self._source, self._keeps, self._scopes, self._made = source, keeps, scopes, made
    self.index, self.classes = getattr(source, 'index', {}), getattr(source, 'classes', {})
    if hasattr(source, 'draw'):  # of random parts of examples, see `genjax.data.pipeline`
      self.draw = lambda indices, random: self._told(source.draw(indices, random))
    if len(source):
      self.get(np.zeros(1, np.int64))

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return self._told(self._source.get(indices))

  def _told(self, columns: Columns) -> Columns:
    found = {name: columns[name] for name in self._keeps if name in columns}
    for name, made in self._made.items():
      for column in made.data:
        if column not in columns:
          raise condition_texts.lacking(self._scopes[name], column, columns)
      found.update(made.told(columns))
    return found

  def fingerprint(self) -> dict[str, Any]:
    facts = {name: {'columns': list(made.data), **made.facts} for name, made in self._made.items()}
    return {**self._source.fingerprint(), 'conditions': facts}


def _kind(name: str, options: Any) -> tuple[Any, Any]:
  """The entry of `KINDS` of a condition."""
  if name in TAKEN or name.startswith(NEGATIVE) or not name.isidentifier():
    raise UserError(f'config.conditions.{name}: a condition needs a name in letters, digits and _ that is none of '
                    f'{TAKEN} and does not begin with {NEGATIVE!r}')
  if not isinstance(options, dict) or 'kind' not in options:
    raise UserError(f'config.conditions.{name} must be a dict with a kind, one of {sorted(KINDS)}, got {options!r}')
  return config_lib.choose(KINDS, options['kind'], f'config.conditions.{name}.kind')


def _kept(config: Config) -> tuple[Any, Mapping[str, np.ndarray]]:
  """The folder of a run's files, and the nulls that it keeps."""
  place = config_lib.plain(config.assets).get('folder')
  folder = condition_texts.expanded(place) if place else None
  if folder is None or not (folder / FILE).is_file():
    return folder, {}
  with np.load(folder / FILE, allow_pickle=False) as file:
    return folder, dict(file)


def _network(made: Mapping[str, Made], first: Mapping[str, int]) -> dict[str, int]:
  """The options of the network: what the conditions add up to."""
  network, setters = dict(first), dict.fromkeys(first, 'label')
  for name, entry in made.items():
    for option, value in entry.network.items():
      if option in network and (option in _SINGLE or option == 'token_width' and value != network[option]):
        raise UserError(f'conditions {setters[option]!r} and {name!r} both set {option} of the network, to '
                        f'{network[option]} and {value}; it has one')
      total = value if option == 'token_width' else network.get(option, 0) + value
      network[option], setters[option] = total, name
  return network


def _accepted(scope: Scope, options: Any, made: Made) -> dict[str, Condition]:
  """What `sample` accepts of a condition: its own values, and those that guidance leads away from."""
  @functools.cache
  def heldout() -> Source:
    return scope.open(scope.config.data.heldout, made.reads)

  def default(row: int) -> np.ndarray:
    if options.default:
      return made.parse(options.default[row % len(options.default)])
    if made.numbered:
      return np.asarray(row % made.numbered, np.int32)
    try:
      source = heldout()
    except UserError as error:
      raise UserError(f'no {scope.name} is given, and the held-out data that it is then taken from cannot be read: '
                      f'{error}') from error
    columns = source.get(np.asarray([row % len(source)]))
    if missing := [column for column in made.reads if column not in columns]:
      raise condition_texts.lacking(scope, missing[0], columns)
    return made.take(columns)[0]

  text = made.row is None
  own = Condition(made.parse, default, made.describe, path=made.path, text=text, row=made.row, convert=made.convert,
                  encode=made.encode)
  negative = dataclasses.replace(
    own, parse=lambda value: _negative(scope, options, made.parse, value), optional=True,
    convert=lambda value: _negative(scope, options, made.convert or np.asarray, value),
    encode=lambda rows: {f'{NEGATIVE}{column}': value for column, value in made.encode(rows).items()},
    describe=f'{made.describe}, which guidance leads away from')
  return {scope.name: own, f'{NEGATIVE}{scope.name}': negative} if options.dropout else {scope.name: own}


def _negative(scope: Scope, options: Any, read: Callable[[Any], np.ndarray], value: Any) -> np.ndarray:
  """A negative value, where there is guidance to use it."""
  sampler = scope.config.sampler
  scale = (sampler.get('guidances') or {}).get(scope.name, 1.0 if sampler.get('guidances') else
                                                sampler.get('guidance', 1.0))
  if scale == 1.0:
    raise UserError(f'{NEGATIVE}{scope.name} is what guidance leads away from, and the scale of guidance by '
                    f'{scope.name!r} is 1: set it above, by --set sampler.guidance=3.0')
  return read(value)
