"""The GPT-3 family (Brown et al. 2020, table 2.1). For accelerators.

    genjax plan --config=configs/language/gpt3.py:model=175B --topology=v5p:8x8x16
    genjax train --config=configs/language/gpt3.py:model=125M,tokens=corpus.npy --workdir=runs/gpt3_125m

Arguments: `model`, a size of the table; `batch`, sequences in a batch; `context`, tokens in a sequence; `tokens`, a
.npy file of token numbers below 50,257 (GPT-2's vocabulary), whose last 100,000 are held out. Without it the tokens are
random: enough to plan and to measure speed, nothing to learn. Layers alternate sparse attention in the paper; here all
of them are dense, which changes no parameter. Learning rate and batch in tokens are the paper's; the mesh spreads
parameters over all devices.
"""

from genjax.configs import common

# Layers, width, heads, learning rate, sequences of 2,048 tokens in a batch. The table's heads of 128 channels do not
# make up the width of 1.3B (24 of them) and 13B (40); published counts take projections as wide as the model, which 16
# of 128 and 20 of 257 give.
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
