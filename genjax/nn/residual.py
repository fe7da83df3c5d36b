"""The residual block of convolutional autoencoders and denoisers (Ho et al. 2020, appendix B; Esser et al. 2021)."""

from typing import Any

from flax import nnx
import jax

from genjax import sharding
from genjax.nn import functional
from genjax.nn.conv import Conv, Initializer
from genjax.nn.linear import Linear
from genjax.nn.norms import GroupNorm
from genjax.types import Array, Key


class Residual(nnx.Module):
  """Two convolutions, each after a group norm and a SiLU, beside a shortcut; a condition is added between them.

  Args:
    inputs, outputs: channels.
    groups: groups of the norms.
    epsilon: added to variances.
    condition: channels D of the condition; 0 for none.
    dropout: dropout rate before the second convolution.
    out_init: initializer of the second convolution.
    dtype: compute type.
  """

  def __init__(self, inputs: int, outputs: int, *, groups: int, epsilon: float, rngs: nnx.Rngs, condition: int = 0,
               dropout: float = 0.0, out_init: Initializer = nnx.initializers.lecun_normal(), dtype: Any):
    self.dropout = dropout
    self.norm_in = GroupNorm(inputs, groups, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.conv_in = Conv(inputs, outputs, dtype=dtype, rngs=rngs, axes=(None, 'mlp'))
    self.condition = Linear(condition, outputs, dtype=dtype, rngs=rngs) if condition else None
    self.norm_out = GroupNorm(outputs, groups, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.conv_out = Conv(outputs, outputs, init=out_init, dtype=dtype, rngs=rngs, axes=('mlp', None))
    self.shortcut = Linear(inputs, outputs, dtype=dtype, rngs=rngs) if inputs != outputs else None

  def __call__(self, x_BHWC: Array, condition_BD: Array | None = None, key: Key | None = None) -> Array:
    hidden = self.conv_in(jax.nn.silu(self.norm_in(x_BHWC)))
    if self.condition is not None:
      hidden = hidden + self.condition(condition_BD)[:, None, None]  # type: ignore[arg-type]  # it has a condition
    hidden = sharding.constrain(hidden, 'batch', None, None, 'mlp', name='hidden maps B H W C of a residual block')
    hidden = functional.dropout(jax.nn.silu(self.norm_out(hidden)), self.dropout, key)
    x_BHWC = (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)) + self.conv_out(hidden)
    return sharding.constrain(x_BHWC, 'batch', None, None, None)


def axes(blocks: str, condition: bool) -> sharding.AxesTable:
  """The table of logical axes of residual blocks, whose hidden channels tensor parallelism splits.

  Args:
    blocks: regular expression of their paths.
    condition: whether they have one.
  """
  read = 'conv_in|condition' if condition else 'conv_in'
  return (
    (rf'{blocks}/conv_in/kernel', (None, None, None, 'mlp')),
    *(((rf'{blocks}/condition/kernel', (None, 'mlp')),) if condition else ()),
    (rf'{blocks}/({read})/bias', ('mlp',)),
    (rf'{blocks}/norm_out/(scale|bias)', ('mlp',)),
    (rf'{blocks}/conv_out/kernel', (None, None, 'mlp', None)))
