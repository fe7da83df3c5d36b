"""Blocks of BigGAN and BigGAN-deep (Brock et al. 2019, appendix B), as in ajbrock/BigGAN-PyTorch.

A block of a generator reads B H W C and, for its norms, a vector of each image: an embedding of the class, latents, or
both. A block of a discriminator reads B H W C alone. Every layer has spectral normalisation but tables of classes.
"""

import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from genjax.nn.conv import Conv, Dense, Initializer, double, halve
from genjax.nn.embeddings import Embed
from genjax.nn.norms import BatchNorm
from genjax.types import Array, Key

RATIO = 4  # of a bottleneck of BigGAN-deep


class Told(NamedTuple):
  """What the norms of a generator's blocks read.

  Attributes:
    width: size of a vector of each image; 0 for none.
    classes: number of classes, of which each norm has tables of its own; 0 for none.
  """

  width: int
  classes: int


class Making(NamedTuple):
  """How layers are made.

  Attributes:
    init: initializer of kernels and tables.
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type.
  """

  init: Initializer
  momentum: float
  dtype: Any


class ToldNorm(nnx.Module):
  """Batch normalisation whose scale, beside 1, and bias are linear in a vector, or rows of tables of classes.

  Without either it learns one scale and one bias.
  """

  def __init__(self, features: int, told: Told, making: Making, rngs: nnx.Rngs):
    self.dtype, self.plain = making.dtype, not (told.width or told.classes)
    if self.plain:
      self.norm: Any = BatchNorm(features, momentum=making.momentum, dtype=making.dtype, rngs=rngs)
      return
    self.norm = nnx.BatchNorm(features, momentum=making.momentum, epsilon=1e-5, use_running_average=False,
                              use_fast_variance=False, use_bias=False, use_scale=False, rngs=rngs)
    self.scale, self.bias = (
      Dense(told.width, features, bias=False, spectral=True, init=making.init, dtype=making.dtype, rngs=rngs)
      if told.width else Embed(told.classes, features, embedding_init=making.init, rngs=rngs) for _ in range(2))

  def __call__(self, x_BHWC: Array, told_B: Array | None, key: Key | None) -> Array:
    """told_B: vectors B D, or labels B."""
    if self.plain:
      return self.norm(x_BHWC, key)
    assert told_B is not None
    y_BHWC = self.norm(x_BHWC.astype(jnp.float32), use_running_average=key is None)
    scale_BC, bias_BC = (layer(told_B, key) if isinstance(layer, Dense) else layer(told_B)
                         for layer in (self.scale, self.bias))
    return ((1.0 + scale_BC[:, None, None]) * y_BHWC + bias_BC[:, None, None]).astype(self.dtype)


class GeneratorBlock(nnx.Module):
  """B H W C -> B 2H 2W D: norm, ReLU, enlargement, 3 x 3, norm, ReLU, 3 x 3; beside an enlarged 1 x 1 shortcut."""

  def __init__(self, inputs: int, outputs: int, told: Told, making: Making, rngs: nnx.Rngs):
    conv, norm = _layers(making, rngs), lambda features: ToldNorm(features, told, making, rngs)
    self.norm_in, self.conv_in = norm(inputs), conv(inputs, outputs)
    self.norm_out, self.conv_out = norm(outputs), conv(outputs, outputs)
    self.shortcut = conv(inputs, outputs, 1)

  def __call__(self, x_BHWC: Array, told_B: Array | None, key: Key | None) -> Array:
    hidden = self.conv_in(double(jax.nn.relu(self.norm_in(x_BHWC, told_B, key))), key)
    hidden = self.conv_out(jax.nn.relu(self.norm_out(hidden, told_B, key)), key)
    return double(self.shortcut(x_BHWC, key)) + hidden  # the shortcut commutes with the enlargement


class DiscriminatorBlock(nnx.Module):
  """ReLU, 3 x 3, ReLU, 3 x 3, and the mean of 2 x 2 places if it halves; beside a shortcut. The first ReLU is left out
  in the first block, which reads pixels.

  Args:
    wide: whether the channels change in the first convolution; in SNGAN they do in the second.
  """

  def __init__(self, inputs: int, outputs: int, halves: bool, first: bool, wide: bool, making: Making, rngs: nnx.Rngs):
    conv, hidden = _layers(making, rngs), outputs if wide else inputs
    self.conv_in, self.conv_out = conv(inputs, hidden), conv(hidden, outputs)
    self.shortcut = conv(inputs, outputs, 1) if halves or inputs != outputs else None
    self.halves, self.first = halves, first

  def __call__(self, x_BHWC: Array, key: Key | None) -> Array:
    hidden = self.conv_in(x_BHWC if self.first else jax.nn.relu(x_BHWC), key)
    hidden = self.conv_out(jax.nn.relu(hidden), key)
    if self.halves:
      x_BHWC, hidden = halve(x_BHWC), halve(hidden)
    return (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC, key)) + hidden


class DeepGeneratorBlock(nnx.Module):
  """A bottleneck of BigGAN-deep: 1 x 1, two 3 x 3 and 1 x 1 convolutions with a quarter of the channels between, a norm
  and a ReLU before each. The shortcut drops the channels that are too many."""

  def __init__(self, inputs: int, outputs: int, doubles: bool, told: Told, making: Making, rngs: nnx.Rngs):
    conv, hidden = _layers(making, rngs), inputs // RATIO
    self.norms = nnx.List([ToldNorm(features, told, making, rngs) for features in (inputs, hidden, hidden, hidden)])
    self.convs = nnx.List([conv(inputs, hidden, 1), conv(hidden, hidden), conv(hidden, hidden),
                           conv(hidden, outputs, 1)])
    self.doubles, self.outputs = doubles, outputs

  def __call__(self, x_BHWC: Array, told_B: Array | None, key: Key | None) -> Array:
    hidden = x_BHWC
    for index, (norm, conv) in enumerate(zip(self.norms, self.convs)):
      hidden = jax.nn.relu(norm(hidden, told_B, key))
      hidden = conv(double(hidden) if self.doubles and index == 1 else hidden, key)
    x_BHWC = x_BHWC[..., :self.outputs]
    return (double(x_BHWC) if self.doubles else x_BHWC) + hidden


class DeepDiscriminatorBlock(nnx.Module):
  """A bottleneck of BigGAN-deep without norms, which halves before its last convolution. The shortcut joins channels
  that a 1 x 1 convolution makes where there are too few."""

  def __init__(self, inputs: int, outputs: int, halves: bool, making: Making, rngs: nnx.Rngs):
    conv, hidden = _layers(making, rngs), outputs // RATIO
    self.convs = nnx.List([conv(inputs, hidden, 1), conv(hidden, hidden), conv(hidden, hidden),
                           conv(hidden, outputs, 1)])
    self.shortcut = conv(inputs, outputs - inputs, 1) if inputs != outputs else None
    self.halves = halves

  def __call__(self, x_BHWC: Array, key: Key | None) -> Array:
    hidden = x_BHWC
    for index, conv in enumerate(self.convs):
      hidden = jax.nn.relu(hidden)
      hidden = conv(halve(hidden) if self.halves and index == 3 else hidden, key)
    x_BHWC = halve(x_BHWC) if self.halves else x_BHWC
    if self.shortcut is not None:
      x_BHWC = jnp.concatenate([x_BHWC, self.shortcut(x_BHWC, key)], axis=-1)
    return x_BHWC + hidden


def _layers(making: Making, rngs: nnx.Rngs) -> Any:
  return functools.partial(Conv, spectral=True, init=making.init, dtype=making.dtype, rngs=rngs)
