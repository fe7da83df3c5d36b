"""Quantizers: vectors -> entries of a codebook, with gradients that pass through (van den Oord et al. 2017).

All quantizers have one interface, see `Quantizer`, so that several can be stacked: the second one is given what the
first leaves over, `z - quantized.z`.

Suffixes: N vectors of a batch, K codes, D width of a code.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax.types import Array, Key, Tree

ESTIMATORS = ('straight_through', 'rotation')
LEARNED = ('averages', 'gradient')
_BLOCK = 4096  # codes that are compared at once: distances of N by 16,384 vectors would need much memory
_SMOOTHING = 1e-5  # added to the numbers of vectors that codes stand for
_MOST_CODES = 2**24  # numbers that float32 counts exactly


class Quantized(NamedTuple):
  """The result of a quantizer.

  Attributes:
    z_XD: the codes, with the gradient that the estimator passes to the vectors.
    index_X: their indices in the codebook, int32.
    loss: scalar, what trains codes and encoder beside the reconstruction.
    metrics: scalars to log.
  """

  z_XD: Array
  index_X: Array
  loss: Array
  metrics: Mapping[str, Array]


class Quantizer(Protocol):
  """The interface of quantizers.

  Attributes:
    size: number of codes K.
    width: numbers D of a code.
  """

  @property
  def size(self) -> int:
    ...

  @property
  def width(self) -> int:
    ...

  def init(self, key: Key) -> tuple[Tree, Tree]:
    """Returns parameters and mutable variables."""
    ...

  def apply(self, params: Tree, mutable: Tree, z_XD: Array, key: Key | None = None) -> tuple[Quantized, Tree]:
    """Quantizes the last axis. With a key (training) it updates the mutable variables, else it returns them."""
    ...

  def lookup(self, params: Tree, mutable: Tree, index_X: Array) -> Array:
    """Codes by their indices, float32 X D."""
    ...

  def frequencies(self, mutable: Tree) -> Array:
    """Share of each code among the vectors of recent steps, shape K; 1 / K each where that is not counted."""
    ...


@dataclasses.dataclass(frozen=True)
class VectorQuantizer:
  """The nearest entry of a learned codebook.

  On a mesh all statistics are those of the global batch. With several microbatches each of them is one update of the
  averages.

  Attributes:
    size: number of codes K.
    width: numbers D of a code.
    learned: how the codebook is learned: 'averages', moving averages of the vectors that choose a code (appendix A.1 of
      the paper), or 'gradient'.
    decay: of the averages, per step.
    commitment: weight of the mean squared distance that draws vectors to their codes, a mean over vectors and their D
      numbers, where the paper has a sum over D.
    codebook_weight: weight of the same distance as it draws codes to their vectors; of 'gradient' alone.
    estimator: gradient of the vectors: 'straight_through', that of the codes, or 'rotation', the same turned and scaled
      as the code is to the vector (Fifty et al. 2024).
    revive: codes that stand for fewer vectors of a batch than this, on the average, are replaced by vectors of the
      batch, drawn at random; 0 never.
    spread: codes begin uniform within plus and minus this; 0 for sqrt(3 / D), which has variance 1 / D.

  Raises:
    OutOfRange: an unknown name or a number outside its range.
  """

  size: int
  width: int
  learned: str = 'averages'
  decay: float = 0.99
  commitment: float = 0.25
  codebook_weight: float = 1.0
  estimator: str = 'straight_through'
  revive: float = 0.0
  spread: float = 0.0

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'width')
    checks.require('size', self.size, at_most=_MOST_CODES)
    checks.rates(self, 'decay')
    checks.between(self, ('commitment', 'codebook_weight', 'revive', 'spread'), at_least=0)
    for name, known in (('learned', LEARNED), ('estimator', ESTIMATORS)):
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {getattr(self, name)!r}')

  def init(self, key: Key) -> tuple[Tree, Tree]:
    """See `Quantizer`. mutable: 'size' K and 'weight', the average number of vectors of a code as `_mean` reads it."""
    limit = self.spread or math.sqrt(3 / self.width)
    codes_KD = jax.random.uniform(key, (self.size, self.width), minval=-limit, maxval=limit)
    mutable: Tree = {'size': jnp.zeros(self.size), 'weight': jnp.zeros(())}
    if self.learned == 'averages':
      return {}, {**mutable, 'embedding': codes_KD, 'sum': jnp.zeros((self.size, self.width))}
    return {'embedding': codes_KD}, {**mutable, **({'offset': jnp.zeros_like(codes_KD)} if self.revive else {})}

  def codebook(self, params: Tree, mutable: Tree) -> Array:
    """The codes, float32 K D."""
    if self.learned == 'averages':
      return mutable['embedding']
    # A loss cannot change parameters, so that revived codes are moved by an offset.
    codes_KD = params['embedding'].astype(jnp.float32)
    return codes_KD + mutable['offset'] if self.revive else codes_KD

  def apply(self, params: Tree, mutable: Tree, z_XD: Array, key: Key | None = None) -> tuple[Quantized, Tree]:
    """See `Quantizer`.

    Raises:
      OutOfRange: `revive` is more than the mean number of vectors of a code, so that no code could live.
    """
    z_ND = z_XD.astype(jnp.float32).reshape(-1, self.width)
    codes_KD = self.codebook(params, mutable)
    index_N = nearest(z_ND, codes_KD)
    code_ND = codes_KD[index_N]
    loss = self.commitment * jnp.mean(jnp.square(z_ND - jax.lax.stop_gradient(code_ND)))
    if self.learned == 'gradient':
      loss += self.codebook_weight * jnp.mean(jnp.square(jax.lax.stop_gradient(z_ND) - code_ND))
    counts_K = count(index_N, self.size)
    if key is not None:
      self._check(len(z_ND))
      mutable = self._updated(params, mutable, jax.lax.stop_gradient(z_ND), index_N, counts_K, key)
    passed = rotated if self.estimator == 'rotation' else straight_through
    out_XD = passed(z_ND, code_ND).reshape(z_XD.shape)
    return Quantized(out_XD, index_N.reshape(z_XD.shape[:-1]), loss, usage(counts_K)), mutable

  def lookup(self, params: Tree, mutable: Tree, index_X: Array) -> Array:
    """See `Quantizer`."""
    return self.codebook(params, mutable)[index_X]

  def frequencies(self, mutable: Tree) -> Array:
    """See `Quantizer`."""
    total = jnp.sum(mutable['size'])
    return jnp.where(total > 0, mutable['size'] / jnp.where(total > 0, total, 1.0), 1.0 / self.size)

  def _check(self, vectors: int) -> None:
    if self.revive and self.revive >= vectors / self.size:
      raise checks.OutOfRange('config.quantizer.revive must be below the mean number of vectors of a code, which is '
                              f'{vectors} vectors of a batch over {self.size} codes = {vectors / self.size:.3g}, got '
                              f'{self.revive}; make it smaller, or the batch larger')

  def _updated(self, params: Tree, mutable: Tree, z_ND: Array, index_N: Array, counts_K: Array, key: Key) -> Tree:
    """The mutable variables after one batch more."""
    average = lambda name, new: self.decay * mutable[name] + (1.0 - self.decay) * new
    new = {'size': average('size', counts_K), 'weight': average('weight', 1.0)}
    if self.learned == 'averages':
      new['sum'] = average('sum', jnp.zeros_like(mutable['sum']).at[index_N].add(z_ND))
    if self.revive:
      dead_K = _mean(new, 'size') < self.revive
      fresh_KD = z_ND[jax.random.randint(key, (self.size,), 0, len(z_ND))]
      # A fresh code has as many vectors as the mean of all: the averages judge it after some time only.
      size_K = jnp.where(dead_K, new['weight'] * len(z_ND) / self.size, new['size'])
      new['size'] = size_K
      if self.learned == 'averages':
        new['sum'] = jnp.where(dead_K[:, None], fresh_KD * size_K[:, None], new['sum'])
      else:
        new['offset'] = jnp.where(dead_K[:, None], fresh_KD - params['embedding'], mutable['offset'])
    if self.learned == 'averages':
      # Laplace smoothing: a code that no vector chose is not divided by 0.
      size_K, total = _mean(new, 'size'), jnp.sum(_mean(new, 'size'))
      size_K = (size_K + _SMOOTHING) / (total + self.size * _SMOOTHING) * total
      new['embedding'] = _mean(new, 'sum') / size_K[:, None]
    return jax.lax.stop_gradient(new)


@dataclasses.dataclass(frozen=True)
class FiniteScalarQuantizer:
  """Each number is rounded to one of a few levels; the codebook is their product, and nothing is learned (Mentzer et
  al. 2023, section 3.1).

  The paper's code (appendix A.1) moves even levels by tan(0.5 / bound); here it is arctanh, so that z = 0 is exactly
  code 0, and the bound is (L - 1) / 2 times 1 + 1e-3 in the place of 1 - 1e-3.

  Attributes:
    levels: number of levels of each number of a code; the paper has (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8,
      6, 5) and (8, 8, 8, 5, 5, 5) for 2^8, 2^10, 2^12, 2^14 and 2^16 codes.

  Raises:
    OutOfRange: a level below 2, or more codes than can be counted.
  """

  levels: tuple[int, ...] = (8, 5, 5, 5)

  def __post_init__(self):
    checks.whole(self, 2, 'levels')
    if not isinstance(self.levels, tuple) or not self.levels or self.size > _MOST_CODES:
      raise checks.OutOfRange(f'levels must be whole numbers whose product is at most {_MOST_CODES}, got {self.levels}')

  @property
  def size(self) -> int:
    """Number of codes K."""
    return math.prod(self.levels)

  @property
  def width(self) -> int:
    """Numbers D of a code."""
    return len(self.levels)

  def init(self, key: Key) -> tuple[Tree, Tree]:
    """See `Quantizer`; there are no variables."""
    del key
    return {}, {}

  def apply(self, params: Tree, mutable: Tree, z_XD: Array, key: Key | None = None) -> tuple[Quantized, Tree]:
    """See `Quantizer`."""
    del params, key
    levels_D, half_D, _ = self._numbers()
    # A little more than half, where the paper has 1 - 1e-3: with two levels its bound would not exceed the shift.
    reach_D, shift_D = (levels_D - 1) * 1.001 / 2, np.where(levels_D % 2 == 0, 0.5, 0.0).astype(np.float32)
    z_XD = z_XD.astype(jnp.float32)
    bounded_XD = jnp.tanh(z_XD + np.arctanh(shift_D / reach_D)) * reach_D - shift_D
    code_XD = straight_through(bounded_XD, jnp.round(bounded_XD)) / half_D
    index_X = self.index(code_XD)
    return Quantized(code_XD, index_X, jnp.zeros(()), usage(count(index_X.reshape(-1), self.size))), mutable

  def index(self, code_XD: Array) -> Array:
    """The indices of codes, int32: the inverse of `lookup`."""
    _, half_D, basis_D = self._numbers()
    digit_XD = jnp.round(jax.lax.stop_gradient(code_XD) * half_D + half_D).astype(jnp.int32)
    return jnp.sum(digit_XD * basis_D, axis=-1)

  def lookup(self, params: Tree, mutable: Tree, index_X: Array) -> Array:
    """See `Quantizer`."""
    levels_D, half_D, basis_D = self._numbers()
    digit_XD = index_X[..., None] // basis_D % levels_D.astype(np.int32)
    return (digit_XD.astype(jnp.float32) - half_D) / half_D

  def frequencies(self, mutable: Tree) -> Array:
    """See `Quantizer`; nothing is counted."""
    return jnp.full(self.size, 1.0 / self.size)

  def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The levels, half of them rounded down, and the number of codes that one level of a number stands for."""
    levels_D = np.asarray(self.levels)
    basis_D = np.concatenate([[1], np.cumprod(levels_D)[:-1]]).astype(np.int32)
    return levels_D.astype(np.float32), (levels_D // 2).astype(np.float32), basis_D


def nearest(z_ND: Array, codes_KD: Array) -> Array:
  """The index of the code with the least Euclidean distance to each vector, int32 N; of equal ones the first."""
  z_ND, codes_KD = jax.lax.stop_gradient((z_ND, codes_KD))
  index_N, least_N = jnp.zeros(len(z_ND), jnp.int32), jnp.full(len(z_ND), jnp.inf)
  for start in range(0, len(codes_KD), _BLOCK):
    block_KD = codes_KD[start:start + _BLOCK]
    # |z|^2 is the same for all codes. In the type of tensor cores, near codes would be confused.
    product_NK = jnp.matmul(z_ND, block_KD.T, precision=jax.lax.Precision.HIGHEST)
    distance_NK = jnp.sum(jnp.square(block_KD), axis=-1) - 2 * product_NK
    found_N = jnp.min(distance_NK, axis=-1)
    index_N = jnp.where(found_N < least_N, jnp.argmin(distance_NK, axis=-1).astype(jnp.int32) + start, index_N)
    least_N = jnp.minimum(found_N, least_N)
  return index_N


def straight_through(z_XD: Array, code_XD: Array) -> Array:
  """The codes, with the identity as the gradient of the vectors (Bengio et al. 2013)."""
  return jax.lax.stop_gradient(code_XD) + (z_XD - jax.lax.stop_gradient(z_XD))


def rotated(z_XD: Array, code_XD: Array) -> Array:
  """The codes, with the gradient of the rotation and scaling that takes each vector to its code (Fifty et al. 2024,
  section 4.2). Rotation and scale count as constants."""
  fixed_XD, code_XD = jax.lax.stop_gradient((z_XD, code_XD))
  length_X1, code_length_X1 = _length(fixed_XD), _length(code_XD)
  from_XD, to_XD = fixed_XD / length_X1, code_XD / code_length_X1
  middle_XD = from_XD + to_XD
  middle_XD = middle_XD / _length(middle_XD)
  along = lambda axis_XD: jnp.sum(z_XD * axis_XD, axis=-1, keepdims=True)
  turned_XD = z_XD - 2 * along(middle_XD) * middle_XD + 2 * along(from_XD) * to_XD
  return straight_through(turned_XD * (code_length_X1 / length_X1), code_XD)


def count(index_N: Array, size: int) -> Array:
  """How often each number below `size` occurs, float32."""
  return jnp.zeros(size).at[index_N].add(1.0)


def usage(counts_K: Array) -> dict[str, Array]:
  """'perplexity', the exponential of the entropy of the codes, and 'used', how many of them occur."""
  share_K = counts_K / jnp.maximum(jnp.sum(counts_K), 1.0)
  entropy = -jnp.sum(jnp.where(share_K > 0, share_K * jnp.log(jnp.where(share_K > 0, share_K, 1.0)), 0.0))
  return {'perplexity': jnp.exp(entropy), 'used': jnp.sum(counts_K > 0).astype(jnp.float32)}


def _mean(mutable: Tree, name: str) -> Array:
  """A moving average without its bias towards the initial 0; 'weight' is the same average of ones."""
  return mutable[name] / mutable['weight']


def _length(x_XD: Array) -> Array:
  return jnp.maximum(jnp.linalg.norm(x_XD, axis=-1, keepdims=True), 1e-6)
