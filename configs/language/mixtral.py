"""Mixtral 8x7B (Jiang et al. 2024, table 1): LLaMA blocks with eight experts, two per token. For accelerators.

    genjax plan --config=configs/language/mixtral.py --topology=v5p:8x8x8
    genjax inspect --config=configs/language/mixtral.py --mesh=fsdp:64,expert:8

Arguments: `context`, tokens in a sequence; `batch`, sequences in a batch; `tokens`, a .npy file of token numbers below
32,000, whose last 100,000 are held out. Without it the tokens are random, for plans and benchmarks. The mesh shards
parameters over all devices; its axis `expert` splits the experts, the heads and the vocabulary. The paper gives no
learning rate; this config uses that of Llama 3 8B. The weight of the load-balancing loss is that of the published
config.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, context=8192, batch=512, tokens='', smoke=False)
  model = dict(name='llama', layers=32, heads=32, kv_heads=8, width=4096, mlp_width=14336, rope_theta=1e6,
               norm_eps=1e-5, experts=8, experts_per_token=2, balance=0.02)
  config = common.decoder(arg.tokens, steps=250_000, batch_size=arg.batch, vocabulary_size=32_000, context=arg.context,
                          rate=3e-4, model=model)
  # Without this rule every device of the axis would compute all of attention.
  config.rules.heads = ('tensor', 'expert')
  config.rules.vocab = ('tensor', 'expert')
  if arg.smoke:
    config = common.smoke(config)
    common.smoke_tokens(config)
    config.model.update(heads=4, kv_heads=1, mlp_width=32, experts=4)
    config.data.vocabulary_size = 64
  return config
