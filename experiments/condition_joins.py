"""How what several text encoders give becomes what a network reads. A join of one's own is an entry of `JOINS`."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp

from genjax import checks
from genjax.objectives.kinds import TextEncoder
from genjax.tables import Table
from genjax.types import Array, UserError

Found = Sequence[Mapping[str, Array]]  # of each encoder tokens B L D, mask bool B L and pooled B P


@dataclasses.dataclass(frozen=True)
class Join:
  """How what text encoders give becomes what a network reads.

  Attributes:
    options: (index of an encoder, further blocks that it leaves out, tokens that it reads or 0) -> options of its
      config.data that it is opened with, such as skip and norm of a CLIP.
    network: encoders -> options of the network.
    give: outputs of the encoders -> entries of `given`, see `genjax.nn.conditioning`.
    most: how many encoders there may be.
    lengths: tokens that each encoder reads where the condition does not say; () or 0 for all that it can.
    prepare: a text -> what the encoders read of it.
  """

  options: Callable[[int, int, int], Mapping[str, Any]]
  network: Callable[[Sequence[TextEncoder]], Mapping[str, int]]
  give: Callable[[Found], Mapping[str, Array]]
  most: int = 1
  lengths: tuple[int, ...] = ()
  prepare: Callable[[str], str] = str


def pooled_width(encoder: TextEncoder) -> int:
  """Channels of the one vector that an encoder gives for a text."""
  return encoder.pooled_width or encoder.width


def one() -> Join:
  """The tokens of one encoder with its final norm, padding among them: Stable Diffusion 1 and 2."""
  return Join(lambda index, skip, length: dict(skip=skip, norm=True, padding=True),
              lambda encoders: {'token_width': encoders[0].width},
              lambda found: {'tokens': found[0]['tokens'], 'tokens_mask': found[0]['mask']})


def sdxl() -> Join:
  """The tokens before the last block of one or two CLIPs, side by side, and the vector of the last one (Podell et al.
  2023, section 2.1)."""
  return Join(lambda index, skip, length: dict(skip=skip + 1, norm=False, padding=True),
              lambda encoders: {'token_width': sum(encoder.width for encoder in encoders),
                                'vector_width': pooled_width(encoders[-1])},
              lambda found: {'tokens': jnp.concatenate([each['tokens'] for each in found], axis=-1),
                             'tokens_mask': found[0]['mask'], 'vector': found[-1]['pooled']}, most=2)


def pixart() -> Join:
  """The tokens of T5 and their mask; texts in lower case, without space around them (Chen et al. 2023)."""
  return Join(lambda index, skip, length: dict(context=length, padding=False),
              lambda encoders: {'token_width': encoders[0].width},
              lambda found: {'tokens': found[0]['tokens'], 'tokens_mask': found[0]['mask']}, lengths=(120,),
              prepare=lambda text: text.lower().strip())


def sd3(width: int = 0, absent: int = 256) -> Join:
  """The tokens before the last block of two CLIPs, side by side, then those of T5; and the vectors of both CLIPs (Esser
  et al. 2024, section 4). Padding counts as tokens.

  Args:
    width: channels of tokens; needed without T5, which has them otherwise.
    absent: how many zero tokens stand in the place of T5 where it is left out.

  Raises:
    UserError: the CLIPs are wider than the tokens.
  """
  checks.whole({'width': width, 'absent': absent}, 0, 'width', 'absent')

  def network(encoders: Any) -> Mapping[str, int]:
    if len(encoders) < 2:
      raise UserError(f"the join 'sd3' reads two CLIPs, and T5 if it is there; got {len(encoders)} text encoder")
    wide, narrow = encoders[2].width if len(encoders) > 2 else width, sum(each.width for each in encoders[:2])
    if narrow > wide:
      raise UserError(f"the join 'sd3' fills the tokens of two CLIPs, of {narrow} channels, with zeros to those of T5, "
                      f'{wide or "unknown without it: set join_options.width"}')
    return {'token_width': wide, 'vector_width': sum(map(pooled_width, encoders[:2]))}

  def give(found: Any) -> Mapping[str, Array]:
    clip_BLE = jnp.concatenate([each['tokens'] for each in found[:2]], axis=-1)
    wide = found[2]['tokens'].shape[-1] if len(found) > 2 else width
    clip_BLE = jnp.pad(clip_BLE, ((0, 0), (0, 0), (0, wide - clip_BLE.shape[-1])))
    more_BLE = found[2]['tokens'] if len(found) > 2 else jnp.zeros((len(clip_BLE), absent, wide), clip_BLE.dtype)
    return {'tokens': jnp.concatenate([clip_BLE, more_BLE], axis=1),
            'vector': jnp.concatenate([each['pooled'] for each in found[:2]], axis=-1)}

  return Join(lambda index, skip, length: _t5(length) if index == 2 else dict(skip=skip + 1, norm=False, padding=True),
              network, give, most=3, lengths=(0, 0, 256))


def flux() -> Join:
  """The tokens of T5, padding among them, and the vector of CLIP (Black Forest Labs 2024)."""

  def network(encoders: Any) -> Mapping[str, int]:
    if len(encoders) != 2:
      raise UserError(f"the join 'flux' reads a CLIP and a T5, got {len(encoders)} text encoder")
    return {'token_width': encoders[1].width, 'vector_width': pooled_width(encoders[0])}

  return Join(lambda index, skip, length: _t5(length) if index else dict(skip=skip, norm=True, padding=True), network,
              lambda found: {'tokens': found[1]['tokens'], 'vector': found[0]['pooled']}, most=2, lengths=(0, 512))


def _t5(length: int) -> dict[str, Any]:
  return dict(context=length, padding=True)


# Name -> function of the options that makes the join
JOINS: Table[Callable[..., Join]] = Table(
  'join of text encoders', {'one': one, 'sdxl': sdxl, 'pixart': pixart, 'sd3': sd3, 'flux': flux}, takes=())
