"""Low-rank adaptation (Hu et al. 2021) of any objective: its groups are frozen, and adapters are trained."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from genjax.nn import lora
from genjax.objectives.base import Context, Objective, Output, Phase, Variables
from genjax.types import Array, Batch, Key, Params, Tree

Join = Callable[[Tree, Tree], Tree]  # (parameters of a group, its adapters) -> parameters
BASE = 'base'  # name of the frozen group that holds what is adapted: its parameters and mutable variables


@dataclasses.dataclass(frozen=True)
class Lora:
  """An objective whose losses are those of `base` with adapters beside its kernels; see `genjax.nn.lora`.

  base: what is adapted. options: rank, scale and paths. groups: the groups of `base` whose kernels are adapted; the
  others stand still, and a phase that would train none but these is left out.

  The trained group is 'lora', or 'lora_GROUP' for each of several `groups`. Frozen are the frozen groups of `base`, and
  `BASE`: {'params': the groups of `base`, 'mutable': the mutable variables to start from}.
  """

  base: Objective
  options: lora.Options
  groups: tuple[str, ...]

  @property
  def noise_shape(self) -> tuple[int, ...]:
    """That of the base, see `genjax.objectives.diffusion.Diffusion`; () where it has none."""
    return getattr(self.base, 'noise_shape', ())

  def adapter(self, group: str) -> str:
    """The name of the trained group of adapters for a group of `base`."""
    return 'lora' if len(self.groups) == 1 else f'lora_{group}'

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial adapters, which don't change the network.

    Raises:
      UserError: see `genjax.nn.lora.targets`.
    """
    kernels = lora.targets(self.options, {group: frozen[BASE]['params'][group] for group in self.groups})
    params = {self.adapter(group): lora.init(jax.random.fold_in(key, number), kernels[group], self.options.rank)
              for number, group in enumerate(self.groups)}
    # Copied, because the state is donated and frozen variables are not.
    return Variables(params, jax.tree.map(jnp.copy, frozen[BASE]['mutable']))

  def phases(self) -> tuple[Phase, ...]:
    """The phases of `base` that train an adapted group."""
    found = []
    for phase in self.base.phases():
      trains = tuple(self.adapter(group) for group in phase.trains if group in self.groups)
      if trains:
        found.append(Phase(phase.name, trains, self._loss(phase), phase.every))
    return tuple(found)

  def _loss(self, phase: Phase):
    def loss(params: Params, context: Context, batch: Batch, key: Key) -> Output:
      return phase.loss(self.attach(params, context.frozen), self.context(context), batch, key)

    return loss

  def attach(self, params: Params, frozen: Params) -> Params:
    """The parameters of `base` with `Adapted` kernels; groups without adapters are unchanged."""
    return self._joined(params, frozen, self._attach)

  def merge(self, params: Params, frozen: Params) -> Params:
    """The parameters of `base` with the adapters merged into the kernels; groups without adapters are unchanged."""
    return self._joined(params, frozen, self._merge)

  def _joined(self, params: Params, frozen: Params, join: Join) -> Params:
    base = frozen[BASE]['params']
    return {group: join(base[group], params[self.adapter(group)]) if group in self.groups else base[group]
            for group in self._base_groups()}

  def _attach(self, params: Tree, adapters: Tree) -> Tree:
    return lora.attach(params, adapters, self.options)

  def _merge(self, params: Tree, adapters: Tree) -> Tree:
    return lora.merge(params, adapters, self.options.scale)

  def _base_groups(self) -> list[str]:
    return sorted({group for phase in self.base.phases() for group in phase.trains})

  def context(self, context: Context, merged: bool = False) -> Context:
    """The context of `base`: its averages have the averaged adapters merged or attached."""
    base, join = context.frozen[BASE]['params'], self._merge if merged else self._attach
    averaged = {group: join(base[group], context.ema[self.adapter(group)])
                for group in self.groups if self.adapter(group) in context.ema}
    still = {group: base[group] for group in self._base_groups() if group not in self.groups}
    rest = {name: tree for name, tree in context.frozen.items() if name != BASE}
    return dataclasses.replace(context, ema={**still, **averaged}, frozen=rest)

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """The evaluation of `base`."""
    return self.base.evaluate(self.attach(params, context.frozen), self.context(context), batch, key)

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array],
             **options: Any) -> dict[str, Array]:
    """The samples of `base`. Adapters are merged once, so that sampling is as fast as that of `base`."""
    return self.base.sample(self.merge(params, context.frozen), self.context(context, merged=True), keys, conditions,
                            **options)

  @property
  def emits(self) -> bool:
    """See `genjax.objectives.base.Objective`."""
    return getattr(self.base, 'emits', False)
