"""The GPT-3 family (Brown et al. 2020, table 2.1). For accelerators.

    genjax plan --config=configs/language/gpt3.py:model=175B --topology=v5p:8x8x16
    genjax train --config=configs/language/gpt3.py:model=125M,tokens=corpus.npy --workdir=runs/gpt3_125m

Arguments: `model`, a size of the table; `batch`, sequences in a batch; `context`, tokens in a sequence; `tokens`, a
.npy file of token numbers below 50,257 (GPT-2's vocabulary), whose last 100,000 are held out. Without it the tokens are
random, for plans and benchmarks. In the paper every other layer has sparse attention; here all layers are dense, with
the same parameters. Learning rate and batch in tokens are the paper's. The mesh shards parameters over all devices.
"""

from genjax.configs import common

# Layers, width, heads, learning rate, sequences of 2,048 tokens in a batch. The paper's heads of 128 channels do not
# give the width of 1.3B (24 heads) and 13B (40 heads). Published parameter counts need projections as wide as the
# model: 16 heads of 128 and 20 of 257.
SIZES = {
  '125M': (12, 768, 12, 6e-4, 256),
  '350M': (24, 1024, 16, 3e-4, 256),
  '760M': (24, 1536, 16, 2.5e-4, 256),
  '1.3B': (24, 2048, 16, 2e-4, 512),
  '2.7B': (32, 2560, 32, 1.6e-4, 512),
  '6.7B': (32, 4096, 32, 1.2e-4, 1024),
  '13B': (40, 5140, 20, 1e-4, 1024),
  '175B': (96, 12288, 96, 0.6e-4, 1536),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='175B', batch=0, context=2048, tokens='', smoke=False)
  layers, width, heads, rate, batch = common.size(SIZES, arg.model)
  return common.gpt(arg, steps=150_000, batch_size=arg.batch or batch, rate=rate, layers=layers, heads=heads,
                    width=width)
