"""Tables between public tensor names and genjax's parameters: one a public architecture, for both directions."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from genjax.interop.entries import Entries
from genjax.models.transformer import TransformerConfig
from genjax.types import Tree, UserError, listed


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One row of a table: public tensors, and the parameters that they hold.

  name: the public name, with '{layer}' where there is one a layer; the parameters then have a leading axis L.
  leaves: paths of the parameters; several lie side by side on the last axis, after the transposition.
  transposed: the public tensor has its axes in reverse, as the weights of torch's linear layers (out, in).

  A row whose parameters a config does not have (biases, an output layer of its own) does not count for that config.
  """

  name: str
  leaves: tuple[str, ...]
  transposed: bool = False

  @property
  def layered(self) -> bool:
    """Whether there is one tensor a layer."""
    return '{layer}' in self.name


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A public architecture.

  name: its `model_type`.
  tensors: the table.
  prefix: what the names of a bare model, saved without its output layer's module, lack.
  ignored: regular expressions of names that public files hold and that are no parameters.
  aliases: public name -> name of the tensor that it repeats where the output layer is tied; it may be absent.
  read: config.json -> config; raises UserError for options that genjax does not have.
  write: config -> entries of config.json; raises UserError for options that the architecture does not have.
  defaults: entries of config.json that `write` does not know, for models that never had one.
  spellings: entry -> option by value, where several values are one option: a model keeps the one that it came with, as the published
    implementations of an activation differ in their rounding.
  """

  name: str
  tensors: tuple[Tensor, ...]
  prefix: str
  ignored: tuple[str, ...]
  aliases: Mapping[str, str]
  read: Callable[[Entries], TransformerConfig]
  write: Callable[[TransformerConfig], dict[str, Any]]
  defaults: Mapping[str, Any]
  spellings: Mapping[str, Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table under one config.

  tensor: the row. names: public names, one a layer. shape: of each of the public tensors. widths: of the parameters, on the axis on
  which they lie side by side.
  """

  tensor: Tensor
  names: tuple[str, ...]
  shape: tuple[int, ...]
  widths: tuple[int, ...]

  def split(self, tensor: np.ndarray) -> list[np.ndarray]:
    """Views of the parts of a public tensor that belong to each of the parameters."""
    tensor = tensor.T if self.tensor.transposed else tensor
    return np.split(tensor, np.cumsum(self.widths)[:-1], axis=-1) if len(self.widths) > 1 else [tensor]

  def join(self, parts: list[np.ndarray]) -> np.ndarray:
    """The inverse of `split`."""
    joined = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return np.ascontiguousarray(joined.T if self.tensor.transposed else joined)

  @property
  def size(self) -> int:
    """Scalars in one public tensor."""
    return math.prod(self.shape)


def unflatten(leaves: Mapping[str, Any]) -> Tree:
  """The tree whose `named_leaves` these are."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *folders, name = path.split('/')
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = leaf
  return tree


def rows(architecture: Architecture, shapes: Mapping[str, Any]) -> list[Row]:
  """The rows of a table that a model has.

  Args:
    architecture: has the table.
    shapes: every parameter of the model by path, as anything with a shape.

  Raises:
    UserError: a parameter stands in no row.
  """
  found, mapped = [], set()
  for tensor in architecture.tensors:
    present = [leaf for leaf in tensor.leaves if leaf in shapes]
    if len(present) < len(tensor.leaves):
      continue
    mapped.update(present)
    full = [tuple(shapes[leaf].shape) for leaf in present]
    layers = full[0][0] if tensor.layered else 1
    one = [shape[1:] if tensor.layered else shape for shape in full]
    shape = (*one[0][:-1], sum(part[-1] for part in one))
    names = tuple(tensor.name.format(layer=layer) for layer in range(layers))
    found.append(Row(tensor, names, shape[::-1] if tensor.transposed else shape, tuple(part[-1] for part in one)))
  if left := sorted(set(shapes) - mapped):
    raise UserError(f'{architecture.name} has no tensors for the parameters {listed(left)}')
  return found
