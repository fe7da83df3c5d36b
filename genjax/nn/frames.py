"""Embedding of feature frames, e.g. log-mel energies, with stride 2 and fixed positions (Radford et al. 2022)."""

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
  """A zero-padded convolution over time with 3 taps, as one matrix product. S frames become ceil(S / stride).

  Args:
    inputs, outputs: channels.
    stride: in frames.
    kernel_init: initializer of the kernel, of shape (3, inputs, outputs).
    dtype: compute dtype.
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

  The table of positions is a parameter, because public weights contain a rounded one. It gets no gradient, and its name
  does not match the default pattern of weight decay.

  Args:
    features: number of features F of a frame.
    width: model width D.
    positions: largest number of output vectors.
    kernel_init: initializer of both kernels.
    dtype: compute dtype.
  """

  def __init__(self, features: int, width: int, positions: int, *, kernel_init, dtype=jnp.float32, rngs: nnx.Rngs):
    self.first = FrameConv(features, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.second = FrameConv(width, width, 2, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.sinusoids = nnx.Param(jnp.asarray(sincos(np.arange(positions), width, shift=1), jnp.float32))
    self.features = features

  def __call__(self, frames_BSF: Array, mask_BS: Array | None = None, key: Key | None = None) -> Array:
    """Returns vectors B T D with T = ceil(S / 2); vector t is centred on frame 2 t.

    Args:
      frames_BSF: features.
      mask_BS: nonzero on frames, zero on padding, which is treated like the zero padding at the ends; None for no
        padding.
      key: unused.

    Raises:
      UserError: there are too many frames, or they have another number of features.
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
