"""Plans every pod-size config on its slice and writes the table of docs/plans.md.

    python -m genjax.experiments.benchmarks.plan_table [--only=llama] [--out=docs/plans.md]

Each plan is `genjax plan ... --json` in a separate process, which takes about a minute on two idle cores. `--only`
plans only rows whose name contains a text and keeps the others from the file.
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from genjax.planning.topology import GIB
from genjax.types import expanded

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent  # genjax/experiments is a link
BEGIN, END = '<!-- the table: python -m genjax.experiments.benchmarks.plan_table -->', '<!-- end of the table -->'
HEADER = (
  '| model | `genjax plan --config=configs/...` | parameters | mesh | peak of HBM per device | state per device | '
  'sent per step and device | step | MFU | fits |')


@dataclasses.dataclass(frozen=True)
class Row:
  """One plan: what the model is, and the arguments after `genjax plan --config=configs/`."""

  name: str
  arguments: str


ROWS = (Row('LLaMA 7B, 8,192 tokens', 'language/llama.py:model=7B,context=8192,batch=128 --topology=v5p:4x4x8'),
        Row('LLaMA 13B, 4,096 tokens', 'language/llama.py:model=13B,context=4096,batch=512 --topology=v5p:4x8x8'),
        Row('Llama 2 70B, 8,192 tokens',
            'language/llama.py:model=llama2-70B,context=8192,batch=512 --topology=v5p:8x8x16 --mesh=fsdp:256,tensor:4'),
        Row('Llama 3 8B, 8,192 tokens, v5p', 'language/llama.py:model=llama3-8B,batch=128 --topology=v5p:4x4x8'),
        Row('Llama 3 8B, 8,192 tokens', 'language/llama.py:model=llama3-8B,batch=256 --topology=v6e:16x16'),
        Row('Llama 3 70B, 8,192 tokens',
            'language/llama.py:model=llama3-70B,batch=512 --topology=v5p:8x8x16 --mesh=fsdp:256,tensor:4'),
        Row('Llama 3 405B, 8,192 tokens',
            'language/llama.py:model=llama3-405B,batch=512 --topology=v5p:8x16x16 --mesh=fsdp:256,tensor:8'),
        Row('Mixtral 8x7B, 8,192 tokens', 'language/mixtral.py --topology=v5p:4x8x8'),
        Row('GPT-3 175B',
            'language/gpt3.py:model=175B --config.microbatches=6 --topology=v5p:8x8x16 --mesh=fsdp:256,tensor:4'),
        Row('GPT-3 1.3B', 'language/gpt3.py:model=1.3B --topology=v5e:8x16 --config.microbatches=2'),
        Row('DiT-XL/2, 256 px', 'diffusion/dit_imagenet.py:model=XL,patch=2,pixels=256 --topology=v5e:4x4'),
        Row('DiT-XL/2, 512 px', 'diffusion/dit_imagenet.py:model=XL,patch=2,pixels=512 --topology=v5e:4x4'),
        Row('DDPM U-Net, 256 px', 'diffusion/ddpm_256.py --topology=v5e:4x4'),
        Row('Stable Diffusion 1.5, 512 px', 'diffusion/stable_diffusion.py:model=sd15 --topology=v5e:4x4'),
        Row('Stable Diffusion 1.5, 512 px, v5p', 'diffusion/stable_diffusion.py:model=sd15 --topology=v5p:2x2x4'),
        Row('Stable Diffusion XL, 1,024 px', 'diffusion/stable_diffusion.py:model=sdxl --topology=v5e:4x4'),
        Row('Stable Diffusion XL, 1,024 px, v5p', 'diffusion/stable_diffusion.py:model=sdxl --topology=v5p:2x2x4'),
        Row('PixArt, 1,024 px', 'diffusion/pixart.py:data=random_latents,size=1024 --topology=v5p:4x4x8'),
        Row('Stable Diffusion 3 medium, 1,024 px',
            'diffusion/sd3.py:model=medium,data=random_latents,size=1024 --topology=v5p:4x4x8'),
        Row('Flux dev, 1,024 px', 'diffusion/flux.py:model=dev,data=random_latents,size=1024 --topology=v5p:4x4x8'),
        Row('StyleGAN2, 256 px', 'gans/stylegan2.py:model=paper256,ada=False --topology=v5e:4x4'),
        Row('StyleGAN2, 1,024 px', 'gans/stylegan2.py:model=paper1024,ada=False --topology=v5e:4x4'),
        Row('BigGAN, 128 px', 'gans/biggan.py:model=128,dtype=bfloat16 --topology=v5e:4x4'),
       )


def main() -> int:
  """Writes the table; returns 0, or 1 if a plan failed for another reason than memory."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='', help='plan the rows whose name or arguments hold this text')
  parser.add_argument('--out', type=expanded, default=ROOT / 'docs' / 'plans.md')
  options = parser.parse_args()
  text = options.out.read_text()
  before, rest = text.split(BEGIN)
  old, after = rest.split(END)
  known = {line.split('|')[1].strip(): line for line in old.splitlines() if line.startswith('|')}
  failed = False
  for row in ROWS:
    if options.only.lower() not in f'{row.name} {row.arguments}'.lower():
      continue
    print(f'{row.name} ...', flush=True)
    try:
      known[row.name] = line(row, report(row))
    except subprocess.CalledProcessError as error:
      failed = True
      print(error.stderr, file=sys.stderr)
    # Written after each plan, so that an interruption loses little.
    rows = [known[row.name] for row in ROWS if row.name in known]
    table = '\n'.join([HEADER, '| ' + ' | '.join(['---'] * (HEADER.count('|') - 1)) + ' |', *rows])
    options.out.write_text(f'{before}{BEGIN}\n{table}\n{END}{after}')
  return int(failed)


def report(row: Row) -> dict[str, Any]:
  """The plan of a row.

  Raises:
    subprocess.CalledProcessError: the command failed, and not because a step does not fit.
  """
  command = [
    sys.executable, '-m', 'genjax.cli.main', 'plan', *shlex.split(f'--config={ROOT}/configs/{row.arguments}'), '--json'
  ]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  if done.returncode not in (0, 4):
    raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
  return json.loads(done.stdout)


def line(row: Row, plan: dict[str, Any]) -> str:
  """A row of the table in Markdown."""
  sizes, bound = plan['bytes_per_device'], plan['roofline']
  state = sum(sizes[name] for name in ('parameters', 'optimizer', 'averages', 'mutable', 'frozen'))
  sent = '; '.join(f'{kind} {traffic["bytes"] / GIB:.3g} GiB' for kind, traffic in sorted(
    (plan['collectives'] or {}).items(), key=lambda item: -item[1]['bytes']) if traffic['bytes'] >= 0.01 * GIB)
  cells = [
    row.name, f'`{row.arguments}`', f'{plan["parameters"]:,}', ', '.join(
      f'{axis} {size}' for axis, size in plan['mesh'].items()),
    f'{sizes["peak"] / GIB:.1f} of {sizes["limit"] / GIB:.2f} GiB', f'{state / GIB:.2f} GiB', sent or '-',
    f'{bound["overlapped"]:.2f} to {bound["serial"]:.2f} s' if bound else '-',
    f'{bound["mfu_serial"]:.0%} to {bound["mfu_overlapped"]:.0%} ({bound["bound"]})' if bound else '-',
    'yes' if plan['fits'] else f'no, {plan["shortfall"] / GIB:.1f} GiB too much'
  ]
  return '| ' + ' | '.join([*cells[:-1], f'{cells[-1]} ({plan["compiler"]})']) + ' |'


if __name__ == '__main__':
  sys.exit(main())
