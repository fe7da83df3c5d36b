"""Kinds of parts: what a run gives to another one that stands on it.

A builder offers a kind by a function of its name, `autoencoder(config, experiment) -> Autoencoder`, and another builder
opens it by `genjax.experiments.parts.open`. All functions are pure. Their first argument is the part's frozen group,
the nested dict {'params': {GROUP: tree}, 'mutable': tree, 'frozen': {PART: tree}}.

`reads` are regular expressions of the paths in that group, 'params/GROUP/...', which the functions read. Whatever none
of them matches whole is left out of the group, and takes no memory. A kind of one's own may be any object; without
`reads` it has the whole group.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import numpy as np

from genjax.types import Array, Tree

ALL = ('.*',)


@dataclasses.dataclass(frozen=True)
class Autoencoder:
  """Images, clips or sounds <-> latents.

  Attributes:
    shape: of one row of what it reads, for example (H, W, C) of uint8 pixels.
    latent: shape of one latent, for example (H / f, W / f, Z).
    encode: (group, image_BHWC uint8) -> mean and log variance of the posterior, each float32 of shape B and `latent`;
      they are not scaled.
    decode: (group, z_BX) -> image_BHWC uint8.
    moments: group -> (shift, scale), scalars or one value a channel: (z - shift) * scale has mean 0 and deviation 1.
      They were measured in training and are kept in the run.
    column: of a batch, which it reads and decodes to.
    factor: pixels along each side of an image for one of the latent, if it takes images of any size that `factor`
      divides; 0 if it takes those of `shape` alone.
    pixels: (group, z_BX) -> image_BHWC float around [-1, 1], which `decode` cuts off and rounds; None where it is not
      offered.
    reads: see the module.
  """

  shape: tuple[int, ...]
  latent: tuple[int, ...]
  encode: Callable[[Tree, Array], tuple[Array, Array]]
  decode: Callable[[Tree, Array], Array]
  moments: Callable[[Tree], tuple[Array, Array]]
  column: str = 'image'
  factor: int = 0
  pixels: Callable[[Tree, Array], Array] | None = None
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class Generator:
  """Codes -> images, of a generator that has no encoder.

  Attributes:
    shape: (H, W, C) of one image, uint8.
    latent: shape of one code.
    draw: (group, keys N, row numbers int32 N) -> codes, float32 of shape N and `latent`, of images drawn at random;
      with classes, row i has class i modulo their number.
    decode: (group, code_BX) -> image_BHWC uint8.
    project: (group, image_BHWC uint8) -> codes of images like these; None where it is not offered.
    path: the way from a code to another along which images are likely, 'line' or 'sphere'.
    column: see `Autoencoder`.
    reads: see the module.
  """

  shape: tuple[int, int, int]
  latent: tuple[int, ...]
  draw: Callable[[Tree, Array, Array], Array]
  decode: Callable[[Tree, Array], Array]
  project: Callable[[Tree, Array], Array] | None = None
  path: str = 'line'
  column: str = 'image'
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class Codes:
  """Images <-> numbers of codes: tokens for a transformer.

  Attributes:
    shape: (H, W, C) of one image, uint8.
    latent: (h, w) of the codes of an image.
    size: number of codes K.
    encode_indices: (group, image_BHWC uint8) -> int32 B h w, from 0 to K - 1.
    decode_indices: (group, index_BHW) -> image_BHWC uint8.
    factor: see `Autoencoder`.
    reads: see the module.
  """

  shape: tuple[int, int, int]
  latent: tuple[int, int]
  size: int
  encode_indices: Callable[[Tree, Array], Array]
  decode_indices: Callable[[Tree, Array], Array]
  factor: int = 0
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class TextEncoder:
  """Texts -> vectors.

  Attributes:
    width: D of a vector.
    length: most tokens that it reads, special ones included.
    tokenize: (texts, truncate) -> ids int32 B L and mask bool B L, on the host, where L is `length`. A longer text is a
      UserError, unless `truncate` cuts it off.
    encode: (group, ids_BL, mask_BL) -> 'tokens' float32 B L D, 'mask' bool B L and 'pooled' float32 B P.
    pooled_width: P of a pooled vector; 0 for D.
    reads: see the module.
  """

  width: int
  length: int
  tokenize: Callable[[Sequence[str], bool], tuple[np.ndarray, np.ndarray]]
  encode: Callable[[Tree, Array, Array], Mapping[str, Array]]
  pooled_width: int = 0
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class Features:
  """Images -> features and classes.

  Attributes:
    shape: (H, W, C) of one image, uint8, as the network reads it. If `resize` is not 'none', images of other sizes, and
      grey ones, are taken too.
    width: D of the features.
    classes: number K of classes; 0 for none, and then `predict` raises a UserError.
    extract: (group, image_BHWC uint8) -> features float32 B D.
    predict: (group, image_BHWC uint8) -> logits float32 B K.
    name: of the weights, for cards of metrics. A Frechet distance on them is called FID only if `name` is 'fid'.
    resize: how it resizes images, for the same cards: 'none', or the filter and the side that images come to, such as
      'tf bilinear 299'.
    reads: see the module.
  """

  shape: tuple[int, int, int]
  width: int
  classes: int
  extract: Callable[[Tree, Array], Array]
  predict: Callable[[Tree, Array], Array]
  name: str = 'classifier'
  resize: str = 'none'
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class Attributes:
  """Images -> several attributes of each.

  Attributes:
    shape: (H, W, C) of one image, uint8.
    classes: name of an attribute -> number of its classes.
    predict: (group, image_BHWC uint8) -> name of an attribute -> logits float32 B K.
    name: of the weights, for cards of metrics.
    resize: how it resizes images, see `Features`.
    reads: see the module.
  """

  shape: tuple[int, int, int]
  classes: Mapping[str, int]
  predict: Callable[[Tree, Array], Mapping[str, Array]]
  name: str = 'attributes'
  resize: str = 'none'
  reads: tuple[str, ...] = ALL


@dataclasses.dataclass(frozen=True)
class Perceptual:
  """Two images -> how different they look (LPIPS, Zhang et al. 2018).

  Attributes:
    shape: (H, W, C) of one image, uint8; None for all sizes of at least `least`.
    distance: (group, a_BHWC uint8, b_BHWC uint8) -> float32 B; 0 for equal images.
    name: of the weights, for cards of metrics.
    resize: how it resizes images, see `Features`.
    least: smallest height and width of an image, where `shape` is None.
    reads: see the module.
    loss: the same of images that are float32 in [-1, 1], and differentiable: (group, a_BHWC, b_BHWC) -> float32 B; None
      for a kind that only measures.
    measure: what the distance is called where it is reported: 'lpips', or '' for one that is no measure by itself.
  """

  shape: tuple[int, int, int] | None
  distance: Callable[[Tree, Array, Array], Array]
  name: str = 'lpips'
  resize: str = 'none'
  least: int = 1
  reads: tuple[str, ...] = ALL
  loss: Callable[[Tree, Array, Array], Array] | None = None
  measure: str = 'lpips'


@dataclasses.dataclass(frozen=True)
class Joint:
  """Images and texts in one space (CLIP, Radford et al. 2021).

  Attributes:
    shape: (H, W, C) of the images that the network reads; others are resized to it, as `resize` says.
    width: D of a vector.
    length: most tokens of a text, special ones included.
    tokenize: (texts, truncate) -> ids int32 B L and mask bool B L, see `TextEncoder`.
    image: (group, image_BHWC uint8) -> float32 B D, of unit length.
    text: (group, ids_BL, mask_BL) -> float32 B D, of unit length.
    scale: group -> scalar, by which cosines are multiplied to be logits: the exponential of the learned temperature.
    name: of the weights, for cards of metrics.
    resize: how it resizes images, see `Features`.
    reads: see the module.
  """

  shape: tuple[int, int, int]
  width: int
  length: int
  tokenize: Callable[[Sequence[str], bool], tuple[np.ndarray, np.ndarray]]
  image: Callable[[Tree, Array], Array]
  text: Callable[[Tree, Array, Array], Array]
  scale: Callable[[Tree], Array]
  name: str = 'clip'
  resize: str = 'none'
  reads: tuple[str, ...] = ALL
