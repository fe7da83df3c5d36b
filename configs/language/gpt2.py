"""The GPT-2 family (Radford et al. 2019, table 2).

    genjax train --config=configs/language/gpt2.py:model=124M,tokens=corpus.npy --workdir=runs/gpt2
    genjax inspect --config=configs/language/gpt2.py:model=1.5B

Arguments: `model`, a key of `SIZES`, the number of parameters in the published files (the paper counts 117M for the
first); `batch`, sequences in a batch; `context`, tokens in a sequence; `tokens`, a .npy file of token numbers below
50,257, whose last 100,000 are held out. Without it the tokens are random, for plans and benchmarks. The paper has
batches of 512 sequences and gives no learning rates; those here are GPT-3's for models of these sizes. The mesh shards
parameters over all devices.
"""

from genjax.configs import common

# layers, width, heads, learning rate
SIZES = {
  '124M': (12, 768, 12, 6e-4),
  '355M': (24, 1024, 16, 3e-4),
  '774M': (36, 1280, 20, 2.5e-4),
  '1.5B': (48, 1600, 25, 2e-4),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='124M', batch=512, context=1024, tokens='', smoke=False)
  layers, width, heads, rate = common.size(SIZES, arg.model)
  return common.gpt(arg, steps=600_000, batch_size=arg.batch, rate=rate, layers=layers, heads=heads, width=width)
