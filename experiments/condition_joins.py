"""How the text encoders of PixArt, Stable Diffusion 3 and Flux are joined: entries of `condition_prompts.JOINS`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from genjax import checks
from genjax.experiments.condition_prompts import Join, pooled_width
from genjax.types import Array, UserError


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


JOINS: dict[str, Callable[..., Join]] = {'pixart': pixart, 'sd3': sd3, 'flux': flux}
