"""Speed compared with PyTorch: train step and sampling of every family and of the same architecture in torch.

    pip install -e '.[parity]'
    python -m genjax.experiments.benchmarks.speed                      # all cases, medians of 7 alternating rounds
    python -m genjax.experiments.benchmarks.speed --cases=gpt_train,dit_train --rounds=15 --json=speed.json
    # language models of 14 M and 124 M parameters
    python -m genjax.experiments.benchmarks.speed --cases=gpt_decode,gpt_decode_8,gpt2_train,gpt2_decode,gpt2_decode_8

Both run in this process on the same device in float32, on all cores that the process may use (`taskset -c 0,1` pins
them); torch is eager unless --compile is given. A round of each is as many consecutive calls as fill a third of a
second; rounds alternate. Compilation is not timed. Rounds count once the process allocates no new memory (after eight
at most), because before that each library reallocates pages that the other has freed. The ratio is torch's median over
genjax's: above 1, genjax is faster.
"""

import argparse
from collections.abc import Callable, Sequence
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

from genjax.experiments.benchmarks import torch_biggan, torch_stylegan2
from genjax.experiments.benchmarks import torch_twins as twins
from genjax.experiments.benchmarks.timing import (
  Trained,
  flow_matching,
  language_model,
  random_latents,
  random_tokens,
  seconds_of,
)
from genjax.experiments.benchmarks.torch_side import (
  DEVICE,
  Case,
  no_grad,
  precision,
  tensor,
  torch_step,
  twin,
)
from genjax.models.adversarial import dcgan
from genjax.models.autoencoders import vae
from genjax.models.denoisers import dit, unet
from genjax.models.transformers import decoder
from genjax.objectives.gan import Gan
from genjax.objectives.vae import Vae
from genjax.runs import outputs
from genjax.training.monitoring import allocator
from genjax.types import expanded, strict_json

ROUND_SECONDS = 0.33
MAX_WARMUP_ROUNDS = 8  # rounds before those that count
MAX_SETTLED_PAGES = 1_000  # new pages of a round up to which memory counts as settled


def main(argv: Sequence[str]) -> None:
  """Runs the cases and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cases', default=','.join(CASES), help=f'of {", ".join(CASES)}')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--compile', action='store_true', help='torch.compile the twins')
  parser.add_argument('--peak', type=float, default=0.0,
                      help='TFLOP/s of the device at the precision used: prints model FLOP utilisation')
  parser.add_argument('--json', type=expanded, help='write the figures here too')
  args = parser.parse_args(argv)
  unknown = set(args.cases.split(',')) - set(CASES)
  if unknown or args.rounds < 1:
    parser.error(f'--cases takes {", ".join(CASES)}, and --rounds at least 1; got {args.cases} and {args.rounds}')
  if args.json:
    outputs.file(str(args.json), '--json')
  allocator.keep_freed_memory()  # as in the commands of genjax; torch shares this memory
  threads = len(os.sched_getaffinity(0))
  torch.set_num_threads(threads)
  rows = {}
  print(f'{machine()}, {threads} threads, jax {jax.__version__}, torch {torch.__version__}, '
        f'{"torch.compile" if args.compile else "eager"}, medians of {args.rounds} alternating rounds\n')
  print(f'{"case":<17}{"genjax ms":>11}{"torch ms":>11}{"ratio":>8}   throughput of genjax; setting')
  for name in args.cases.split(','):
    rows[name] = measure(CASES[name](torch.compile if args.compile else lambda function: function), args.rounds)
    row = rows[name]
    share = f', {row["flops_per_second"] / args.peak / 1e10:.1f} % of peak' if args.peak else ''
    speed = f'{row["units_per_second"]:.4g} {row["unit"]}/s, {row["flops_per_second"] / 1e9:.4g} GFLOP/s{share}'
    print(
      f'{name:<17}{row["genjax_ms"]:>11.1f}{row["torch_ms"]:>11.1f}{row["ratio"]:>8.2f}   {speed}; {row["setting"]}',
      flush=True)
  if args.json:
    args.json.write_text(
      strict_json({'machine': machine(), 'threads': threads, 'rounds': args.rounds, 'cases': rows}, indent=1) + '\n')


def measure(case: Case, rounds: int) -> dict[str, Any]:
  """Milliseconds per call of both in alternating rounds, and derived numbers."""
  times: tuple[list[float], list[float]] = ([], [])
  case.ours()
  calls = max(1, round(ROUND_SECONDS / seconds_of(case.ours, 1)))

  def both() -> None:
    for function, taken in zip((case.ours, case.theirs), times):
      taken.append(seconds_of(function, calls))
      time.sleep(0.05)  # lets the threads of one library go to sleep before the other begins

  for _ in range(MAX_WARMUP_ROUNDS):
    pages = _pages()
    both()
    if _pages() - pages < MAX_SETTLED_PAGES:
      break
  for taken in times:
    taken.clear()
  for _ in range(rounds):
    both()
  ours, theirs = (statistics.median(taken) for taken in times)
  return {
    'genjax_ms': 1e3 * ours, 'torch_ms': 1e3 * theirs, 'ratio': theirs / ours, 'genjax_rounds': times[0],
    'torch_rounds': times[1], 'units_per_second': case.units[0] / ours, 'unit': case.units[1],
    'flops_per_second': case.flops / ours, 'setting': case.setting
  }


def _pages() -> int:
  """Number of memory pages that this process has allocated."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def machine() -> str:
  """The name of the device."""
  if DEVICE == 'cuda':
    return torch.cuda.get_device_name()
  facts = pathlib.Path('/proc/cpuinfo')
  names = [line.partition(':')[2].strip() for line in facts.read_text().splitlines() if 'model name' in line
          ] if facts.exists() else []
  return names[0] if names else platform.processor() or platform.machine()


# Config, rows and tokens of a batch for training, setting.
LANGUAGE = {
  'gpt': (decoder.TransformerConfig(vocab=8192, context=256, layers=6, heads=6, width=384, unroll=True), 8, 256,
          '6 layers, width 384, context 256, vocabulary 8,192, batch 8'),
  'gpt2': (decoder.TransformerConfig(vocab=50257, context=1024, layers=12, heads=12, width=768, unroll=True), 2, 512,
           'GPT-2 small, 124.4 M, 512 tokens, batch 2'),
}


def _gpt(size: str, length: int = 128) -> tuple[decoder.TransformerConfig, Trained]:
  config, rows, context, _ = LANGUAGE[size]
  return config, Trained(language_model(config, length), random_tokens(config, rows, context))


def gpt_train(compiled: Callable, size: str) -> Case:
  """Language model."""
  config, run = _gpt(size)
  tokens = tensor(np.asarray(run.batch['tokens'])).long()
  theirs = torch_language_step(twin(run, 'net'), config, tokens, compiled)
  return Case(run.step, theirs, LANGUAGE[size][3], (tokens[:, 1:].numel(), 'tokens'), run.flops)


def torch_language_step(params: Any, config: decoder.TransformerConfig, tokens: torch.Tensor,
                        compiled: Callable) -> Callable[[], None]:
  """A train step of a language model on tokens B T+1."""
  logits = compiled(lambda: twins.gpt(params, config, tokens[:, :-1]))

  def loss() -> torch.Tensor:
    with precision(config.dtype):
      return F.cross_entropy(logits().flatten(0, 1), tokens[:, 1:].flatten())

  return torch_step(loss, params)


def gpt_decode(compiled: Callable, size: str, rows: int = 1, length: int = 128) -> Case:
  """Greedy decoding with a cache, beside `generate` of transformers."""
  config, run = _gpt(size, length)
  weights = twins.gpt2_weights(jax.device_get(run.state.params['net']))
  prompt = np.random.default_rng(1).integers(0, config.vocab, (rows, 16)).astype(np.int32)
  conditions, theirs = {'prompt': jnp.asarray(prompt)}, torch_decode(weights, config, prompt, length)
  return Case(lambda: run.sample(rows, conditions), theirs,
              f'the same model, batch {rows}, prompt 16, {length} new tokens', (rows * length, 'tokens'),
              run.sample_flops(rows, conditions))


def torch_decode(weights: dict[str, torch.Tensor] | None, config: decoder.TransformerConfig, prompt: np.ndarray,
                 length: int) -> Callable[[], None]:
  """Greedy continuations by `generate` of transformers; without weights, of a newly initialized model."""
  from transformers import GPT2Config, GPT2LMHeadModel
  model: Any = GPT2LMHeadModel(
    GPT2Config(vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
               n_head=config.heads, bos_token_id=0, eos_token_id=None)).eval()
  if weights:
    model.load_state_dict(weights, strict=False)
  model.to(DEVICE, getattr(torch, config.dtype))
  ids = torch.tensor(prompt, device=DEVICE).long()
  return no_grad(lambda: model.generate(ids, max_new_tokens=length, do_sample=False, attention_mask=torch.ones_like(
    ids), pad_token_id=0))


def _diffusion(net: Any, shape: tuple[int, int, int], batch: int, classes: int, steps: int) -> Trained:
  return Trained(flow_matching(net, shape, classes, steps), random_latents(shape, batch, classes))


def _denoising(run: Trained, forward: Callable, compiled: Callable, steps: int, setting: str, train: bool) -> Case:
  """Flow matching of a denoiser, or Euler's method with it; `forward` is (parameters, x, time, label)."""
  x0 = tensor(np.asarray(run.batch['image']))
  label = tensor(np.asarray(run.batch['label'])).long() if 'label' in run.batch else None
  theirs = torch_denoising(twin(run, 'net'), forward, x0, label, compiled, 0 if train else steps)
  size = len(x0)
  if train:
    return Case(run.step, theirs, setting, (size, 'images'), run.flops)
  conditions = {'label': run.batch['label']} if 'label' in run.batch else {}
  return Case(lambda: run.sample(size, conditions), theirs, setting, (size, 'images'),
              run.sample_flops(size, conditions))


def torch_denoising(params: Any, forward: Callable, x0: torch.Tensor, label: torch.Tensor | None, compiled: Callable,
                    steps: int = 0, dtype: str = 'float32', guidance: float = 1.0,
                    classes: int = 0) -> Callable[[], None]:
  """A train step of flow matching, or with `steps` the sampling by as many steps of Euler's method.

  Args:
    params: leaf tensors.
    forward: (parameters, x, time, label) -> velocity.
    x0, label: a batch.
    compiled: what makes a function faster, such as torch.compile.
    steps: of sampling, 0 for a train step.
    dtype: compute type.
    guidance: see `genjax.diffusion.guidance.guided`; the label `classes` stands for none.
  """
  size = len(x0)
  net = compiled(lambda x, t, label: forward(params, x, t, label))
  if not steps:
    def loss() -> torch.Tensor:
      noise, t = torch.randn_like(x0), torch.rand(size, device=DEVICE)
      mix = t[:, None, None, None]
      with precision(dtype):
        return F.mse_loss(net((1 - mix) * x0 + mix * noise, 1000 * t, label), noise - x0)
    return torch_step(loss, params)
  if guidance != 1.0:
    label = None if label is None else torch.cat([label, torch.full_like(label, classes)])

  def sample() -> torch.Tensor:
    x = torch.randn_like(x0)
    for index in range(steps):
      t = torch.full((size,), 1000 * (1 - index / steps), device=DEVICE)
      with precision(dtype):
        velocity = net(x, t, label) if guidance == 1.0 else _guided(net(torch.cat([x, x]), torch.cat([t, t]), label),
                                                                    guidance)
      x = x - velocity.to(x.dtype) / steps
    return x

  return no_grad(sample)


def _guided(both: torch.Tensor, guidance: float) -> torch.Tensor:
  conditional, null = both.chunk(2)
  return null + guidance * (conditional - null)


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
  config, rows = vae.ConvConfig((28, 28, 1)), 128
  encoder, decoder = vae.networks(config)
  x = (np.random.default_rng(0).random((rows, *config.shape)) < 0.3).astype(np.uint8) * 255
  run = Trained(Vae(encoder, decoder, config.latent), {'image': x})
  params, x0 = twin(run, 'net', transposed=('decoder',)), tensor(x.astype(np.float32) / 255)
  encode = compiled(lambda: twins.encoder(params['encoder'], x0))
  decode = compiled(lambda z: twins.decoder(params['decoder'], z, 7))

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
  config, rows = dcgan.Dcgan(size=64, discriminator_norm='none'), 16
  x = np.random.default_rng(0).integers(0, 256, (rows, 64, 64, 3)).astype(np.uint8)
  run = Trained(Gan(config.generator(), config.discriminator(), config.latent), {'image': x})
  g, d = twin(run, 'generator', transposed=('stages',)), twin(run, 'discriminator')
  real = tensor(x.astype(np.float32) / 127.5 - 1)
  generate = compiled(lambda z: twins.generator(g, config, z))
  judge = compiled(lambda x: twins.discriminator(d, config, x))
  latent = lambda: torch.randn(rows, config.latent, device=DEVICE)

  def discriminator_loss() -> torch.Tensor:
    with torch.no_grad():
      fake = generate(latent())
    return F.softplus(-judge(real)).mean() + F.softplus(judge(fake)).mean()

  setting = f'DCGAN, 64 px, width 64, batch {rows}'
  if train:
    halves = torch_step(discriminator_loss, d), torch_step(lambda: F.softplus(-judge(generate(latent()))).mean(), g)
    return Case(run.step, lambda: [half() for half in halves], setting, (rows, 'images'), run.flops)
  return Case(lambda: run.sample(rows, {}), no_grad(lambda: generate(latent())), setting, (rows, 'images'),
              run.sample_flops(rows, {}))


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
  'biggan_sample': torch_biggan.sampling,
  'stylegan2_sample': torch_stylegan2.sampling,
}


if __name__ == '__main__':
  main(sys.argv[1:])
