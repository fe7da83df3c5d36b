"""Conditions that are pictures behind an autoencoder: a picture with holes to fill, and a picture to change."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.images import resizing
from genjax.data.pipeline import Columns
from genjax.experiments import condition_kinds as kinds
from genjax.experiments import condition_texts, latents, parts
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.objectives import codecs
from genjax.types import Array, Params, UserError

OPAQUE = 127  # alpha above it is a pixel to keep
GREY = 127.5  # a pixel of value 0 in [-1, 1], which stands in holes, as these models were trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpainting(Common):
  """A picture with holes: the mask of the holes, then the latent of the rest, joined to the channels of what is
  denoised (the inpainting models of Stable Diffusion). A value is a picture whose holes are transparent.

  Attributes:
    column: of the data, with uint8 pixels.
    mask: column of the data with masks: uint8 pixels, white in the holes.
    part: an autoencoder of config.parts.
  """

  column: str = 'image'
  mask: str = 'mask'
  part: str = latents.PART


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(Common):
  """A picture whose latent, neither shifted nor scaled, is joined to the channels of what is denoised; zeros stand for
  none (Brooks et al. 2023).

  Attributes:
    column: of the data, with uint8 pixels.
    part: an autoencoder of config.parts.
  """

  column: str
  part: str = latents.PART


def inpainting(scope: Scope, options: Inpainting) -> Made:
  """See `Inpainting`."""
  part, shape = _opened(scope, options.part)
  column, encoder = scope.column('pixels'), part.functions
  codec, factor = codecs.latents(options.part, encoder), shape[0] // scope.shape[0]

  def convert(value: Any) -> np.ndarray:
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4:
      raise UserError(f'condition {scope.name!r} takes uint8 pixels H W 4: red, green, blue, and alpha that is 0 in '
                      f'the holes, got {pixels.dtype} of shape {pixels.shape}; save the picture with transparent holes '
                      'as a .png')
    return _sized(scope, pixels, shape)

  def take(columns: Columns) -> np.ndarray:
    if options.mask not in columns:
      raise condition_texts.lacking(scope, options.mask, columns)
    rows = [np.concatenate([pixels, 255 - _grey(mask)], axis=2)
            for pixels, mask in zip(columns[options.column], columns[options.mask])]
    return np.stack([convert(row) for row in rows])

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    pixels_BHWC = columns[column]
    hole_BHW1 = pixels_BHWC[..., 3:] <= OPAQUE
    seen_BHWC = jnp.where(hole_BHW1, GREY, pixels_BHWC[..., :3].astype(jnp.float32))
    latent_BHWZ = codec.encode(frozen, {encoder.column: seen_BHWC}, None)
    # as the published masks were made small: one pixel stands for each square of `factor`
    return {'image': jnp.concatenate([hole_BHW1[:, ::factor, ::factor].astype(latent_BHWZ.dtype), latent_BHWZ], -1)}

  return Made(
    reads=(options.column, options.mask), take=take, encode=lambda rows: {column: rows},
    columns={column: jax.ShapeDtypeStruct((*shape[:2], 4), np.uint8)},
    null={column: np.zeros((*shape[:2], 4), np.uint8)}, give=give,
    parse=lambda path: convert(kinds.read_picture(path, 4)), convert=convert, path=True,
    describe='the path of a picture whose holes are transparent',
    row=jax.ShapeDtypeStruct((*shape[:2], 4), np.uint8), network={'image_channels': 1 + encoder.latent[-1]},
    mirrored=(column,), part=part, facts={'shape': list(shape)})


def latent(scope: Scope, options: Latent) -> Made:
  """See `Latent`."""
  part, shape = _opened(scope, options.part)
  column, nothing, encoder = scope.column('pixels'), scope.column('nothing'), part.functions

  def convert(value: Any) -> np.ndarray:
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != shape[2]:
      raise UserError(f'condition {scope.name!r} takes uint8 pixels H W {shape[2]}, got {pixels.dtype} of shape '
                      f'{pixels.shape}')
    return _sized(scope, pixels, shape)

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    mean_BHWZ, _ = encoder.encode(frozen[part.name], columns[column])
    return {'image': jnp.where(columns[nothing][:, None, None, None], 0.0, mean_BHWZ)}

  return Made(
    reads=(options.column,), take=lambda columns: np.stack([convert(pixels) for pixels in columns[options.column]]),
    encode=lambda rows: {column: rows, nothing: np.zeros(len(rows), bool)},
    columns={column: jax.ShapeDtypeStruct(shape, np.uint8), nothing: jax.ShapeDtypeStruct((), np.bool_)},
    null={column: np.zeros(shape, np.uint8), nothing: np.asarray(True)}, give=give,
    parse=lambda path: convert(kinds.read_picture(path, shape[2])), convert=convert, path=True,
    describe=f'the path of a picture, which is resized to {shape[0]} x {shape[1]}',
    row=jax.ShapeDtypeStruct(shape, np.uint8), network={'image_channels': encoder.latent[-1]}, mirrored=(column,),
    part=part, facts={'shape': list(shape)})


def _opened(scope: Scope, name: str) -> tuple[parts.Part, tuple[int, int, int]]:
  """An autoencoder for latents as large as what is denoised, and the shape of its pictures."""
  part = parts.open(scope.config, name, 'autoencoder')
  data = scope.config.data.shape
  encoder = latents.fitted(part.functions, tuple(data))
  if tuple(encoder.latent[:2]) != tuple(scope.shape[:2]):
    raise UserError(f'{scope.where}.part={name!r} makes latents of {encoder.latent[:2]} from pictures of '
                    f'{encoder.shape[:2]}, which cannot be joined to what is denoised, of {scope.shape[:2]}')
  height, width, channels = encoder.shape
  return dataclasses.replace(part, functions=encoder), (height, width, channels)


def _sized(scope: Scope, pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
  if pixels.shape[:2] == shape[:2]:
    return pixels
  how, crop = kinds.filter_of(scope), bool(scope.config.data.get('crop', False))
  if pixels.shape[2] != 4:
    return resizing.resize(pixels, shape, how, crop)
  colours = resizing.resize(pixels[..., :3], (*shape[:2], 3), how, crop)
  return np.concatenate([colours, resizing.resize(pixels[..., 3:], (*shape[:2], 1), 'nearest', crop)], axis=2)


def _grey(mask: np.ndarray) -> np.ndarray:
  mask = np.asarray(mask)
  return mask[..., None] if mask.ndim == 2 else mask[..., :1]
