"""Tables that map public tensor names to genjax's parameters, one per architecture, for both directions."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from genjax.interop.entries import Entries
from genjax.nn.functional import Network
from genjax.types import Tree, UserError, listed

# Name in `transformers` -> name in `genjax.nn.blocks.ACTIVATIONS`; export writes the first of several names.
ACTIVATIONS = {
  'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_fast': 'gelu_tanh', 'relu': 'relu',
  'silu': 'silu', 'swish': 'silu', 'quick_gelu': 'quick_gelu'
}

# Names of attention before diffusers 0.17 -> its names from then on, see `Architecture.renamed`
OLDER_ATTENTION = {rf'(.*attentions\.\d+\.){old}(\..*)': rf'\1{new}\2' for old, new in (
  ('query', 'to_q'), ('key', 'to_k'), ('value', 'to_v'), ('proj_attn', 'to_out.0'))}


@dataclasses.dataclass(frozen=True)
class Form:
  """How a public tensor is another arrangement of a parameter.

  Attributes:
    shape: shape of the parameter -> shape of the public tensor.
    read: public tensor -> parameter.
    write: parameter -> public tensor.
    inputs: whether it arranges the inputs of a kernel, too, and not only its outputs.
  """

  shape: Callable[[tuple[int, ...]], tuple[int, ...]]
  read: Callable[[np.ndarray], np.ndarray]
  write: Callable[[np.ndarray], np.ndarray]
  inputs: bool = False


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One row of a table: public tensors, and the parameters that they hold.

  Attributes:
    name: the public name. With '{layer}' in it there is one tensor per layer, and the parameters have a leading axis L.
      With '{expert}' too there is one per layer and expert, and the parameters have a second axis E.
    leaves: paths of the parameters. Several are concatenated along the last axis, after the transposition.
    transposed: whether the public tensor has reversed axes, like the weights of torch's linear layers (out, in) and 1D
      convolutions.
    one_row: whether the public tensor has a leading axis of size 1.
    image_kernel: whether the public tensor is O I H W, like the weights of torch's 2D convolutions, and the parameter
      H W I O.
    pixel_kernel: whether the public tensor is O I 1 1, and the parameter I O.
    form: another arrangement; after it, the axes of the tensor are those of the parameter.
    first: number of the first layer.

  A row is ignored for configs without its parameters (biases, an untied output layer).
  """

  name: str
  leaves: tuple[str, ...]
  transposed: bool = False
  one_row: bool = False
  image_kernel: bool = False
  pixel_kernel: bool = False
  form: Form | None = None
  first: int = 0

  @property
  def layered(self) -> bool:
    """Whether there is one tensor per layer."""
    return '{layer}' in self.name

  @property
  def stacked(self) -> int:
    """Number of leading axes of the parameters (layers, experts)."""
    return self.layered + ('{expert}' in self.name)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A public architecture.

  Attributes:
    name: its `model_type`, or its `_class_name` in `diffusers`.
    config: class of its options.
    network: options -> network; raises a ValueError for options that do not fit together.
    tensors: options -> table of `Tensor`s.
    prefix: prefix of names that a bare model, saved without its output layer, lacks.
    ignored: regular expressions of names in public files that are not parameters.
    aliases: public name -> name of the tensor that it repeats if the output layer is tied; it may be absent.
    read: (config.json, stored tensors by name, with shapes) -> config; raises a UserError for unsupported options.
    write: config -> entries of config.json; raises a UserError for options that the architecture lacks.
    defaults: further entries of config.json, for models that were not imported.
    spellings: entry -> option by value, if several values mean one option. An imported model keeps its value, because
      published implementations of an activation differ in rounding.
    renamed: regular expression -> replacement, for names in older files.
    bare: options -> whether the model is saved without the prefix.
    mutable: (options, config.json) -> variables that are no tensors of the files.
    copies: options -> name of a tensor that public files repeat -> name of the tensor that it repeats. Import checks
      that they are equal, export writes them.
    constants: options -> tensors of public files that follow from the options, by name.
    measured: such variables -> entries of config.json.
    layout: of the folder, an entry of `genjax.interop.files.LAYOUTS`.
  """

  name: str
  config: type
  network: Callable[[Any], Network]
  tensors: Callable[[Any], tuple[Tensor, ...]]
  prefix: str
  ignored: tuple[str, ...]
  aliases: Mapping[str, str]
  read: Callable[[Entries, Mapping[str, Any]], Any]
  write: Callable[[Any], dict[str, Any]]
  defaults: Mapping[str, Any]
  spellings: Mapping[str, Mapping[str, str]]
  renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  bare: Callable[[Any], bool] = lambda config: False
  mutable: Callable[[Any, Mapping[str, Any]], Tree] = lambda config, source: {}
  copies: Callable[[Any], Mapping[str, str]] = lambda config: {}
  constants: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
  measured: Callable[[Tree], Mapping[str, Any]] = lambda mutable: {}
  layout: str = 'transformers'


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table under one config.

  Attributes:
    tensor: the row of the table.
    names: public names.
    places: for each name the index in the leading axes of the parameters.
    shape: shape of each public tensor.
    widths: sizes of the parameters along the axis of concatenation.
  """

  tensor: Tensor
  names: tuple[str, ...]
  places: tuple[tuple[int, ...], ...]
  shape: tuple[int, ...]
  widths: tuple[int, ...]

  def split(self, tensor: np.ndarray) -> list[np.ndarray]:
    """Splits a public tensor into views for its parameters."""
    tensor = tensor[0] if self.tensor.one_row else tensor
    tensor = tensor if self.tensor.form is None else self.tensor.form.read(tensor)
    tensor = tensor[..., 0, 0] if self.tensor.pixel_kernel else tensor
    tensor = tensor.T if self.tensor.transposed or self.tensor.pixel_kernel else tensor
    tensor = tensor.transpose(2, 3, 1, 0) if self.tensor.image_kernel else tensor
    return np.split(tensor, np.cumsum(self.widths)[:-1], axis=-1) if len(self.widths) > 1 else [tensor]

  def join(self, parts: list[np.ndarray]) -> np.ndarray:
    """The inverse of `split`."""
    joined = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    joined = joined.T if self.tensor.transposed or self.tensor.pixel_kernel else joined
    joined = joined[..., None, None] if self.tensor.pixel_kernel else joined
    joined = joined.transpose(3, 2, 0, 1) if self.tensor.image_kernel else joined
    joined = joined if self.tensor.form is None else self.tensor.form.write(joined)
    return np.asarray(joined[None] if self.tensor.one_row else joined, order='C')

  @property
  def outputs_first(self) -> bool:
    """Whether a public kernel has its outputs before its inputs."""
    tensor = self.tensor
    return tensor.transposed or tensor.pixel_kernel or tensor.image_kernel or tensor.form is not None

  @property
  def size(self) -> int:
    """Number of elements of one public tensor."""
    return math.prod(self.shape)


def both(theirs: str, *ours: str, kernel: str = 'kernel', transposed: bool = True) -> tuple[Tensor, ...]:
  """Weight and bias of a layer."""
  return (Tensor(f'{theirs}.weight', tuple(f'{path}/{kernel}' for path in ours), transposed and kernel == 'kernel'),
          Tensor(f'{theirs}.bias', tuple(f'{path}/bias' for path in ours)))


def convolution(theirs: str, ours: str) -> tuple[Tensor, ...]:
  """Weight and bias of a 2D convolution."""
  return (Tensor(f'{theirs}.weight', (f'{ours}/kernel',), image_kernel=True), Tensor(f'{theirs}.bias',
                                                                                    (f'{ours}/bias',)))


def pixelwise(theirs: str, ours: str) -> tuple[Tensor, ...]:
  """Weight and bias of a 2D convolution of size 1 that is a matrix here."""
  return (Tensor(f'{theirs}.weight', (f'{ours}/kernel',), pixel_kernel=True), Tensor(f'{theirs}.bias',
                                                                                    (f'{ours}/bias',)))


def activation_name(activation: str) -> str:
  """The name in `transformers` of one of `genjax.nn.blocks.ACTIVATIONS`."""
  return next(name for name, own in ACTIVATIONS.items() if own == activation)


def refuse(name: str, config: Any, **allowed: tuple) -> None:
  """Checks that a public architecture supports options.

  Raises:
    UserError: an option has a value that is not allowed.
  """
  wrong = [f'{option}={getattr(config, option)!r} (it has {" or ".join(map(repr, values))})'
           for option, values in allowed.items() if getattr(config, option) not in values]
  if wrong:
    raise UserError(f'{name} has no {", ".join(wrong)}')


def rows(architecture: Architecture, config: Any, shapes: Mapping[str, Any]) -> list[Row]:
  """The rows of a table that apply to a model.

  Args:
    architecture: has the table.
    config: the options of the model.
    shapes: path -> parameter of the model, or any object with its shape.

  Raises:
    UserError: a parameter is in no row.
  """
  found, mapped = [], set()
  for tensor in architecture.tensors(config):
    present = [leaf for leaf in tensor.leaves if leaf in shapes]
    if len(present) < len(tensor.leaves):
      continue
    mapped.update(present)
    full = [tuple(shapes[leaf].shape) for leaf in present]
    places = tuple(np.ndindex(full[0][:tensor.stacked]))
    one = [shape[tensor.stacked:] for shape in full]
    shape = _joined(one)
    names = tuple(tensor.name.format(**dict(zip(('layer', 'expert'), (place[0] + tensor.first, *place[1:]))))
                  if place else tensor.name for place in places)
    shape = shape[::-1] if tensor.transposed else shape
    shape = (*shape[::-1], 1, 1) if tensor.pixel_kernel else shape
    shape = (shape[3], shape[2], *shape[:2]) if tensor.image_kernel else shape
    shape = shape if tensor.form is None else tensor.form.shape(shape)
    found.append(Row(tensor, names, places, (1, *shape) if tensor.one_row else shape,
                     tuple(part[-1] for part in one if part)))
  if left := sorted(set(shapes) - mapped):
    raise UserError(f'{architecture.name} has no tensors for the parameters {listed(left)}')
  return found


def _joined(parts: list[tuple[int, ...]]) -> tuple[int, ...]:
  """The shape of parts that are concatenated along their last axis; that of a number is empty."""
  return (*parts[0][:-1], sum(part[-1] for part in parts)) if parts[0] else ()
