"""What timings against PyTorch share: two functions that do the same work, torch's side of a run, its steps."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np
import torch

from genjax.experiments.benchmarks import torch_twins as twins
from genjax.experiments.benchmarks.timing import Trained

DEVICE = 'cuda' if torch.cuda.is_available() and jax.default_backend() == 'gpu' else 'cpu'


@dataclasses.dataclass(frozen=True)
class Case:
  """Two functions that do the same work and wait for its completion.

  Attributes:
    setting: description of the sizes.
    units: number and name ('tokens', 'images') of the units per call.
    flops: analytic FLOPs of one call of genjax; 0 if not counted.
  """

  ours: Callable[[], Any]
  theirs: Callable[[], Any]
  setting: str
  units: tuple[int, str]
  flops: int = 0


def twin(run: Trained, group: str, transposed: Sequence[str] = ()) -> Any:
  """Parameters of a group for `torch_twins`."""
  return on_device(twins.convert(jax.device_get(run.state.params[group]), transposed))


def on_device(tree: Any) -> Any:
  """Leaf tensors on the device."""
  if DEVICE == 'cpu':
    return tree
  if isinstance(tree, dict):
    return {name: on_device(value) for name, value in tree.items()}
  return [on_device(value) for value in tree] if isinstance(tree, list) else tree.detach().to(DEVICE).requires_grad_()


def tensor(array: np.ndarray) -> torch.Tensor:
  """An array on the device; images B H W C become B C H W in memory format channels_last."""
  found = torch.tensor(array, device=DEVICE)
  return found.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) if found.ndim == 4 else found


def torch_step(loss: Callable[[], torch.Tensor], parameters: Any) -> Callable[[], None]:
  """Gradients of a loss and an update by Adam."""
  leaves = twins.leaves(parameters)
  adam = torch.optim.Adam(leaves, 1e-4, fused=True)

  def run() -> None:
    for leaf, gradient in zip(leaves, torch.autograd.grad(loss(), leaves)):
      leaf.grad = gradient
    adam.step()
    wait()

  return run


def wait() -> None:
  """Waits for the completion of torch's work."""
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def precision(dtype: str) -> Any:
  """Computes in a dtype with float32 parameters, as genjax does."""
  return torch.autocast(DEVICE, getattr(torch, dtype), enabled=dtype != 'float32')


def no_grad(function: Callable[[], Any]) -> Callable[[], None]:
  """Runs `function` without gradients and waits for its completion."""
  def run() -> None:
    with torch.inference_mode():
      function()
    wait()
  return run
