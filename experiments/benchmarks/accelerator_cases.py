"""Cases of `genjax.experiments.benchmarks.accelerator`: published sizes in bfloat16, in genjax and PyTorch."""

from collections.abc import Callable, Mapping
import dataclasses
import importlib
import importlib.util
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.experiments.benchmarks import timing
from genjax.models.denoisers import dit, unet
from genjax.models.transformers import decoder
from genjax.objectives import base
from genjax.training.monitoring import flops

SIDES = ('genjax', 'torch', 'torch_compile')
ROUND_SECONDS = 0.5
PROMPT = 16  # tokens
DTYPE = 'bfloat16'
# substring of a program -> kernel that computes its attention
KERNELS = {'__cudnn$fmha': 'cudnn', 'splash': 'splash (Pallas)', 'flash_attention': 'flash (Pallas)'}
PALLAS = ('tpu_custom_call', '__gpu$xla.gpu.triton', 'triton_kernel_call', 'mosaic_gpu')
WEIGHT_BLOCK = 2**16  # random numbers that are repeated in PyTorch weights; their values don't affect the time


class Unavailable(Exception):
  """Raised if no case can run on a side here."""


class Skipped(Exception):
  """Raised if this case does not support a side."""


@dataclasses.dataclass(frozen=True)
class Case:
  """One thing that is measured.

  setting: for the reader. unit: what is counted, and `units` how many a row makes. batch: rows to begin with. seconds:
  side -> about how long it takes on a GPU of today, for the budget. make: (dry, attention) -> objective. data: (rows,
  dry) -> a batch.
  conditions: (rows, dry) -> conditions of samples, for a case that samples; None for one that trains. twin: (shapes of
  parameters, what compiles, batch, dry) -> the same step in PyTorch.
  """

  setting: str
  unit: str
  units: Callable[[bool], int]
  batch: int
  seconds: Mapping[str, float]
  make: Callable[[bool, str], base.Objective]
  data: Callable[[int, bool], dict[str, np.ndarray]]
  twin: Callable[[Any, Callable, dict[str, np.ndarray], bool], Callable[[], None]]
  conditions: Callable[[int, bool], dict[str, np.ndarray]] | None = None


def measure(case: Case, side: str, rows: int, dry: bool, rounds: int) -> dict[str, Any]:
  """The results of one side with `rows` rows; see docs/accelerators.md."""
  found = _ours(case, rows, dry, rounds) if side == 'genjax' else _theirs(case, rows, dry, rounds, side
                                                                          == 'torch_compile')
  return {'unit': case.unit, 'units_per_step': rows * case.units(dry), 'flops': model_flops(case, rows, dry), **found}


def model_flops(case: Case, rows: int, dry: bool) -> int:
  """Analytic FLOPs of a step, with the FLOPs of attention from its formula, whatever the kernel.

  A train step has three times the FLOPs of the loss, since the gradient of a product is two products. Recomputation
  does not count.
  """
  objective, batch = case.make(dry, 'reference'), case.data(rows, dry)
  variables = jax.eval_shape(lambda: objective.init(jax.random.key(0), {}))
  context = base.Context(step=jax.eval_shape(lambda: jnp.zeros((), jnp.int32)), mutable=variables.mutable, ema={},
                         frozen={})
  if case.conditions is not None:
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    return flops.count(objective.sample, variables.params, context, keys, case.conditions(rows, dry))
  phase, = objective.phases()
  key = jax.eval_shape(lambda: jax.random.key(0))
  return 3 * flops.count(lambda *given: phase.loss(*given).loss, variables.params, context, batch, key)


def attention_of(program: str | None) -> str:
  """The implementation of attention in a lowered or compiled program: a fused kernel or plain XLA.

  'unknown' if the backend gives no program text.
  """
  if program is None:
    return 'unknown'
  for words, name in KERNELS.items():
    if words in program:
      return name
  return 'Pallas' if any(words in program for words in PALLAS) else 'XLA'


def _ours(case: Case, rows: int, dry: bool, rounds: int) -> dict[str, Any]:
  run = timing.Trained(case.make(dry, 'auto'), case.data(rows, dry))
  begin = time.perf_counter()
  if case.conditions is None:
    lowered = run.lower_step()
    compiled = lowered.compile()
    function: Callable[[], Any] = lambda: run.begin_step(compiled)
  else:
    conditions = {name: jnp.asarray(value) for name, value in case.conditions(rows, dry).items()}
    lowered = run.lower_sample(rows, conditions)
    compiled = lowered.compile()
    function = lambda: run.begin_sample(compiled, rows, conditions)
  compiling = time.perf_counter() - begin
  jax.block_until_ready(function())
  times = timing.rounds_of(function, rounds, 0.0 if dry else ROUND_SECONDS, jax.block_until_ready)
  analysis = compiled.memory_analysis()
  program = None if analysis is None else (analysis.argument_size_in_bytes + analysis.output_size_in_bytes
                                           - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes)
  return {'step_seconds_rounds': list(times), 'compile_seconds': compiling, 'program_bytes': program,
          'peak_bytes': (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use'),
          'attention': {'asked': attention_of(lowered.as_text()), 'ran': attention_of(compiled.as_text())}}


def _theirs(case: Case, rows: int, dry: bool, rounds: int, compiles: bool) -> dict[str, Any]:
  if importlib.util.find_spec('torch') is None:
    raise Unavailable('PyTorch is not installed')
  torch: Any = importlib.import_module('torch')
  speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
  if not dry and speed.DEVICE != 'cuda':
    raise Unavailable('PyTorch and jax do not both have a GPU here')
  if compiles and dry:
    raise Unavailable('a dry run compiles nothing with PyTorch')
  if compiles and case.twin is _gpt2_decode_twin:
    raise Skipped('generate of transformers is not compiled here; it stands beside genjax as it is')
  torch.set_float32_matmul_precision('high')
  objective = case.make(dry, 'auto')
  shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0), {}).params['net'])
  begin = time.perf_counter()
  function = case.twin(shapes, torch.compile if compiles else lambda function: function, case.data(rows, dry), dry)
  function()
  first = time.perf_counter() - begin
  times = timing.rounds_of(function, rounds, 0.0 if dry else ROUND_SECONDS, lambda begun: None)
  peak = torch.cuda.max_memory_allocated() if speed.DEVICE == 'cuda' else None
  return {
    'step_seconds_rounds': list(times), 'compile_seconds': first if compiles else None, 'program_bytes': None,
    'peak_bytes': peak, 'attention': {'asked': 'scaled_dot_product_attention', 'ran': 'scaled_dot_product_attention'}
  }


def _weights(shapes: Any) -> Any:
  """Small random PyTorch tensors of these shapes on the device."""
  side: Any = importlib.import_module('genjax.experiments.benchmarks.torch_side')
  speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
  block = np.random.default_rng(0).normal(0.0, 0.02, WEIGHT_BLOCK).astype(np.float32)
  return side.on_device(speed.twins.convert(jax.tree.map(lambda leaf: np.resize(block, leaf.shape), shapes)))


def _gpt2_config(dry: bool, attention: str = 'auto') -> decoder.TransformerConfig:
  sizes: dict[str, Any] = dict(vocab=97, context=32, layers=2, heads=2, width=16) if dry else dict(
    vocab=50_257, context=1024, layers=12, heads=12, width=768)
  return decoder.TransformerConfig(**sizes, dtype=DTYPE, attention=attention)


def _new_tokens(dry: bool) -> int:
  return 4 if dry else 256


def _gpt2(dry: bool, attention: str) -> base.Objective:
  return timing.language_model(_gpt2_config(dry, attention), _new_tokens(dry))


def _gpt2_data(rows: int, dry: bool) -> dict[str, np.ndarray]:
  config = _gpt2_config(dry)
  return timing.random_tokens(config, rows, config.context)


def _gpt2_prompts(rows: int, dry: bool) -> dict[str, np.ndarray]:
  return {'prompt': _gpt2_data(rows, dry)['tokens'][:, :PROMPT]}


def _gpt2_train_twin(shapes: Any, compiled: Callable, batch: dict[str, np.ndarray], dry: bool) -> Callable[[], None]:
  speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
  return speed.torch_language_step(_weights(shapes), _gpt2_config(dry), speed.tensor(batch['tokens']).long(), compiled)


def _gpt2_decode_twin(shapes: Any, compiled: Callable, batch: dict[str, np.ndarray], dry: bool) -> Callable[[], None]:
  if importlib.util.find_spec('transformers') is None:
    raise Skipped('transformers, whose generate decodes beside genjax, is not installed')
  speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
  return speed.torch_decode(None, _gpt2_config(dry), batch['tokens'][:, :PROMPT], _new_tokens(dry))


def _dit_config(dry: bool, attention: str = 'auto') -> dit.DiT:
  if dry:
    return dit.DiT((8, 8, 4), patch=2, width=16, depth=2, heads=2, num_classes=10, dtype=DTYPE, attention=attention)
  size: dict[str, Any] = dict(dit.SIZES['XL'])
  return dit.DiT((32, 32, 4), patch=2, **size, num_classes=1000, dtype=DTYPE, attention=attention)


GUIDANCE = 1.5


def _steps(dry: bool) -> int:
  return 2 if dry else 20


def _dit(dry: bool, attention: str) -> base.Objective:
  config = _dit_config(dry, attention)
  return timing.flow_matching(dit.network(config), config.shape, config.num_classes, _steps(dry), GUIDANCE)


def _dit_data(rows: int, dry: bool) -> dict[str, np.ndarray]:
  config = _dit_config(dry)
  return timing.random_latents(config.shape, rows, config.num_classes)


def _dit_labels(rows: int, dry: bool) -> dict[str, np.ndarray]:
  return {'label': _dit_data(rows, dry)['label']}


def _dit_twin(steps: Callable[[bool], int]) -> Callable[..., Callable[[], None]]:
  """The PyTorch version of training, or with `steps` of sampling."""
  def make(shapes: Any, compiled: Callable, batch: dict[str, np.ndarray], dry: bool) -> Callable[[], None]:
    speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
    config = _dit_config(dry)
    side = config.shape[0] // config.patch
    positions = speed.tensor(speed.twins.sincos_positions(side, side, config.width))
    forward = lambda params, x, t, label: speed.twins.dit(params, config, x, t, label, positions)
    return speed.torch_denoising(_weights(shapes), forward, speed.tensor(batch['image']),
                                 speed.tensor(batch['label']).long(), compiled, steps(dry), DTYPE, GUIDANCE,
                                 config.num_classes)
  return make


def _unet_config(dry: bool, attention: str = 'auto') -> unet.UNet:
  if dry:
    return unet.UNet((8, 8, 3), base=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, dropout=0.0,
                     dtype=DTYPE, attention_kernel=attention)
  return unet.UNet((32, 32, 3), dropout=0.0, dtype=DTYPE, attention_kernel=attention)


def _unet(dry: bool, attention: str) -> base.Objective:
  config = _unet_config(dry, attention)
  return timing.flow_matching(unet.network(config), config.shape, 0, _steps(dry))


def _unet_data(rows: int, dry: bool) -> dict[str, np.ndarray]:
  return timing.random_latents(_unet_config(dry).shape, rows, 0)


def _unet_twin(shapes: Any, compiled: Callable, batch: dict[str, np.ndarray], dry: bool) -> Callable[[], None]:
  speed: Any = importlib.import_module('genjax.experiments.benchmarks.speed')
  config = _unet_config(dry)
  forward = lambda params, x, t, label: speed.twins.unet(params, config, x, t, label)
  return speed.torch_denoising(_weights(shapes), forward, speed.tensor(batch['image']), None, compiled, 0, DTYPE)


CASES = {
  'gpt2_train': Case('GPT-2, 124 M, context 1,024', 'tokens', lambda dry: _gpt2_config(dry).context, 32,
                     {'genjax': 35, 'torch': 15, 'torch_compile': 45}, _gpt2, _gpt2_data, _gpt2_train_twin),
  'dit_train': Case('DiT-XL/2, 675 M, latents 32 x 32 x 4', 'images', lambda dry: 1, 64,
                    {'genjax': 45, 'torch': 20, 'torch_compile': 60}, _dit, _dit_data, _dit_twin(lambda dry: 0)),
  'unet_train': Case('DDPM U-Net, 35.7 M, 32 px', 'images', lambda dry: 1, 128,
                     {'genjax': 60, 'torch': 15, 'torch_compile': 60}, _unet, _unet_data, _unet_twin),
  'gpt2_decode': Case('GPT-2, 124 M, prompt 16, 256 new tokens', 'tokens', _new_tokens, 1,
                      {'genjax': 30, 'torch': 25, 'torch_compile': 5}, _gpt2, _gpt2_data, _gpt2_decode_twin,
                      _gpt2_prompts),
  'gpt2_decode_8': Case('GPT-2, 124 M, prompt 16, 256 new tokens', 'tokens', _new_tokens, 8,
                        {'genjax': 30, 'torch': 25, 'torch_compile': 5}, _gpt2, _gpt2_data, _gpt2_decode_twin,
                        _gpt2_prompts),
  'dit_sample': Case('DiT-XL/2, 675 M, 20 steps of Euler, guidance 1.5', 'images', lambda dry: 1, 8,
                     {'genjax': 40, 'torch': 25, 'torch_compile': 50}, _dit, _dit_data, _dit_twin(_steps), _dit_labels),
}
