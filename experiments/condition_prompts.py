"""The condition `prompt`: a text that several frozen encoders read, as the pipelines of public weights have it."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import packed
from genjax.data.pipeline import Columns
from genjax.experiments import condition_texts, latents, parts
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.experiments.condition_joins import JOINS
from genjax.types import Array, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt(Common):
  """A text that one or several frozen encoders read.

  Attributes:
    column: of the data, with texts.
    parts: the text encoders, names in config.parts, in the order of the join.
    join: how what they give is joined, one of `genjax.experiments.condition_joins.JOINS`.
    join_options: options of the join.
    skip: the last blocks of a CLIP that its tokens leave out ("clip skip"), beside those that the join leaves out.
    lengths: tokens that each encoder reads, special ones included; () for those of the join.
    truncate: whether longer texts are cut off, which is said once; False refuses them.
    absent: the text that stands for none.
    zeros: whether zeros stand for none, in the place of what the encoders make of `absent`. A text that is given is
      encoded in any case, an empty one, too.
    stored: whether the data holds what the encoders give for each caption, as `genjax data encode` stores it with
      --prompts, or of one encoder with --text.
  """

  column: str = 'text'
  parts: tuple[str, ...]
  join: str = 'one'
  join_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  skip: int = 0
  lengths: tuple[int, ...] = ()
  truncate: bool = True
  absent: str = ''
  zeros: bool = False
  stored: bool = False

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'skip', 'lengths')
    if not self.parts or len(self.lengths) not in (0, len(self.parts)):
      raise checks.OutOfRange('parts names at least one text encoder, and lengths has a number for each or none, got '
                              f'parts={self.parts} and lengths={self.lengths}')


# Entry of `given` -> column of encoded data
STORED = {'tokens': 'text_tokens', 'tokens_mask': 'text_mask', 'vector': 'text_pooled'}


class Reader:
  """What the text encoders of a prompt make of texts.

  Args:
    scope: of the condition.
    options: of the condition.

  Attributes:
    parts: the text encoders.
    columns: shape and type of one row of what is read of a text.
    network: options of the network.
    sizes: tokens that each encoder reads.
    facts: what identifies an encoding, beside the encoders themselves.

  Raises:
    UserError: an unknown join, more encoders than it takes, or one that reads fewer tokens.
  """

  def __init__(self, scope: Scope, options: Prompt):
    make = config_lib.choose(JOINS, options.join, f'{scope.where}.join')
    self._join = config_lib.build(make, options.join_options, f'{scope.where}.join_options')
    if len(options.parts) > self._join.most:
      raise UserError(f'{scope.where}.join={options.join!r} joins at most {self._join.most} text encoders, got '
                      f'{options.parts}')
    lengths = options.lengths or self._join.lengths or (0,) * len(options.parts)
    self.parts = tuple(parts.open(scope.config, name, 'text_encoder', **self._join.options(index, options.skip, length))
                       for index, (name, length) in enumerate(zip(options.parts, lengths)))
    self._tokenizers, self.sizes = [], []
    for part, wanted in zip(self.parts, lengths):
      tokenize, size = condition_texts.shorter(part.functions.tokenize, wanted, part.functions.length, scope.where,
                                               part.name)
      self._tokenizers.append(condition_texts.Cut(scope.name, tokenize, options.truncate))
      self.sizes.append(size)
    self._ids = [scope.column(f'{name}_ids') for name in options.parts]
    self._masks = [f'{column}_mask' for column in self._ids]
    self._nothing = scope.column('nothing') if options.zeros else ''
    self.network = self._join.network([part.functions for part in self.parts])
    self.columns = {column: jax.ShapeDtypeStruct((size,), kind) for names, kind in ((self._ids, np.int32),
                                                                                    (self._masks, np.bool_))
                    for column, size in zip(names, self.sizes)}
    self.columns |= {self._nothing: jax.ShapeDtypeStruct((), np.bool_)} if options.zeros else {}
    self.facts = {'parts': list(options.parts), 'join': options.join, 'join_options': dict(options.join_options),
                  'skip': options.skip, 'lengths': self.sizes}

  def read(self, rows: Sequence[Any], absent: bool = False) -> Columns:
    """Texts as columns; `absent` for the text that stands for none."""
    texts, columns = [self._join.prepare(str(row)) for row in rows], {}
    for tokenize, ids_column, mask_column in zip(self._tokenizers, self._ids, self._masks):
      columns[ids_column], columns[mask_column] = tokenize(texts)
    return {**columns, **({self._nothing: np.full(len(texts), absent)} if self._nothing else {})}

  def give(self, frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    """Such columns as entries of `given`."""
    found = [part.functions.encode(frozen[part.name], columns[ids_column], columns[mask_column])
             for part, ids_column, mask_column in zip(self.parts, self._ids, self._masks)]
    entries = self._join.give(found)
    return _without(columns[self._nothing], entries) if self._nothing else entries

  def encode(self, frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Array]:
    """Such columns as columns of encoded data."""
    return {STORED[entry]: value for entry, value in self.give(frozen, columns).items()}

  def stored(self) -> tuple[dict[str, str], dict[str, jax.ShapeDtypeStruct]]:
    """Entries of `given` -> columns of encoded data, and the shape and type of a row of these."""
    one = {name: jax.ShapeDtypeStruct((1, *row.shape), row.dtype) for name, row in self.columns.items()}
    given = jax.eval_shape(self.give, {part.name: part.shapes for part in self.parts}, one)
    kinds = {'tokens_mask': np.bool_}
    return ({entry: STORED[entry] for entry in given},
            {STORED[entry]: jax.ShapeDtypeStruct(value.shape[1:], kinds.get(entry, np.float32))
             for entry, value in given.items()})


def captions(config: Config, name: str) -> Reader:
  """How a condition of a config encodes captions, for `genjax.runs.encoding`.

  Raises:
    UserError: there is no such condition of kind 'prompt'; see `Reader`.
  """
  given = config_lib.plain(config.get('conditions') or {})
  known = [known for known, options in given.items() if options.get('kind') == 'prompt']
  if name not in known:
    raise UserError(f"--prompts={name} must be a condition of kind 'prompt' of the config, and there are {known}; "
                    'name one, or give a single text encoder by --text=RUN')

  def unread(split: str, columns: Any) -> Any:
    raise UserError(f'captions of {split} are read as they are')

  return Reader(Scope(name, config, (), unread), config_lib.build(Prompt, given[name], f'config.conditions.{name}'))


def prompt(scope: Scope, options: Prompt) -> Made:
  """See `Prompt`."""
  reader = Reader(scope, options)
  opened = _that_encoded(scope, options, reader) if options.stored else reader.parts

  def parse(value: str) -> np.ndarray:
    reader.read([value])
    return np.asarray(value)

  stored, batch = reader.stored() if options.stored else ({}, {})
  read = ', '.join(str(size) for size in reader.sizes)
  return Made(
    reads=(options.column,), take=lambda columns: condition_texts.texts_of(columns, options.column),
    encode=reader.read, columns=reader.columns,
    null={name: column[0] for name, column in reader.read([options.absent], True).items()}, give=reader.give,
    parse=parse, describe=f'a text, of which {read} tokens are read', row=None, network=reader.network,
    further=tuple(opened), batch=batch, stored=stored, facts=reader.facts)


def _that_encoded(scope: Scope, options: Prompt, reader: Reader) -> tuple[parts.Part, ...]:
  """The parts, which must be those that encoded the captions of the data."""
  known = config_lib.plain(scope.config.get('assets') or {}).get('parts') or {}
  if all(part.name in known for part in reader.parts):
    return reader.parts
  key = packed.read_schema(latents.encoded_folder(scope.config.data.name))['key']
  made = key.get('prompts')
  if made is None:
    if options.join != 'one' or options.skip or options.lengths:
      raise UserError(f'{scope.config.data.name} was encoded without the prompt of {scope.where}; encode it '
                      f'by genjax data encode --prompts={scope.name}, or set {scope.where}.stored=False')
    return (latents.that_encoded(scope.config, reader.parts[0], 'text'),)
  if wrong := [name for name, value in reader.facts.items() if made.get(name) != value]:
    raise UserError(f'{scope.config.data.name} was encoded with {wrong[0]}={made.get(wrong[0])!r} of the prompt, and '
                    f'{scope.where}.{wrong[0]} is {reader.facts[wrong[0]]!r} now; set it to that, or encode the data '
                    'anew')
  return tuple(dataclasses.replace(part, source=dataclasses.replace(
    part.source, sha256=made['digests'][part.name]['sha256'], made=scope.config.data.name)) for part in reader.parts)


def _without(nothing_B: Array, entries: Mapping[str, Array]) -> dict[str, Array]:
  """The entries, with zeros in the rows that say nothing; masks stay: zeros are attended to, as published."""
  kept_B = ~nothing_B

  def kept(value: Array) -> Array:
    return jnp.where(kept_B.reshape(-1, *[1] * (value.ndim - 1)), value, jnp.zeros_like(value))

  return {name: kept(value) if jnp.issubdtype(value.dtype, jnp.floating) else value for name, value in entries.items()}
