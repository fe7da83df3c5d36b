"""Frames of features, such as log-mel energies of speech, as half as many vectors with fixed positions (Radford et al.
2022)."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import reduction
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.embeddings import sincos
from genjax.nn.kernels import dense
from genjax.nn.linear import matmul
from genjax.types import Array, Key, UserError

TAPS = 3


class FrameConv(nnx.Module):
  """A convolution over time with 3 taps and zeros on both sides, as one matrix product; S frames become ceil(S /
  stride).

  Args:
    inputs, outputs: channels.
    stride: in frames.
    kernel_init: of the kernel 3, inputs, outputs.
    dtype: compute type.
  """

  def __init__(self, inputs: int, outputs: int, stride: int = 1, *, kernel_init, dtype=jnp.float32, rngs: nnx.Rngs):
    self.kernel = nnx.Param(kernel_init(rngs.params(), (TAPS, inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((outputs,)))
    self.stride, self.dtype = stride, dtype

  def __call__(self, x_BSF: Array, key: Key | None = None) -> Array:
    frames = x_BSF.shape[1]
    padded_BSF = jnp.pad(x_BSF.astype(self.dtype), ((0, 0), (1, 1), (0, 0)))
    taps_BTF = jnp.concatenate([padded_BSF[:, tap:tap + frames:self.stride] for tap in range(TAPS)], axis=-1)
    kernel_FD = reduction.plain(dense(self.kernel.get_value())).reshape(taps_BTF.shape[-1], -1)
    y_BTD = matmul(taps_BTF, kernel_FD)
    return y_BTD + reduction.broadcast(self.bias[...], y_BTD.shape, self.dtype)


class FrameEmbedding(nnx.Module):
  """Two convolutions with GELU, the second of stride 2, and positions.

  The table of positions is among the parameters, because public weights hold a rounded one. It has no gradient, and no
  name that weight decay looks for.

  Args:
    features: F, numbers in a frame.
    width: D.
    positions: longest output in vectors.
    kernel_init: of both kernels.
    dtype: compute type.
  """

  def __init__(self, features: int, width: int, positions: int, *, kernel_init, dtype=jnp.float32, rngs: nnx.Rngs):
    self.first = FrameConv(features, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.second = FrameConv(width, width, 2, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.sinusoids = nnx.Param(jnp.asarray(sincos(np.arange(positions), width, shift=1), jnp.float32))
    self.features = features

  def __call__(self, frames_BSF: Array, mask_BS: Array | None = None, key: Key | None = None) -> Array:
    """Vectors B T D with T = ceil(S / 2), vector t around frame 2 t.

    Args:
      frames_BSF: features.
      mask_BS: nonzero on frames, zero on padding, which then counts as the zeros beyond the ends do; None for frames
        only.
      key: unused.

    Raises:
      UserError: frames of other features, or too many.
    """
    del key
    longest = 2 * self.sinusoids.shape[0]
    if frames_BSF.ndim != 3 or frames_BSF.shape[-1] != self.features or frames_BSF.shape[1] > longest:
      raise UserError(
        f'the model reads up to {longest} frames of {self.features} features, got an array of shape {frames_BSF.shape}')
    visible_BS1 = None if mask_BS is None else (mask_BS != 0)[..., None]
    seen = lambda x_BSD: x_BSD if visible_BS1 is None else jnp.where(visible_BS1, x_BSD, 0)
    gelu = ACTIVATIONS['gelu']
    x_BTD = gelu(self.second(seen(gelu(self.first(seen(frames_BSF))))))
    table_TD = jax.lax.stop_gradient(self.sinusoids[...])
    return x_BTD + table_TD[:x_BTD.shape[1]].astype(x_BTD.dtype)
