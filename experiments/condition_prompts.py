"""The condition `prompt`: a text that several frozen encoders read, as the pipelines of public weights have it.

`JOINS` says how what the encoders give becomes what the network reads. A join of one's own is an entry there.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.data.pipeline import Columns
from genjax.experiments import condition_texts, latents, parts
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.objectives.kinds import TextEncoder
from genjax.tables import Table
from genjax.types import Array, Params, UserError

Found = Sequence[Mapping[str, Array]]  # of each encoder tokens B L D, mask bool B L and pooled B P


@dataclasses.dataclass(frozen=True)
class Join:
  """How what text encoders give becomes what a network reads.

  Attributes:
    options: (index of an encoder, further blocks that it leaves out) -> options of its config.data that it is opened
      with, such as skip and norm of a CLIP.
    network: encoders -> options of the network.
    give: outputs of the encoders -> entries of `given`, see `genjax.nn.conditioning`.
    most: how many encoders there may be.
    lengths: tokens that each encoder reads where the condition does not say; () or 0 for all that it can.
  """

  options: Callable[[int, int], Mapping[str, Any]]
  network: Callable[[Sequence[TextEncoder]], Mapping[str, int]]
  give: Callable[[Found], Mapping[str, Array]]
  most: int = 1
  lengths: tuple[int, ...] = ()


def pooled_width(encoder: TextEncoder) -> int:
  """Channels of the one vector that an encoder gives for a text."""
  return encoder.pooled_width or encoder.width


def _one() -> Join:
  """The tokens of one encoder with its final norm, padding among them: Stable Diffusion 1 and 2."""
  return Join(lambda index, skip: dict(skip=skip, norm=True, padding=True),
              lambda encoders: {'token_width': encoders[0].width},
              lambda found: {'tokens': found[0]['tokens'], 'tokens_mask': found[0]['mask']})


def _sdxl() -> Join:
  """The tokens before the last block of one or two CLIPs, side by side, and the vector of the last one (Podell et al.
  2023, section 2.1)."""
  return Join(lambda index, skip: dict(skip=skip + 1, norm=False, padding=True),
              lambda encoders: {'token_width': sum(encoder.width for encoder in encoders),
                                'vector_width': pooled_width(encoders[-1])},
              lambda found: {'tokens': jnp.concatenate([each['tokens'] for each in found], axis=-1),
                             'tokens_mask': found[0]['mask'], 'vector': found[-1]['pooled']}, most=2)


# Name -> function that makes the join
JOINS: Table[Callable[[], Join]] = Table('join of text encoders', {'one': _one, 'sdxl': _sdxl}, takes=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt(Common):
  """A text that one or several frozen encoders read.

  Attributes:
    column: of the data, with texts.
    parts: the text encoders, names in config.parts, in the order of the join.
    join: how what they give is joined, one of `JOINS`.
    skip: the last blocks of a CLIP that its tokens leave out ("clip skip"), beside those that the join leaves out.
    lengths: tokens that each encoder reads, special ones included; () for those of the join.
    truncate: whether longer texts are cut off, which is said once; False refuses them.
    absent: the text that stands for none.
    zeros: whether zeros stand for none, in the place of what the encoders make of `absent`. A text that is given is
      encoded in any case, an empty one, too.
    stored: whether the data holds what one encoder gives for each caption, as `genjax data encode --text` stores it.
  """

  column: str = 'text'
  parts: tuple[str, ...]
  join: str = 'one'
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
    if self.stored and (self.join != 'one' or self.skip or self.lengths or self.zeros):
      raise checks.OutOfRange("stored is of one encoder as it is: it needs join='one', skip=0, lengths=() and "
                              'zeros=False')


def prompt(scope: Scope, options: Prompt) -> Made:
  """See `Prompt`."""
  join = config_lib.choose(JOINS, options.join, f'{scope.where}.join')()
  if len(options.parts) > join.most:
    raise UserError(f'{scope.where}.join={options.join!r} joins at most {join.most} text encoders, got '
                    f'{options.parts}')
  opened = [parts.open(scope.config, name, 'text_encoder', **join.options(index, options.skip))
            for index, name in enumerate(options.parts)]
  if options.stored:
    opened = [latents.that_encoded(scope.config, opened[0], 'text')]
  encoders = [part.functions for part in opened]
  lengths = options.lengths or join.lengths or (0,) * len(encoders)
  tokenizers, sizes = [], []
  for part, wanted in zip(opened, lengths):
    tokenize, size = condition_texts.shorter(part.functions.tokenize, wanted, part.functions.length, scope.where,
                                             part.name)
    tokenizers.append(condition_texts.Cut(scope.name, tokenize, options.truncate))
    sizes.append(size)
  ids = [scope.column(f'{name}_ids') for name in options.parts]
  masks, nothing = [f'{column}_mask' for column in ids], scope.column('nothing')

  def encode(rows: np.ndarray, absent: bool = False) -> Columns:
    texts, columns = [str(row) for row in rows], {}
    for tokenize, ids_column, mask_column in zip(tokenizers, ids, masks):
      columns[ids_column], columns[mask_column] = tokenize(texts)
    return {**columns, **({nothing: np.full(len(texts), absent)} if options.zeros else {})}

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    found = [part.functions.encode(frozen[part.name], columns[ids_column], columns[mask_column])
             for part, ids_column, mask_column in zip(opened, ids, masks)]
    entries = join.give(found)
    return _without(columns[nothing], entries) if options.zeros else entries

  def parse(value: str) -> np.ndarray:
    encode(np.asarray([value]))
    return np.asarray(value)

  columns = {column: jax.ShapeDtypeStruct((size,), kind) for names, kind in ((ids, np.int32), (masks, np.bool_))
             for column, size in zip(names, sizes)}
  columns |= {nothing: jax.ShapeDtypeStruct((), np.bool_)} if options.zeros else {}
  read = ', '.join(str(size) for size in sizes)
  batch = {'text_tokens': jax.ShapeDtypeStruct((sizes[0], encoders[0].width), np.float32),
           'text_mask': jax.ShapeDtypeStruct((sizes[0],), np.bool_)}
  return Made(
    reads=(options.column,), take=lambda columns: condition_texts.texts_of(columns, options.column), encode=encode,
    columns=columns, null={name: column[0] for name, column in encode(np.asarray([options.absent]), True).items()},
    give=give, parse=parse, describe=f'a text, of which {read} tokens are read', row=None,
    network=join.network(encoders), further=tuple(opened), batch=batch if options.stored else {},
    stored={'tokens': 'text_tokens', 'tokens_mask': 'text_mask'} if options.stored else {},
    facts={'parts': list(options.parts), 'join': options.join, 'skip': options.skip, 'lengths': sizes})


def _without(nothing_B: Array, entries: Mapping[str, Array]) -> dict[str, Array]:
  """The entries, with zeros in the rows that say nothing; masks stay: zeros are attended to, as published."""
  kept_B = ~nothing_B

  def kept(value: Array) -> Array:
    return jnp.where(kept_B.reshape(-1, *[1] * (value.ndim - 1)), value, jnp.zeros_like(value))

  return {name: kept(value) if jnp.issubdtype(value.dtype, jnp.floating) else value for name, value in entries.items()}
