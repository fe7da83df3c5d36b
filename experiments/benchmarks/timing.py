"""Workloads and timing for the benchmarks `speed` and `accelerator`. Needs no PyTorch."""

from collections.abc import Callable, Sequence
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion import conditioning, samplers, schedules
from genjax.diffusion.parameterizations import PARAMETERIZATIONS
from genjax.models.transformers import decoder
from genjax.nn.functional import Network
from genjax.objectives import base
from genjax.objectives.codecs import identity
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.objectives.language import LanguageModel
from genjax.training import state, step
from genjax.training.monitoring import flops
from genjax.training.optimization import optimizers


class Trained:
  """An objective with its state and its jitted step, as in the training loop.

  Args:
    objective: what is trained and sampled.
    batch: columns of a training batch.

  Attributes:
    flops: analytic FLOPs of a step.
  """

  def __init__(self, objective: base.Objective, batch: dict[str, np.ndarray]):
    self.objective, self.batch = objective, {name: jnp.asarray(column) for name, column in batch.items()}
    groups = jax.eval_shape(lambda: objective.init(jax.random.key(0), {}).params)
    tx = {group: optimizers.make('adam', lr=1e-4, steps=10**6) for group in groups}
    create = functools.partial(state.create, objective, tx, {}, 0)
    self.state = jax.jit(create)({})
    function = step.make_step(objective, tx, {}, 0)
    self.due = tuple(phase.name for phase in objective.phases())
    self.flops = flops.count(function, self.state, {}, self.batch, self.due, static_argnums=(3,))
    self._step = jax.jit(function, static_argnums=3, donate_argnums=0)
    self._sample = jax.jit(objective.sample)

  def step(self) -> None:
    """Runs one train step and waits for it."""
    self.state, metrics = self._step(self.state, {}, self.batch, self.due)
    jax.block_until_ready((self.state, metrics))

  def sample(self, rows: int, conditions: dict[str, Any]) -> None:
    """Draws `rows` samples and waits for them."""
    jax.block_until_ready(self._sample(*self._sampled(rows, conditions)))

  def sample_flops(self, rows: int, conditions: dict[str, Any]) -> int:
    """Analytic FLOPs of `rows` samples."""
    return flops.count(self.objective.sample, *self._sampled(rows, conditions))

  def lower_step(self) -> jax.stages.Lowered:
    """The step, to be compiled; see `begin_step`."""
    return self._step.lower(self.state, {}, self.batch, self.due)

  def begin_step(self, compiled: jax.stages.Compiled) -> Any:
    """Begins one step by the compiled program; returns what to wait for."""
    self.state, metrics = compiled(self.state, {}, self.batch)
    return metrics

  def lower_sample(self, rows: int, conditions: dict[str, Any]) -> jax.stages.Lowered:
    """The sampling of `rows`, to be compiled; see `begin_sample`."""
    return self._sample.lower(*self._sampled(rows, conditions))

  def begin_sample(self, compiled: jax.stages.Compiled, rows: int, conditions: dict[str, Any]) -> Any:
    """Begins to draw samples by the compiled program; returns them."""
    return compiled(*self._sampled(rows, conditions))

  def _sampled(self, rows: int, conditions: dict[str, Any]) -> tuple[Any, ...]:
    return self.state.params, self.state.context({}), jax.random.split(jax.random.key(1), rows), conditions


def language_model(config: decoder.TransformerConfig, length: int) -> LanguageModel:
  """A language model that continues prompts greedily by `length` tokens."""
  return LanguageModel(decoder.transformer(config), functools.partial(decoder.init_cache, config), config.context,
                       SamplerOptions(length=length, temperature=0.0),
                       lay_out=functools.partial(decoder.lay_out, config))


def random_tokens(config: decoder.TransformerConfig, rows: int, context: int) -> dict[str, np.ndarray]:
  """A batch for it: `rows` sequences of `context` tokens and one more."""
  return {'tokens': np.random.default_rng(0).integers(0, config.vocab, (rows, context + 1)).astype(np.int32)}


def flow_matching(net: Network, shape: tuple[int, int, int], classes: int, steps: int,
                  guidance: float = 1.0) -> Diffusion:
  """Flow matching with a denoiser, sampled by Euler's method."""
  process = schedules.PROCESSES['flow']()
  times = tuple(schedules.sampling_times(process, steps, None).tolist())
  return Diffusion(net, shape, process, PARAMETERIZATIONS['velocity'](),
                   Sampler(samplers.euler, times, guidance=guidance), codec=identity(),
                   conditioners={'label': conditioning.classes(classes)} if classes else {})


def random_latents(shape: tuple[int, int, int], rows: int, classes: int) -> dict[str, np.ndarray]:
  """A batch for it."""
  rng = np.random.default_rng(0)
  columns: dict[str, np.ndarray] = {'image': rng.normal(size=(rows, *shape)).astype(np.float32)}
  if classes:
    columns['label'] = rng.integers(0, classes, rows).astype(np.int32)
  return columns


def seconds_of(function: Callable[[], Any], calls: int, wait: Callable[[Any], Any] = lambda begun: None) -> float:
  """Seconds per call, over `calls` consecutive calls.

  Args:
    function: the function to time.
    calls: number of calls.
    wait: waits for the result of the last call.
  """
  begin, begun = time.perf_counter(), None
  for _ in range(calls):
    begun = function()
  wait(begun)
  return (time.perf_counter() - begin) / calls


def rounds_of(function: Callable[[], Any], rounds: int, seconds: float, wait: Callable[[Any], Any]) -> Sequence[float]:
  """Seconds per call in each of `rounds` rounds of as many calls as fill `seconds`. Compilation is not timed.

  Args:
    function, wait: see `seconds_of`; it has run once.
  """
  calls = max(1, round(seconds / max(1e-6, seconds_of(function, 1, wait))))
  return [seconds_of(function, calls, wait) for _ in range(rounds)]
