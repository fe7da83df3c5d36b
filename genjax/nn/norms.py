"""Normalisation layers (batch, layer, RMS, group, instance), and spectral normalisation of kernels."""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import reduction
from genjax.nn import derivatives
from genjax.nn.embeddings import Embed
from genjax.tables import Table
from genjax.types import Array, Key


class BatchNorm(nnx.Module):
  """Batch normalisation (Ioffe and Szegedy 2015) over all axes but the last.

  With a key (training) it normalises by the statistics of the batch and updates the running averages; without a key it
  normalises by the running averages. Statistics are float32. On a mesh they are those of the global batch, because the
  mean is over a global array.

  Args:
    features: size of the last axis.
    momentum: weight of the old running average in an update.
    scale_sd: the scale is initialized from N(1, scale_sd^2); DCGAN uses 0.02.
    dtype: dtype of the output.
  """

  def __init__(self, features: int, *, rngs: nnx.Rngs, momentum: float = 0.9, epsilon: float = 1e-5,
               scale_sd: float = 0.0, dtype=jnp.float32):
    self.norm = nnx.BatchNorm(features, momentum=momentum, epsilon=epsilon, rngs=rngs, use_running_average=False,
                              use_fast_variance=False,  # E[x^2] - E[x]^2 is inaccurate if the mean is large
                              scale_init=lambda key, shape, kind: 1 + scale_sd * jax.random.normal(key, shape, kind))
    self.dtype = dtype

  def __call__(self, x: Array, key: Key | None = None) -> Array:
    return self.norm(x.astype(jnp.float32), use_running_average=key is None).astype(self.dtype)


class ConditionalBatchNorm(nnx.Module):
  """Batch normalisation with a scale and a bias for each class (Dumoulin et al. 2017, section 2.2).

  Args:
    features: size of the last axis.
    num_classes: number of classes.
    momentum, epsilon, dtype: as in `BatchNorm`. Scales are initialized from N(1, 0.02^2), biases are 0.
  """

  def __init__(self, features: int, num_classes: int, *, rngs: nnx.Rngs, momentum: float = 0.9, epsilon: float = 1e-5,
               dtype=jnp.float32):
    self.norm = nnx.BatchNorm(features, momentum=momentum, epsilon=epsilon, rngs=rngs, use_running_average=False,
                              use_fast_variance=False, use_bias=False, use_scale=False)
    self.scale = Embed(num_classes, features, rngs=rngs,
                       embedding_init=lambda key, shape, kind: 1 + 0.02 * jax.random.normal(key, shape, kind))
    self.bias = Embed(num_classes, features, embedding_init=nnx.initializers.zeros, rngs=rngs)
    self.dtype = dtype

  def __call__(self, x: Array, label_B: Array, key: Key | None = None) -> Array:
    """x B ... C, normalised as in `BatchNorm`, with the scale and the bias of the class of each row."""
    y = self.norm(x.astype(jnp.float32), use_running_average=key is None)
    rows = lambda table: table(label_B).reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1])
    return (rows(self.scale) * y + rows(self.bias)).astype(self.dtype)


class LayerNorm(nnx.LayerNorm):
  """Layer normalisation over the last axis, as `flax.nnx.LayerNorm`.

  Statistics, scale and bias are float32 whatever the compute dtype. The variance is E[(x - E[x])^2], which is more
  accurate than E[x^2] - E[x]^2. Gradients of scale and bias are summed in float32, see `genjax.reduction`.
  """

  reads_unreduced = True

  def __call__(self, x: Array, *, mask: None = None) -> Array:
    del mask
    return _scaled(self, x, _standardised(x, (-1,), self.epsilon))


class RMSNorm(nnx.RMSNorm):
  """Normalisation by the root mean square of the last axis, as `flax.nnx.RMSNorm`; float32 as in `LayerNorm`."""

  reads_unreduced = True

  def __call__(self, x: Array, mask: None = None) -> Array:
    del mask
    x32 = x.astype(jnp.float32)
    return _scaled(self, x, x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon))


class GroupNorm(nnx.GroupNorm):
  """Group normalisation (Wu and He 2018), as `flax.nnx.GroupNorm`; float32 as in `LayerNorm`."""

  reads_unreduced = True

  def __call__(self, x: Array, *, mask: None = None) -> Array:
    del mask
    groups = x.reshape(*x.shape[:-1], self.num_groups, self.group_size)
    y = _standardised(groups, (*range(1, x.ndim - 1), x.ndim), self.epsilon)
    return _scaled(self, x, y.reshape(x.shape))


class InstanceNorm(nnx.Module):
  """Instance normalisation (Ulyanov et al. 2016): each channel of each image by its own mean and deviation.

  It has neither scale nor bias, and is the same in training and inference.

  Args:
    epsilon: added to the variance.
    dtype: of the output.
  """

  def __init__(self, epsilon: float = 1e-5, dtype=jnp.float32):
    self.epsilon, self.dtype = epsilon, dtype

  def __call__(self, x_BHWC: Array) -> Array:
    return _standardised(x_BHWC, (1, 2), self.epsilon).astype(self.dtype)


def layer(features: int, *, epsilon: float, scale: bool, bias: bool, dtype: Any, rngs: nnx.Rngs) -> LayerNorm:
  """`LayerNorm` as an entry of `NORMS`."""
  return LayerNorm(features, epsilon=epsilon, use_scale=scale, use_bias=bias, dtype=dtype, rngs=rngs)


def rms(features: int, *, epsilon: float, scale: bool, bias: bool, dtype: Any, rngs: nnx.Rngs) -> RMSNorm:
  """`RMSNorm` as an entry of `NORMS`; it has no bias."""
  del bias
  return RMSNorm(features, epsilon=epsilon, use_scale=scale, dtype=dtype, rngs=rngs)


# Norms over the last axis by name: features, and what may be learned (scale, bias) -> a module that is called with x.
# dtype: of the result; None for that of x.
NORMS: Table[Callable[..., nnx.Module]] = Table(
  'norm', {'layer': layer, 'rms': rms, 'layernorm': layer, 'rmsnorm': rms}, takes=('features',),
  keywords=('epsilon', 'scale', 'bias', 'dtype', 'rngs'))
_SHORT = {'layernorm': 'layer', 'rmsnorm': 'rms'}


def short_name(name: str) -> str:
  """One name for each norm: 'layer' for 'layernorm', 'rms' for 'rmsnorm', others as they are."""
  return _SHORT.get(name, name)


def _moments(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
  """Mean and reciprocal standard deviation over some axes, in float32; the variance is computed after the mean."""
  x32 = x.astype(jnp.float32)
  mean = jnp.mean(x32, axis=axes, keepdims=True)
  variance = jnp.mean(jnp.square(x32 - mean), axis=axes, keepdims=True)
  return mean, jax.lax.rsqrt(variance + epsilon)


def _value(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
  mean, factor = _moments(x, axes, epsilon)
  return (x.astype(jnp.float32) - mean) * factor


def _forward(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, tuple[Array, Array, Array]]:
  mean, factor = _moments(x, axes, epsilon)
  return (x.astype(jnp.float32) - mean) * factor, (x, mean, factor)


def _derivative(axes: tuple[int, ...], saved: tuple[Array, Array, Array], change: Array) -> Array:
  """The derivative of y = (x - mean) / deviation: (change - mean(change) - y mean(y change)) / deviation."""
  x, mean, factor = saved
  y = (x.astype(jnp.float32) - mean) * factor
  average = lambda value: jnp.mean(value, axis=axes, keepdims=True)
  return factor * (change - average(change) - y * average(y * change))


# (x, axes, epsilon) -> y: x without its mean over some axes, divided by its standard deviation there, in float32. The
# derivative has a closed form that is its own transpose; it reads the array less often than the chain rule does.
_standardised = derivatives.define(
  _value, _forward,
  lambda axes, epsilon, saved, tangents: _derivative(axes, saved, tangents[0].astype(jnp.float32)),
  lambda axes, epsilon, saved, gradient: (_derivative(axes, saved, gradient).astype(saved[0].dtype),), static=2)


def _scaled(norm: Any, x: Array, y: Array) -> Array:
  """y times the scale of a layer plus its bias, in its compute type."""
  scale, bias = (None if leaf is None else leaf.get_value() for leaf in (norm.scale, getattr(norm, 'bias', None)))
  y = y if scale is None else y * reduction.broadcast(scale, x.shape, jnp.float32)
  y = y if bias is None else y + reduction.broadcast(bias, x.shape, jnp.float32)
  return y.astype(norm.dtype or x.dtype)


class PowerIteration(nnx.Variable):
  """The estimate of a left singular vector, a variable without gradients."""


class SpectralNorm(nnx.Module):
  """Divides a kernel by an estimate of its largest singular value (Miyato et al. 2018, algorithm 1).

  The kernel is reshaped to a matrix with its last axis (outputs) as columns. Each training call (with a key) runs one
  power iteration; without a key the stored vector is used. The gradient treats both singular vectors as constants and
  flows through their product with the kernel (Eq. 10 of the paper).

  Args:
    features: size of the last axis of the kernel (its outputs).
  """

  def __init__(self, features: int, *, rngs: nnx.Rngs):
    self.u = PowerIteration(_unit(jax.random.normal(rngs.params(), (features,))))

  def __call__(self, kernel: Array, key: Key | None = None) -> Array:
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)
    u = self.u.get_value()
    v = _unit(fixed @ u)
    if key is not None:
      u = _unit(v @ fixed)
      self.u.set_value(u)
    return kernel / jnp.maximum(v @ matrix @ u, 1e-12)


def _unit(x: Array) -> Array:
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
