"""Original files of latent diffusion (one safetensors file for several networks) as components of `diffusers`.

    found = original.open_file(path)
    found.components['vae'].entries     # what its config.json would say
    found.components['vae'].tensors     # name in `diffusers` -> tensor, which is read when it is needed

Stable Diffusion 1, 2, 3, 3.5, SDXL and its refiner, the enlarger by 4, Flux, and autoencoders alone are recognised by
the names of their tensors. A folder with a file `POINTER` stands for a component of such a file.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from genjax.interop import files, original_configs, original_names
from genjax.interop.entries import read_json
from genjax.interop.files import Stored
from genjax.interop.original_configs import Told
from genjax.interop.original_names import Found
from genjax.types import UserError, listed

POINTER = 'original.json'
# Of training and of the noise schedule, which are no part of a network
EXTRAS = (
  r'model_ema\..*', r'.*betas', r'.*(sqrt_)?(one_minus_)?(recip_|recipm1_)?alphas_cumprod(_prev)?', r'log_one_minus_.*',
  r'sqrt_.*', r'posterior_.*', r'logvar', r'lvlb_weights', r'denoiser\..*', r'first_stage_model\.loss\..*',
  r'(cond_stage_model|conditioner)\..*position_ids', r'low_scale_model\..*', r'depth_model\..*',
  r'model\.diffusion_model\.(v_pred|ztsnr)', r'v_pred', r'ztsnr', r'edm_(mean|std|vpred)\..*')


class Kind(NamedTuple):
  """How a component is recognised. name: in `diffusers`. prefixes: of its tensors, one of them. marker: a tensor behind
  the prefix that no other kind has. describe: see `genjax.interop.original_configs`."""

  name: str
  prefixes: tuple[str, ...]
  marker: str
  describe: original_configs.Describe


_DENOISER = ('model.diffusion_model.', '')
KINDS = (
  Kind('unet', _DENOISER, 'input_blocks.0.0.weight', original_configs.unet),
  Kind('transformer', _DENOISER, 'joint_blocks.0.x_block.attn.qkv.weight', original_configs.stable_diffusion_3),
  Kind('transformer', _DENOISER, 'double_blocks.0.img_attn.qkv.weight', original_configs.flux),
  Kind('vae', ('first_stage_model.', 'vae.', ''), 'encoder.down.0.block.0.norm1.weight', original_configs.autoencoder),
  *(Kind('text_encoder', prefixes, f'{table}embeddings.position_embedding.weight', original_configs.clip)
    for prefixes, table in ((('cond_stage_model.transformer.', 'conditioner.embedders.0.transformer.',
                              'text_encoders.clip_l.transformer.'), 'text_model.'),
                            (('cond_stage_model.transformer.', 'conditioner.embedders.0.transformer.'), ''))),
  Kind('text_encoder', ('cond_stage_model.model.',), 'positional_embedding', original_configs.open_clip),
  Kind('text_encoder_2', ('conditioner.embedders.1.model.', 'conditioner.embedders.0.model.'), 'positional_embedding',
       original_configs.open_clip),
  Kind('text_encoder_2', ('text_encoders.clip_g.transformer.',), 'text_model.embeddings.position_embedding.weight',
       original_configs.clip_large),
  Kind('text_encoder_3', ('text_encoders.t5xxl.transformer.',), 'shared.weight', original_configs.t5))


@dataclasses.dataclass(frozen=True)
class Piece:
  """A tensor of `diffusers` that is a part or another arrangement of a tensor in a file; see `Stored`.

  stored: the tensor of the file. found: its name, rows and form.
  """

  stored: Stored
  found: Found

  @property
  def name(self) -> str:
    """In `diffusers`."""
    return self.found.name

  @property
  def dtype(self) -> np.dtype:
    """Of both."""
    return self.stored.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the tensor in `diffusers`."""
    shape = self.stored.shape
    if self.found.form == original_names.TRANSPOSED:
      return shape[::-1]
    if self.found.form == original_names.SQUEEZED and shape[2:] == (1, 1):
      return shape[:2]
    rows = self.found.rows(shape[0]) if shape else None
    return (rows.stop - rows.start, *shape[1:]) if rows else shape

  def read(self) -> np.ndarray:
    """Reads only the rows that it needs."""
    form = self.found.form
    if self.found.whole > 1:
      return self.stored.read(self.found.rows(self.stored.shape[0]))
    array = self.stored.read()
    if form == original_names.SWAPPED:
      return np.roll(array, len(array) // 2, axis=0)
    return np.ascontiguousarray(array.T) if form == original_names.TRANSPOSED else array.reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Held:
  """A tensor that follows from others; see `Stored`."""

  name: str
  array: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the array."""
    return self.array.shape

  @property
  def dtype(self) -> np.dtype:
    """Of the array."""
    return self.array.dtype

  def read(self) -> np.ndarray:
    """The array."""
    return self.array


class Component(NamedTuple):
  """A network of a file. entries: of its config.json. tensors: name in `diffusers` -> tensor."""

  entries: Mapping[str, Any]
  tensors: Mapping[str, Piece | Held]


class Original(NamedTuple):
  """A file. family: see `Told`. components: name in `diffusers` -> component. skipped: names of tensors that are read
  by none. marks: tensors that say how it was trained, 'v_pred' or 'ztsnr'."""

  family: str
  components: Mapping[str, Component]
  skipped: tuple[str, ...]
  marks: frozenset[str]


def recognises(path: pathlib.Path) -> bool:
  """Whether a safetensors file has the layout of an original.

  Raises:
    UserError: it is damaged.
  """
  return path.suffix == '.safetensors' and bool(_kinds(files.names(path)))


def open_file(path: pathlib.Path, scaling: tuple[float, float | None] | None = None, size: int = 0) -> Original:
  """Reads everything about a file but its tensors.

  Args:
    path: the file.
    scaling: scale and shift of the latents; None for those of the published model.
    size: latents along a side; 0 for the published ones.

  Raises:
    UserError: the file is damaged, a pickle, of no known layout, or has a tensor that nothing reads. The message names
      it.
  """
  if path.suffix != '.safetensors':
    raise UserError(
      f'{path}: only safetensors files are opened, because a pickle can run any code. Ask for {path.stem}.safetensors, '
      'or convert it by safetensors.torch.save_file, on a machine that may run such code')
  names = files.names(path)
  kinds = _kinds(names)
  if not kinds:
    raise UserError(f'{path}: its tensors are those of no original layout that genjax knows; the first are '
                    f'{listed(sorted(names), 5)}. Files of diffusers and transformers need their config.json beside '
                    'them')
  unread = tuple(name for name in names if _extra(name))
  stored = files.open_file(path, set(unread))
  told = Told(_family(kinds, stored), scaling, size)
  components: dict[str, Component] = {}
  skipped, left = [*unread], set(stored)
  for kind, prefix in kinds:
    inner = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)
             and (prefix or not _owned(name, kinds))}
    described = kind.describe({name: tensor.shape for name, tensor in inner.items()}, told)
    tensors: dict[str, Piece | Held] = {name: Held(name, array) for name, array in described.made.items()}
    for name, tensor in inner.items():
      found = described.names.tensors(name)
      if any(re.fullmatch(pattern, name) for pattern in described.skipped):
        skipped.append(prefix + name)
        left.discard(prefix + name)
      elif found:
        tensors.update({part.name: Piece(tensor, part) for part in found})
        left.discard(prefix + name)
    components[kind.name] = Component(described.entries, tensors)
  if left:
    raise UserError(f'{path}: {len(left)} tensors have no place in {", ".join(components)}: {listed(sorted(left))}. '
                    'Nothing is left out silently; a file without them can be imported')
  marks = frozenset(name.rpartition('.')[2] for name in unread) & {'v_pred', 'ztsnr'}
  return Original(told.family, components, tuple(skipped), marks)


def _extra(name: str) -> bool:
  return any(re.fullmatch(pattern, name) for pattern in EXTRAS)


def _owned(name: str, kinds: Iterable[tuple[Kind, str]]) -> bool:
  """Whether a tensor belongs to a component with a prefix."""
  return any(prefix and name.startswith(prefix) for _, prefix in kinds)


def _kinds(names: Iterable[str]) -> list[tuple[Kind, str]]:
  """The components of a file, with their prefixes; an autoencoder without a prefix only where it is alone."""
  names = set(names)
  found = {}
  for kind in KINDS:
    prefix = next((prefix for prefix in kind.prefixes if prefix + kind.marker in names), None)
    if prefix is not None and kind.name not in found:
      found[kind.name] = (kind, prefix)
  return list(found.values())


def _family(kinds: list[tuple[Kind, str]], stored: Mapping[str, Stored]) -> str:
  """What the file is, by its components and the sizes of its text."""
  by_name = {kind.name: (kind, prefix) for kind, prefix in kinds}
  if 'transformer' in by_name:
    return 'sd3' if by_name['transformer'][0].describe is original_configs.stable_diffusion_3 else 'flux'
  if 'unet' not in by_name:
    return ''
  prefix = by_name['unet'][1]
  if f'{prefix}label_emb.weight' in stored:
    return 'x4'
  if f'{prefix}label_emb.0.0.weight' in stored:
    return 'refiner' if set(by_name) & {'text_encoder', 'text_encoder_2'} == {'text_encoder_2'} else 'sdxl'
  if 'text_encoder' in by_name:
    return 'sd2' if by_name['text_encoder'][0].describe is original_configs.open_clip else 'sd1'
  return 'sd2' if len(stored[f'{prefix}middle_block.1.proj_in.weight'].shape) == 2 else 'sd1'


def describe_pointer(folder: pathlib.Path) -> dict[str, Any]:
  """What a file `POINTER` says: the file, and the component that the folder stands for."""
  return read_json(folder / POINTER, 'the name of an original file and of its component')


def open_pointer(folder: pathlib.Path) -> Mapping[str, Piece | Held]:
  """The tensors of the component that a folder with `POINTER` stands for.

  Raises:
    UserError: the file is not there, or has no such component.
  """
  told = describe_pointer(folder)
  path = pathlib.Path(str(told.get('file', '')))
  path = path if path.is_absolute() else folder / path
  if not path.is_file():
    raise UserError(f'{folder / POINTER} names {path}, which is not there; import the file again from where it is')
  components = open_file(path).components
  if told.get('component') not in components:
    raise UserError(f'{folder / POINTER} names the component {told.get("component")!r}; {path} has '
                    f'{", ".join(components)}')
  return components[told['component']].tensors
