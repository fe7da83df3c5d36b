"""Parameterizations: what a network predicts, and how to compute an estimate of the data from it.

A network F reads c_in(t) x_t and the embedded time, and predicts a(t) x0 + b(t) eps. Together with x_t = alpha x0 +
sigma eps this gives the estimate in the form of Karras et al. (2022, eq. 7), x0_hat = c_skip x_t + c_out F, with one
formula for all parameterizations:

    c_skip = b / (alpha b - a sigma),    c_out = -sigma / (alpha b - a sigma).

The loss is the squared error of F, which is DDPM's simple loss for epsilon, conditional flow matching for velocity and
EDM's weighting for EDM.
"""

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp

from genjax import checks
from genjax.diffusion.schedules import Process, expand
from genjax.tables import Table
from genjax.types import Array, UserError


@dataclasses.dataclass(frozen=True)
class Parameterization:
  """The prediction a(t) x0 + b(t) eps of a network with inputs scaled by c_in(t).

  Attributes:
    target: (process, t) -> (a, b).
    scale_input: (process, t) -> c_in.
    name: name for error messages.
  """

  target: Callable[[Process, Array], tuple[Array, Array]]
  scale_input: Callable[[Process, Array], Array] = lambda process, t: jnp.ones_like(t)
  name: str = ''

  def check(self, process: Process) -> None:
    """Checks that the prediction determines the data at the start of the process.

    Raises:
      UserError: alpha b = a sigma at the start, e.g. for epsilon if alpha is 0 there.
    """
    start = jnp.float32(process.start)
    (a, b), alpha = self.target(process, start), process.alpha(start)
    if not abs(float(alpha * b - a * process.sigma(start))) > 0:
      raise UserError(f'config.objective.parameterization {self.name!r} gives no estimate of the data at '
                      f't={process.start:g}, where sampling starts: alpha is {float(alpha):g} there, pure noise. '
                      "Use 'v' or 'x0', or 'velocity' with the process 'flow'")

  def prediction(self, process: Process, x0_BX: Array, noise_BX: Array, t_B: Array) -> Array:
    """The prediction of a perfect network: the training target."""
    a_B, b_B = self.target(process, t_B)
    return expand(a_B, x0_BX) * x0_BX + expand(b_B, x0_BX) * noise_BX

  def coefficients(self, process: Process, t: Array) -> tuple[Array, Array]:
    """c_skip and c_out; sigma(t) must be positive."""
    a, b = self.target(process, t)
    sigma = process.sigma(t)
    determinant = process.alpha(t) * b - a * sigma
    return b / determinant, -sigma / determinant

  def denoise(self, process: Process, predict: Callable[[Array, Array], Array], x_BX: Array, t: Array) -> Array:
    """Computes x0_hat from a network's prediction.

    Args:
      process: the process.
      predict: (c_in x_BX, embedded time of shape B) -> prediction.
      x_BX: noisy examples, float32.
      t: their times, B or a scalar.
    """
    t_B = jnp.broadcast_to(jnp.asarray(t, jnp.float32), x_BX.shape[:1])
    skip_B, out_B = self.coefficients(process, t_B)
    prediction_BX = predict(expand(self.scale_input(process, t_B), x_BX) * x_BX, process.embed(t_B))
    return expand(skip_B, x_BX) * x_BX + expand(out_B, x_BX) * prediction_BX.astype(jnp.float32)


def epsilon() -> Parameterization:
  """The noise (Ho et al. 2020, eq. 14)."""
  return Parameterization(lambda process, t: (jnp.zeros_like(t), jnp.ones_like(t)), name='epsilon')


def x0() -> Parameterization:
  """The data."""
  return Parameterization(lambda process, t: (jnp.ones_like(t), jnp.zeros_like(t)), name='x0')


def v() -> Parameterization:
  """alpha eps - sigma x0 (Salimans & Ho 2022, section 4)."""
  return Parameterization(lambda process, t: (-process.sigma(t), process.alpha(t)), name='v')


def velocity() -> Parameterization:
  """dx_t / dt = alpha' x0 + sigma' eps (Lipman et al. 2023; Albergo & Vanden-Eijnden 2023)."""
  return Parameterization(lambda process, t: process.derivatives(t), name='velocity')


def edm(data_std: float = 0.5) -> Parameterization:
  """Inputs and targets of unit variance for data of standard deviation `data_std` (Karras et al. 2022, table 1).

  Written for any alpha: the target is orthogonal to x_t, and equals the paper's for alpha = 1.

  Args:
    data_std: standard deviation of the data.
  """
  checks.positive({'data_std': data_std}, 'data_std')

  def norm(process: Process, t: Array) -> Array:
    return jnp.sqrt((data_std * process.alpha(t)) ** 2 + process.sigma(t) ** 2)

  return Parameterization(
      target=lambda process, t: (process.sigma(t) / (data_std * norm(process, t)),
                                 -data_std * process.alpha(t) / norm(process, t)),
      scale_input=lambda process, t: 1.0 / norm(process, t), name='edm')


# Functions of options of config.objective.parameterization -> Parameterization
PARAMETERIZATIONS: Table[Callable[..., Parameterization]] = Table(
  'parameterization', {'epsilon': epsilon, 'x0': x0, 'v': v, 'velocity': velocity, 'edm': edm}, takes=())
