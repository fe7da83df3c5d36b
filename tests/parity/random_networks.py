"""What comparisons of networks of diffusers share: random parameters, inputs, what must hold of outputs and files."""

import numpy as np
import torch

from genjax import interop


def filled(model):
  """The model with random parameters."""
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn_like(parameter)
      parameter.copy_(0.5 * noise / max(1, parameter[0].numel()) ** 0.5 if noise.ndim > 1 else 0.3 + 0.2 * noise)
  return model.eval()


def saved(model, folder):
  """The model with random parameters, saved, and as genjax reads it."""
  filled(model).save_pretrained(folder)
  return interop.load(folder)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check(model, imported, wanted, got, folder):
  """Outputs are equal to 1e-5 of the largest, and what is written again is the same to the last bit; returns it."""
  assert np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
  interop.save(folder, imported)
  again = type(model).from_pretrained(folder)
  before, after = model.state_dict(), again.state_dict()
  assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
  return again
