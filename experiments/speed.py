"""Speed beside PyTorch: the train step and the sampling of every family, and the same architecture in torch, alternating.

    pip install -e '.[parity]'
    python -m experiments.speed                      # all cases, medians of 7 alternating rounds
    python -m experiments.speed --cases=gpt_train,dit_train --rounds=15 --json=speed.json
    python -m experiments.speed --cases=gpt_decode,gpt_decode_8,gpt2_train,gpt2_decode,gpt2_decode_8  # language models of 14 M and 124 M

Both run in this process, on the same device, in float32, on all cores that the process may use (`taskset -c 0,1` pins them), eager
torch unless --compile. A round of each is as many calls, one after the other as a loop makes them, as fill a third of a second.
Compilation is not timed, and rounds count from the first in which the process takes no new memory on (after eight at most): until then
each of the two takes, page by page, what the other has given back. The ratio is torch's median over genjax's: above 1, genjax is faster.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import functools
import os
import pathlib
import platform
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from experiments import torch_twins as twins
from genjax.cli import outputs
from genjax.diffusion import samplers, schedules
from genjax.diffusion.parameterizations import PARAMETERIZATIONS
from genjax.models import autoencoder, dit, gan, transformer, unet
from genjax.objectives import base
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.diffusion import Codec, Diffusion, Sampler
from genjax.objectives.gan import Gan
from genjax.objectives.language import LanguageModel
from genjax.objectives.vae import Vae
from genjax.training import allocator, flops, optimizers, state, step
from genjax.types import expanded, strict_json

ROUND_SECONDS = 0.33
UNCOUNTED_ROUNDS = 8  # at most, before those that count
SETTLED = 1_000  # pages that a process may take in a round and be said to take none
DEVICE = 'cuda' if torch.cuda.is_available() and jax.default_backend() == 'gpu' else 'cpu'


@dataclasses.dataclass(frozen=True)
class Case:
  """Two functions that do the same work and wait for its end.

  setting: sizes, for the reader. units: what is counted ('tokens', 'images') and how many one call makes. flops: analytic, of
  one call of ours; 0 where not counted.
  """

  ours: Callable[[], Any]
  theirs: Callable[[], Any]
  setting: str
  units: tuple[int, str]
  flops: int = 0


def main(argv: Sequence[str]) -> None:
  """Runs the cases and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cases', default=','.join(CASES), help=f'of {", ".join(CASES)}')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--compile', action='store_true', help='torch.compile the twins')
  parser.add_argument('--peak', type=float, default=0.0, help='TFLOP/s of the device at the precision used: prints model FLOP utilisation')
  parser.add_argument('--json', type=expanded, help='write the figures here too')
  args = parser.parse_args(argv)
  unknown = set(args.cases.split(',')) - set(CASES)
  if unknown or args.rounds < 1:
    parser.error(f'--cases takes {", ".join(CASES)}, and --rounds at least 1; got {args.cases} and {args.rounds}')
  if args.json:
    outputs.file(str(args.json), '--json')
  allocator.keep_freed_memory()  # as the commands of genjax do; torch has the same memory in this process
  threads = len(os.sched_getaffinity(0))
  torch.set_num_threads(threads)
  rows = {}
  print(f'{machine()}, {threads} threads, jax {jax.__version__}, torch {torch.__version__}, '
        f'{"torch.compile" if args.compile else "eager"}, medians of {args.rounds} alternating rounds\n')
  print(f'{"case":<14}{"genjax ms":>11}{"torch ms":>11}{"ratio":>8}   throughput of genjax; setting')
  for name in args.cases.split(','):
    rows[name] = measure(CASES[name](torch.compile if args.compile else lambda function: function), args.rounds)
    row = rows[name]
    share = f', {row["flops_per_second"] / args.peak / 1e10:.1f} % of peak' if args.peak else ''
    speed = f'{row["units_per_second"]:.4g} {row["unit"]}/s, {row["flops_per_second"] / 1e9:.4g} GFLOP/s{share}'
    print(f'{name:<14}{row["genjax_ms"]:>11.1f}{row["torch_ms"]:>11.1f}{row["ratio"]:>8.2f}   {speed}; {row["setting"]}', flush=True)
  if args.json:
    args.json.write_text(strict_json({'machine': machine(), 'threads': threads, 'rounds': args.rounds, 'cases': rows}, indent=1) + '\n')


def measure(case: Case, rounds: int) -> dict[str, Any]:
  """Milliseconds of a call of both, rounds of each in turn, and what follows from them."""
  times: tuple[list[float], list[float]] = ([], [])
  case.ours()
  calls = max(1, round(ROUND_SECONDS / _seconds(case.ours, 1)))

  def both() -> None:
    for function, taken in zip((case.ours, case.theirs), times):
      taken.append(_seconds(function, calls))
      time.sleep(0.05)  # lets the threads of the one go to sleep before the other begins

  for _ in range(UNCOUNTED_ROUNDS):
    pages = _pages()
    both()
    if _pages() - pages < SETTLED:
      break
  for taken in times:
    taken.clear()
  for _ in range(rounds):
    both()
  ours, theirs = (statistics.median(taken) for taken in times)
  return {'genjax_ms': 1e3 * ours, 'torch_ms': 1e3 * theirs, 'ratio': theirs / ours, 'genjax_rounds': times[0], 'torch_rounds': times[1],
          'units_per_second': case.units[0] / ours, 'unit': case.units[1], 'flops_per_second': case.flops / ours, 'setting': case.setting}


def _seconds(function: Callable[[], Any], calls: int) -> float:
  begin = time.perf_counter()
  for _ in range(calls):
    function()
  return (time.perf_counter() - begin) / calls


def _pages() -> int:
  """Pages of memory that this process has taken."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def machine() -> str:
  """The device by name."""
  if DEVICE == 'cuda':
    return torch.cuda.get_device_name()
  facts = pathlib.Path('/proc/cpuinfo')
  names = [line.partition(':')[2].strip() for line in facts.read_text().splitlines() if 'model name' in line] if facts.exists() else []
  return names[0] if names else platform.processor() or platform.machine()


class Trained:
  """An objective with its state and its jitted step, as the loop has them."""

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
    """One train step."""
    self.state, metrics = self._step(self.state, {}, self.batch, self.due)
    jax.block_until_ready((self.state, metrics))

  def sample(self, rows: int, conditions: dict[str, Any]) -> None:
    """`rows` samples."""
    keys = jax.random.split(jax.random.key(1), rows)
    jax.block_until_ready(self._sample(self.state.params, self.state.context({}), keys, conditions))

  def sample_flops(self, rows: int, conditions: dict[str, Any]) -> int:
    keys = jax.random.split(jax.random.key(1), rows)
    return flops.count(self.objective.sample, self.state.params, self.state.context({}), keys, conditions)

  def twin(self, group: str, transposed: Sequence[str] = ()) -> Any:
    """Parameters of a group for `torch_twins`."""
    tree = twins.convert(jax.device_get(self.state.params[group]), transposed)
    return tree if DEVICE == 'cpu' else _to_device(tree)


def _to_device(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {name: _to_device(value) for name, value in tree.items()}
  return [_to_device(value) for value in tree] if isinstance(tree, list) else tree.detach().to(DEVICE).requires_grad_()


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
  """For the end of what torch has begun."""
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def no_grad(function: Callable[[], Any]) -> Callable[[], None]:
  """`function` without gradients, to its end."""
  def run() -> None:
    with torch.inference_mode():
      function()
    wait()
  return run


# Config, rows and tokens of a batch for training, setting.
LANGUAGE = {
  'gpt': (transformer.TransformerConfig(vocab=8192, context=256, layers=6, heads=6, width=384, unroll=True), 8, 256,
          '6 layers, width 384, context 256, vocabulary 8,192, batch 8'),
  'gpt2': (transformer.TransformerConfig(vocab=50257, context=1024, layers=12, heads=12, width=768, unroll=True), 2, 512,
           'GPT-2 small, 124.4 M, 512 tokens, batch 2'),
}


def _gpt(size: str, length: int = 128) -> tuple[transformer.TransformerConfig, Trained]:
  config, rows, context, _ = LANGUAGE[size]
  tokens = np.random.default_rng(0).integers(0, config.vocab, (rows, context + 1)).astype(np.int32)
  objective = LanguageModel(transformer.transformer(config), functools.partial(transformer.init_cache, config), config.context,
                            SamplerOptions(length=length, temperature=0.0), lay_out=functools.partial(transformer.lay_out, config))
  return config, Trained(objective, {'tokens': tokens})


def gpt_train(compiled: Callable, size: str) -> Case:
  """Language model."""
  config, run = _gpt(size)
  params, tokens = run.twin('net'), tensor(np.asarray(run.batch['tokens'])).long()
  logits = compiled(lambda: twins.gpt(params, config, tokens[:, :-1]))
  theirs = torch_step(lambda: F.cross_entropy(logits().flatten(0, 1), tokens[:, 1:].flatten()), params)
  return Case(run.step, theirs, LANGUAGE[size][3], (tokens[:, 1:].numel(), 'tokens'), run.flops)


def gpt_decode(compiled: Callable, size: str, rows: int = 1, length: int = 128) -> Case:
  """Greedy decoding with a cache, beside `generate` of transformers."""
  from transformers import GPT2Config, GPT2LMHeadModel
  config, run = _gpt(size, length)
  model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
                                     n_head=config.heads, bos_token_id=0, eos_token_id=None)).eval()
  model.to(DEVICE)
  model.load_state_dict(twins.gpt2_weights(jax.device_get(run.state.params['net'])), strict=False)
  prompt = np.random.default_rng(1).integers(0, config.vocab, (rows, 16)).astype(np.int32)
  conditions, ids = {'prompt': jnp.asarray(prompt)}, torch.tensor(prompt, device=DEVICE).long()
  generate = lambda: model.generate(ids, max_new_tokens=length, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0)
  return Case(lambda: run.sample(rows, conditions), no_grad(generate), f'the same model, batch {rows}, prompt 16, {length} new tokens',
              (rows * length, 'tokens'), run.sample_flops(rows, conditions))


def _diffusion(net: Any, shape: tuple[int, int, int], batch: int, classes: int, steps: int) -> Trained:
  process = schedules.PROCESSES['flow']()
  sampler = Sampler(samplers.euler, tuple(schedules.sampling_times(process, steps, None).tolist()))
  codec = Codec(lambda frozen, x: x, lambda frozen, x: x)
  objective = Diffusion(net, shape, process, PARAMETERIZATIONS['velocity'](), sampler, num_classes=classes, label_dropout=0.0, codec=codec)
  rng = np.random.default_rng(0)
  columns: dict[str, np.ndarray] = {'image': rng.normal(size=(batch, *shape)).astype(np.float32)}
  if classes:
    columns['label'] = rng.integers(0, classes, batch).astype(np.int32)
  return Trained(objective, columns)


def _denoising(run: Trained, forward: Callable, compiled: Callable, steps: int, setting: str, train: bool) -> Case:
  """Flow matching of a denoiser, or Euler's method with it; `forward` is (parameters, x, time, label)."""
  params, x0 = run.twin('net'), tensor(np.asarray(run.batch['image']))
  label = tensor(np.asarray(run.batch['label'])).long() if 'label' in run.batch else None
  size = len(x0)
  net = compiled(lambda x, t: forward(params, x, t, label))
  if train:
    def loss() -> torch.Tensor:
      noise, t = torch.randn_like(x0), torch.rand(size, device=DEVICE)
      mix = t[:, None, None, None]
      return F.mse_loss(net((1 - mix) * x0 + mix * noise, 1000 * t), noise - x0)
    return Case(run.step, torch_step(loss, params), setting, (size, 'images'), run.flops)

  def sample() -> torch.Tensor:
    x = torch.randn_like(x0)
    for index in range(steps):
      x = x - net(x, torch.full((size,), 1000 * (1 - index / steps), device=DEVICE)) / steps
    return x
  conditions = {'label': run.batch['label']} if 'label' in run.batch else {}
  return Case(lambda: run.sample(size, conditions), no_grad(sample), setting, (size, 'images'), run.sample_flops(size, conditions))


def dit_case(compiled: Callable, train: bool, steps: int = 10) -> Case:
  """Diffusion transformer."""
  config = dit.DiT((32, 32, 4), patch=4, width=384, depth=12, heads=6, num_classes=1000, unroll=True)
  run = _diffusion(dit.network(config), config.shape, 8, config.num_classes, steps)
  setting = 'DiT-S/4, 32 x 32 x 4, batch 8' + ('' if train else f', {steps} steps')
  return _denoising(run, lambda p, x, t, y: twins.dit(p, config, x, t, y), compiled, steps, setting, train)


def unet_case(compiled: Callable, train: bool, steps: int = 4) -> Case:
  """The U-Net of DDPM."""
  config = unet.UNet((32, 32, 3), dropout=0.0)
  run = _diffusion(unet.network(config), config.shape, 4, 0, steps)
  setting = 'DDPM U-Net, 35.7 M, 32 px, batch 4' + ('' if train else f', {steps} steps')
  return _denoising(run, lambda p, x, t, y: twins.unet(p, config, x, t, y), compiled, steps, setting, train)


def vae_case(compiled: Callable, train: bool) -> Case:
  """Convolutional VAE."""
  config, rows = autoencoder.ConvConfig((28, 28, 1)), 128
  encoder, decoder = autoencoder.networks(config)
  x = (np.random.default_rng(0).random((rows, *config.shape)) < 0.3).astype(np.uint8) * 255
  run = Trained(Vae(encoder, decoder, config.latent), {'image': x})
  params, x0 = run.twin('net', transposed=('decoder',)), tensor(x.astype(np.float32) / 255)
  encode, decode = compiled(lambda: twins.encoder(params['encoder'], x0)), compiled(lambda z: twins.decoder(params['decoder'], z, 7))

  def loss() -> torch.Tensor:
    mean, log_variance = encode()
    logits = decode(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
    kl = 0.5 * (mean ** 2 + log_variance.exp() - 1 - log_variance).sum()
    return (F.binary_cross_entropy_with_logits(logits, x0, reduction='sum') + kl) / rows

  setting = f'convolutional, 28 px, channels 32 and 64, batch {rows}'
  if train:
    return Case(run.step, torch_step(loss, params), setting, (rows, 'images'), run.flops)
  theirs = no_grad(lambda: decode(torch.randn(rows, config.latent, device=DEVICE)).sigmoid())
  return Case(lambda: run.sample(rows, {}), theirs, setting, (rows, 'images'), run.sample_flops(rows, {}))


def gan_case(compiled: Callable, train: bool) -> Case:
  """DCGAN: one discriminator and one generator update."""
  config, rows = gan.Dcgan(size=64, discriminator_norm='none'), 16
  x = np.random.default_rng(0).integers(0, 256, (rows, 64, 64, 3)).astype(np.uint8)
  run = Trained(Gan(config.generator(), config.discriminator(), config.latent), {'image': x})
  g, d, real = run.twin('generator', transposed=('stages',)), run.twin('discriminator'), tensor(x.astype(np.float32) / 127.5 - 1)
  generate, judge = compiled(lambda z: twins.generator(g, config, z)), compiled(lambda x: twins.discriminator(d, config, x))
  latent = lambda: torch.randn(rows, config.latent, device=DEVICE)

  def discriminator_loss() -> torch.Tensor:
    with torch.no_grad():
      fake = generate(latent())
    return F.softplus(-judge(real)).mean() + F.softplus(judge(fake)).mean()

  setting = f'DCGAN, 64 px, width 64, batch {rows}'
  if train:
    halves = torch_step(discriminator_loss, d), torch_step(lambda: F.softplus(-judge(generate(latent()))).mean(), g)
    return Case(run.step, lambda: [half() for half in halves], setting, (rows, 'images'), run.flops)
  return Case(lambda: run.sample(rows, {}), no_grad(lambda: generate(latent())), setting, (rows, 'images'), run.sample_flops(rows, {}))


CASES: dict[str, Callable[[Callable], Case]] = {
  'gpt_train': functools.partial(gpt_train, size='gpt'),
  'gpt_decode': functools.partial(gpt_decode, size='gpt'),
  'gpt_decode_8': functools.partial(gpt_decode, size='gpt', rows=8),
  'gpt2_train': functools.partial(gpt_train, size='gpt2'),
  'gpt2_decode': functools.partial(gpt_decode, size='gpt2'),
  'gpt2_decode_8': functools.partial(gpt_decode, size='gpt2', rows=8),
  'dit_train': functools.partial(dit_case, train=True),
  'dit_sample': functools.partial(dit_case, train=False),
  'unet_train': functools.partial(unet_case, train=True),
  'unet_sample': functools.partial(unet_case, train=False),
  'vae_train': functools.partial(vae_case, train=True),
  'vae_sample': functools.partial(vae_case, train=False),
  'gan_train': functools.partial(gan_case, train=True),
  'gan_sample': functools.partial(gan_case, train=False),
}


if __name__ == '__main__':
  main(sys.argv[1:])
