"""What text encoders have in common as parts: texts -> rows of tokens, hidden states -> what a network is told."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from genjax.data.text.parallel import pad
from genjax.types import Array, UserError

Tokenize = Callable[[Sequence[str], bool], tuple[np.ndarray, np.ndarray]]


def tokenizer(encode: Callable[[str], np.ndarray], length: int, padding: int = 0, ends: bool = True) -> Tokenize:
  """The function `tokenize` of a `genjax.objectives.kinds.TextEncoder`.

  Args:
    encode: text -> tokens.
    length: most tokens.
    padding: the token after the end.
    ends: whether the last token ends the text, and so ends one that is cut off, too.
  """

  def tokenize(texts: Sequence[str], truncate: bool) -> tuple[np.ndarray, np.ndarray]:
    rows = [np.asarray(encode(text), np.int32) for text in texts]
    if not truncate and (long := [index for index, row in enumerate(rows) if len(row) > length]):
      raise UserError(f'a text has {len(rows[long[0]])} tokens, and the encoder reads at most {length}: '
                      f'{_shortened(texts[long[0]])!r}; shorten it, or let texts be truncated')
    rows = [np.append(row[:length - 1], row[-1]) if ends and len(row) > length else row[:length] for row in rows]
    ids_BL, weights_BL = pad(rows, length, padding)
    return ids_BL, weights_BL > 0

  return tokenize


def outputs(hidden_BLD: Array, mask_BL: Array) -> dict[str, Array]:
  """What `encode` of a `TextEncoder` returns; pooled is the mean over tokens (Reimers & Gurevych 2019)."""
  tokens_BLD = jnp.where(mask_BL[..., None], hidden_BLD.astype(jnp.float32), 0.0)
  pooled_BD = jnp.sum(tokens_BLD, axis=1) / jnp.maximum(1, jnp.sum(mask_BL, axis=1, keepdims=True))
  return {'tokens': tokens_BLD, 'mask': mask_BL, 'pooled': pooled_BD}


def _shortened(text: str, most: int = 80) -> str:
  return text if len(text) <= most else f'{text[:most]}...'
