"""The LLaMA family (Touvron et al. 2023a, table 2; Llama 2: 2023b; Llama 3: Dubey et al. 2024, table 3). For accelerators.

    genjax plan --config=configs/llama.py:model=7B,context=8192,batch=128 --topology=v5p:4x4x8
    genjax plan --config=configs/llama.py:model=llama2-70B,context=8192,batch=512 --topology=v5p:8x8x16 --mesh=fsdp:256,tensor:4

Arguments: `model`, a key of `SIZES`; `context`, tokens in a sequence (0: as published); `batch`, sequences in a batch (0: four million
tokens); `tokens`, a .npy file of token numbers, whose last 100,000 are held out. Without it the tokens are random: enough to plan and to
measure speed, nothing to learn. The mesh spreads parameters over all devices.
"""

from configs import common

# layers, width, heads, key/value heads, hidden width, vocabulary, context, wavelength base of the positions, epsilon, learning rate
SIZES = {
  '7B': (32, 4096, 32, 32, 11008, 32_000, 2048, 1e4, 1e-6, 3e-4),
  '13B': (40, 5120, 40, 40, 13824, 32_000, 2048, 1e4, 1e-6, 3e-4),
  '33B': (60, 6656, 52, 52, 17920, 32_000, 2048, 1e4, 1e-6, 1.5e-4),
  '65B': (80, 8192, 64, 64, 22016, 32_000, 2048, 1e4, 1e-6, 1.5e-4),
  'llama2-70B': (80, 8192, 64, 8, 28672, 32_000, 4096, 1e4, 1e-5, 1.5e-4),
  'llama3-8B': (32, 4096, 32, 8, 14336, 128_256, 8192, 5e5, 1e-5, 3e-4),
  'llama3-70B': (80, 8192, 64, 8, 28672, 128_256, 8192, 5e5, 1e-5, 1.5e-4),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='7B', context=0, batch=0, tokens='', smoke=False)
  if arg.model not in SIZES:
    raise ValueError(f'config argument model must be one of {sorted(SIZES)}, got {arg.model!r}')
  layers, width, heads, kv_heads, mlp_width, vocabulary, context, theta, epsilon, rate = SIZES[arg.model]
  context = arg.context or context
  config = common.base(steps=250_000, batch_size=arg.batch or max(1, 2**22 // context))
  config.experiment = 'experiments.language'
  config.data = common.tokens(arg.tokens, vocabulary_size=vocabulary, context=context)
  config.model = dict(name='llama', layers=layers, heads=heads, kv_heads=kv_heads, width=width, mlp_width=mlp_width, rope_theta=theta,
                      norm_eps=epsilon, dropout=0.0, dtype='bfloat16', remat='full', unroll=False)
  config.sampler = dict(common.TOKENS, temperature=0.8, top_p=0.95)
  config.optimizers.net = dict(name='adamw', lr=rate, b2=0.95, weight_decay=0.1, clip=1.0, warmup=2000, schedule='cosine', end=0.1)
  config.mesh.update(data=1, fsdp=-1)
  config.evaluate_every = 5000
  config.sample_every = 5000
  config.sample_num = 4
  config.checkpoint.every = 2000
  if arg.smoke:
    config = common.smoke(config)
    common.smoke_tokens(config)
    config.model.update(kv_heads=1, mlp_width=32)
  return config
