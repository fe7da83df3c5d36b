"""Optimizers by name: optax chains of clipping, a direction, decoupled weight decay and a learning rate.

Every optimizer is a direction (see `genjax.training.optimization.directions`), weight decay and a learning rate:

    parameter <- parameter - scale * rate(step) * (direction + weight_decay * parameter)
"""

from collections.abc import Callable, Mapping, Sequence
import difflib
import inspect
import math
import numbers
import re
from typing import Any

import jax
import numpy as np
import optax

from genjax.tables import Table
from genjax.training.optimization import directions, optimizer_parts
from genjax.types import Tree, UserError, leaf_name, listed, named_leaves

SCHEDULES = ('constant', 'linear', 'cosine', 'drop', 'constant_linear')
DECAY_PATTERN = r'.*(kernel|embedding)'  # parameters with weight decay by default: no biases and norms
# Functions of an optimizer's options -> optax transformation. One with an argument learning_rate is given the schedule
# and is a whole optimizer, such as `optax.novograd`; any other is a direction, and weight decay and the rate follow it.
OPTIMIZERS: Table[Callable[..., optax.GradientTransformation]] = Table('optimizer', {
  'adam': directions.adam, 'adamw': directions.adam, 'sgd': directions.sgd, 'rmsprop': directions.rmsprop,
  'lion': directions.lion, 'adafactor': directions.adafactor, 'sm3': directions.sm3, 'muon': directions.muon,
  'schedule_free': directions.schedule_free}, takes=())
RATED = 'learning_rate'  # an argument of whole optimizers
_WITHOUT_DECAY = ('adam', 'rmsprop')
_RATE = dict(warmup=0, schedule='constant', end=0.0, drop_at=0.5,
             decay_at=0.5)  # options of the learning rate and their defaults
_UNIT = (lambda x: 0 <= x < 1, 'a number from 0 up to, not including, 1')
_NOT_NEGATIVE = (lambda x: x >= 0, 'a number that is not negative')
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
  'b1': _UNIT, 'b2': _UNIT, 'b2_end': _UNIT, 'momentum': _UNIT, 'eps': (lambda x: x > 0, 'a number above 0'),
  'rms': _NOT_NEGATIVE, 'lr': _NOT_NEGATIVE, 'weight_decay': _NOT_NEGATIVE, 'clip': _NOT_NEGATIVE,
  'end': (lambda x: 0 <= x <= 1, 'a number from 0 to 1'),
  'drop_at': (lambda x: 0 <= x <= 1, 'a number from 0 to 1'),
  'decay_at': (lambda x: 0 <= x <= 1, 'a number from 0 to 1'),
  'scale': (lambda x: x > 0, 'a number above 0; frozen=True lets parameters stand still')}
_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = ('steps', 'warmup', 'factor_from', 'b2_steps')
_PATTERNS = ('decay', 'matrices', 'ends')


class Optimizer(optax.GradientTransformationExtraArgs):
  """An optax transformation that may freeze some parameters.

  Attributes:
    rules: by which they are told.
    rates: learning rate by update, of the group and of each part that another optimizer has, by label.
  """

  rules: tuple[optimizer_parts.Rule, ...] = ()
  rates: Mapping[str, optax.Schedule] = {}


def make(name: str, lr: float, steps: int, *, clip: float = 0.0, warmup: int = 0, schedule: str = 'constant',
         end: float = 0.0, drop_at: float = 0.5, decay_at: float = 0.5, parts: Sequence[Any] = (),
         where: str = 'optimizer', **options: Any) -> optax.GradientTransformation:
  """An optax transformation.

  Args:
    name: one of `OPTIMIZERS`.
    lr: peak learning rate.
    steps: number of updates after which the schedule ends, in a config by default those of the run.
    clip: largest global norm of the gradient of what is trained; 0 switches clipping off.
    warmup: number of updates in which the rate grows linearly from 0 to `lr`.
    schedule: shape after the warm-up, one of `SCHEDULES`; schedule_free has none.
    end: final learning rate as a fraction of `lr`.
    drop_at: share of the updates after the warm-up at which 'drop' takes the rate from `lr` to the final one.
    decay_at: share of the updates after the warm-up up to which 'constant_linear' keeps `lr`, before it goes to the
      final rate linearly.
    parts: rules by which parts of the tree are trained in their own way, see
      `genjax.training.optimization.optimizer_parts`. The optimizer of a part takes these options but `clip`, `parts`
      and `steps`; its rate is this one where it says nothing else.
    where: what the options are called in messages.
    **options: of the optimizer: the keywords of its function in `genjax.training.optimization.directions` and, but for
      adam and rmsprop, those of `decoupled_decay`.

  Raises:
    UserError: an unknown name or schedule; an option that this optimizer does not take, or that is no number in its
      range; a warm-up that is longer than the run. From `init`: rules that do not fit the parameters.
  """
  _check({'clip': clip, 'steps': steps}, where)
  rules = optimizer_parts.parse(parts, f'{where}.parts')
  for index, rule in enumerate(rules):
    _check({'scale': rule.scale}, f'{where}.parts[{index}]')
  rate = {'lr': lr, 'warmup': warmup, 'schedule': schedule, 'end': end, 'drop_at': drop_at, 'decay_at': decay_at}
  last = optimizer_parts.scaled(rules) if any(rule.scale != 1.0 or rule.rows for rule in rules) else None
  made = {optimizer_parts.OWN: _single(steps, where, last, name=name, **rate, **options)}
  for index, rule in enumerate(rules):
    if rule.options:
      made[rule.label] = _single(steps, f'{where}.parts[{index}]', None, **{**rate, **rule.options})
  frozen = any(rule.label == optimizer_parts.FROZEN for rule in rules)
  if frozen:
    made[optimizer_parts.FROZEN] = optimizer_parts.still()
  core = made[optimizer_parts.OWN]
  if len(made) > 1:
    core = optax.partition({**made}, lambda tree: optimizer_parts.labels(rules, tree))
  if clip:
    clipping = optax.clip_by_global_norm(clip)
    trained = lambda tree: optimizer_parts.trained(rules, tree)
    core = optax.chain(optax.masked(clipping, trained) if frozen else clipping, core)

  given = {
    optimizer_parts.OWN: {'name': name, **options}, **{rule.label: rule.options for rule in rules if rule.options}
  }

  def init(params: Tree) -> Any:
    optimizer_parts.check(rules, list(named_leaves(params)), f'{where}.parts')
    _check_matrices(params, rules, given, where)
    return core.init(params)

  optimizer = Optimizer(init, optax.with_extra_args_support(core).update)
  optimizer.rules = rules if frozen else ()
  optimizer.rates = {
    label: learning_rate(steps=steps, **{key: {**rate, **options}[key] for key in rate})
    for label, options in given.items()
  }
  return optimizer


def stop_frozen(optimizer: optax.GradientTransformation, params: Tree) -> Tree:
  """Stops the gradients of parameters that the optimizer freezes, so that they are not computed."""
  rules = getattr(optimizer, 'rules', ())
  if not rules:
    return params
  trained = optimizer_parts.trained(rules, params)
  return jax.tree.map(lambda leaf, moves: leaf if moves else jax.lax.stop_gradient(leaf), params, trained)


def takes(name: str) -> list[str]:
  """The options of an optimizer, beside those that all have."""
  options = [option for function in parts_of(name) for option in inspect.signature(function).parameters]
  return [option for option in options if option != RATED]


def parts_of(name: str) -> tuple[Callable[..., optax.GradientTransformation], ...]:
  """The functions whose keywords are the options of an optimizer, beside those that all have."""
  own = OPTIMIZERS[name]
  alone = name in _WITHOUT_DECAY or RATED in inspect.signature(own).parameters
  return (own,) if alone else (own, decoupled_decay)


def decoupled_decay(weight_decay: float = 0.0, decay: str = DECAY_PATTERN) -> optax.GradientTransformation:
  """Decoupled weight decay (Loshchilov & Hutter 2019).

  Args:
    weight_decay: share of a parameter that an update takes from it, multiplied by the rate.
    decay: regular expression of the paths of the parameters that decay; by default kernels and embeddings.
  """
  return optax.add_decayed_weights(weight_decay, lambda params: _decayed(decay, params))


def _single(steps: int, where: str, last: optax.GradientTransformation | None,
            **given: Any) -> optax.GradientTransformation:
  """One optimizer without clipping; `last` is the last transformation of its chain."""
  name = given.pop('name')
  if name not in OPTIMIZERS:
    raise UserError(f'{where} name must be one of {tuple(OPTIMIZERS)}, got {name!r}')
  allowed = [*takes(name), 'lr', *_RATE]
  for option in given:
    if option not in allowed:
      near = difflib.get_close_matches(option, allowed, n=1)
      hint = ' adamw has it.' if option in ('weight_decay', 'decay') else f' Did you mean {near[0]!r}?' if near else ''
      anew = f'; one flag gives all options anew: --{where}="{dict(name=name, lr=given["lr"])}"'
      raise UserError(
        f'{where}: {name} has no option {option!r}, got {given[option]!r}; it takes {allowed}.{hint} Leave '
        f'it out{anew if re.fullmatch("config.optimizers.[^.]+", where) else ""}')
  _check(given, where)
  rate = {key: given.pop(key) for key in ('lr', *_RATE)}
  if not steps >= rate['warmup'] >= 0:
    raise UserError(f'{where} warmup must lie between 0 and the {steps} updates of the run, got {rate["warmup"]}')
  schedule = learning_rate(rate['lr'], steps, rate['warmup'], rate['schedule'], rate['end'], where,
                           rate['drop_at'], rate['decay_at'])
  if RATED in inspect.signature(OPTIMIZERS[name]).parameters:
    whole = _made(name, where, {**given, RATED: schedule})
    return whole if last is None else optax.chain(whole, last)
  decayed = decoupled_decay(**{key: given.pop(key) for key in ('weight_decay', 'decay') if key in given})
  direction, rated = _made(name, where, given), optax.scale_by_learning_rate(schedule)
  links = [direction, rated] if name in _WITHOUT_DECAY else [direction, decayed, rated]
  if name == 'sgd' and not given.get('momentum'):  # the same update in the order of optax.sgd, for existing checkpoints
    links = [decayed, optax.chain(direction, rated)]
  links += [] if last is None else [last]
  if name != 'schedule_free':
    return optax.chain(*links)
  if rate['schedule'] != 'constant':
    raise UserError(
      f'{where}: schedule_free has only a warm-up and no schedule, got schedule={rate["schedule"]!r}; leave it out')
  b1 = given.get('b1', inspect.signature(directions.schedule_free).parameters['b1'].default)
  if not np.float32(b1) > 0:
    raise UserError(f'{where}.b1, the weight of the average in schedule_free, must be above 0 and below 1, got '
                    f'{b1!r}')
  return directions.averaging(optax.chain(*links), schedule, b1)


def _made(name: str, where: str, given: Mapping[str, Any]) -> optax.GradientTransformation:
  """The transformation that a name stands for."""
  made = OPTIMIZERS[name](**given)
  if not (callable(getattr(made, 'init', None)) and callable(getattr(made, 'update', None))):
    raise UserError(f'{where}: the optimizer {name!r} must return an optax.GradientTransformation, got {made!r}')
  return made


def _decayed(decay: str, params: Tree) -> Tree:
  """A tree that says whether each leaf has weight decay."""
  return jax.tree_util.tree_map_with_path(lambda path, _: bool(re.fullmatch(decay, leaf_name(path))), params)


def _check_matrices(params: Tree, rules: Sequence[optimizer_parts.Rule], given: Mapping[str, Mapping[str, Any]],
                    where: str) -> None:
  """Checks that Muon has matrices to train; `given` has the options of the optimizer of each label."""
  leaves = named_leaves(params)
  for label, options in given.items():
    ranks = {name: leaf.ndim for name, leaf in leaves.items() if optimizer_parts.of(rules, name).label == label}
    if options['name'] == 'muon' and not any(_is_matrix(name, rank, options) for name, rank in ranks.items()):
      raise UserError(f'{where}: muon finds no matrix among {listed(list(ranks), 40)}; choose the kernels by the '
                      'regular expressions matrices and ends, or use adamw')


def _is_matrix(name: str, rank: int, options: Mapping[str, Any]) -> bool:
  return directions.is_matrix(name, rank, **{key: options[key] for key in ('matrices', 'ends') if key in options})


def _check(values: Mapping[str, Any], where: str) -> None:
  """Checks the values of options.

  Raises:
    UserError: a value has the wrong type or is out of range.
  """
  for option, value in values.items():
    key = f'{where}.{option}'
    if option in _PATTERNS:
      optimizer_parts.regex(value, key)
    elif option in _WHOLE:
      if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise UserError(f'{key} must be a whole number that is not negative, got {value!r}')
    elif option in _RANGES:
      fits, expected = _RANGES[option]
      real: Any = value if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
      # Checked in float32, the dtype of the computation, where b2 = 1 - 1e-9 is 1. Huge values and NaN are never in
      # range.
      if not abs(real) <= _LARGEST or not fits(float(np.float32(real))):
        raise UserError(f'{key} must be {expected}, got {value!r}')


def learning_rate(lr: float, steps: int, warmup: int, schedule: str, end: float,
                  where: str = 'optimizer', drop_at: float = 0.5, decay_at: float = 0.5) -> optax.Schedule:
  """Learning rate schedule: linear warm-up, then constant, or to `end * lr` linearly, by a cosine, by a drop, or
  linearly after a constant part."""
  rest = max(1, steps - warmup)
  if schedule == 'constant':
    tail = optax.constant_schedule(lr)
  elif schedule == 'linear':
    tail = optax.linear_schedule(lr, end * lr, rest)
  elif schedule == 'cosine':
    tail = optax.cosine_decay_schedule(lr, rest, alpha=end)
  elif schedule == 'drop':
    tail = optax.piecewise_constant_schedule(lr, {round(drop_at * rest): end})
  elif schedule == 'constant_linear':
    begin = round(decay_at * rest)
    tail = optax.linear_schedule(lr, end * lr, max(1, rest - begin), begin)
  else:
    raise UserError(f'{where} schedule must be one of {SCHEDULES}, got {schedule!r}')
  if not warmup:
    return tail
  # The first update has the learning rate lr / warmup, not 0.
  return optax.join_schedules([optax.linear_schedule(lr / warmup, lr, max(1, warmup - 1)), tail], [warmup])


def from_config(optimizers: Mapping[str, Mapping[str, Any]],
                steps: int | Mapping[str, int]) -> dict[str, optax.GradientTransformation]:
  """Makes the transformation of each group from its options in `config.optimizers`, see `make`.

  Args:
    optimizers: group -> options.
    steps: updates of all groups, or of each; a group that is not named has none.

  Raises:
    UserError: see `make`; the message begins with the config key of the options.
  """
  made = {}
  for group, options in optimizers.items():
    where = f'config.optimizers.{group}'
    given = {'steps': steps.get(group, 0) if isinstance(steps, Mapping) else steps, **_plain(options)}
    if missing := [option for option in ('name', 'lr') if option not in given]:
      raise UserError(f'{where} lacks {missing}; name is one of {tuple(OPTIMIZERS)}, lr the peak learning rate')
    made[group] = make(**{**given, 'where': where})
  return made


def describe(options: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
  """Describes in words how each parameter is trained.

  Args:
    options: options of one group in `config.optimizers`.
    shapes: path -> shape of a parameter.
  """
  given = _plain(options)
  rules = optimizer_parts.parse(given.get('parts', ()), 'parts')
  words = {}
  for name, shape in shapes.items():
    rule = optimizer_parts.of(rules, name)
    chosen = rule.options or given
    text = chosen.get('name', '')
    if text == 'muon':
      text = text if _is_matrix(name, len(shape), chosen) else 'adamw'
    text = text if rule.scale == 1.0 else f'{text} x {rule.scale:g}'
    words[name] = 'frozen' if rule.label == optimizer_parts.FROZEN else (
      f'{text}, rows {rule.rows[0]} to {rule.rows[1] - 1}' if rule.rows else text)
  return words


def _plain(value: Any) -> Any:
  """Converts configs to dicts and lists to tuples."""
  if hasattr(value, 'items'):
    return {key: _plain(item) for key, item in value.items()}
  return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value
