"""The LLaMA family and models of the same architecture. For accelerators.

Sources: Touvron et al. 2023a, table 2; Llama 2: Touvron et al. 2023b; Llama 3: Llama Team 2024, table 3.

    genjax plan --config=configs/language/llama.py:model=7B,context=8192,batch=128 --topology=v5p:4x4x8
    genjax plan --config=configs/language/llama.py:model=llama2-70B,context=8192,batch=512 --topology=v5p:8x8x16 \\
        --mesh=fsdp:256,tensor:4

Arguments: `model`, a key of `SIZES`; `context`, tokens in a sequence (0: as published); `batch`, sequences in a batch
(0: four million tokens); `tokens`, a .npy file of token numbers, whose last 100,000 are held out. Without it the tokens
are random, for plans and benchmarks. The mesh shards parameters over all devices.

Contexts of Llama 3 are those before the extension to 131,072 tokens. If no learning rate is published (Llama 3.2,
Mistral), that of Llama 3 8B is used.
"""

from genjax.configs import common

# layers, width, heads, key/value heads, hidden width, vocabulary, context, wavelength base of the positions, epsilon,
# learning rate
SIZES = {
  '7B': (32, 4096, 32, 32, 11008, 32_000, 2048, 1e4, 1e-6, 3e-4),
  '13B': (40, 5120, 40, 40, 13824, 32_000, 2048, 1e4, 1e-6, 3e-4),
  '33B': (60, 6656, 52, 52, 17920, 32_000, 2048, 1e4, 1e-6, 1.5e-4),
  '65B': (80, 8192, 64, 64, 22016, 32_000, 2048, 1e4, 1e-6, 1.5e-4),
  'llama2-7B': (32, 4096, 32, 32, 11008, 32_000, 4096, 1e4, 1e-5, 3e-4),
  'llama2-13B': (40, 5120, 40, 40, 13824, 32_000, 4096, 1e4, 1e-5, 3e-4),
  'llama2-70B': (80, 8192, 64, 8, 28672, 32_000, 4096, 1e4, 1e-5, 1.5e-4),
  'llama3-8B': (32, 4096, 32, 8, 14336, 128_256, 8192, 5e5, 1e-5, 3e-4),
  'llama3-70B': (80, 8192, 64, 8, 28672, 128_256, 8192, 5e5, 1e-5, 1.5e-4),
  'llama3-405B': (126, 16384, 128, 8, 53248, 128_256, 8192, 5e5, 1e-5, 8e-5),
  'llama3.2-1B': (16, 2048, 32, 8, 8192, 128_256, 8192, 5e5, 1e-5, 3e-4),
  'llama3.2-3B': (28, 3072, 24, 8, 8192, 128_256, 8192, 5e5, 1e-5, 3e-4),
  'tinyllama-1.1B': (22, 2048, 32, 4, 5632, 32_000, 2048, 1e4, 1e-5, 4e-4),  # Zhang et al. 2024
  'mistral-7B': (32, 4096, 32, 8, 14336, 32_000, 8192, 1e4, 1e-5, 3e-4),  # Jiang et al. 2023
}
OPTIONS = {'llama3.2-1B': dict(tied=True), 'llama3.2-3B': dict(tied=True), 'mistral-7B': dict(window=4096)}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='7B', context=0, batch=0, tokens='', smoke=False)
  layers, width, heads, kv_heads, mlp_width, vocabulary, context, theta, epsilon, rate = common.size(SIZES, arg.model)
  context = arg.context or context
  model = dict(name='llama', layers=layers, heads=heads, kv_heads=kv_heads, width=width, mlp_width=mlp_width,
               rope_theta=theta, norm_eps=epsilon, **OPTIONS.get(arg.model, {}))
  config = common.decoder(arg.tokens, steps=250_000, batch_size=arg.batch or max(1, 2**22 // context),
                          vocabulary_size=vocabulary, context=context, rate=rate, model=model)
  if arg.smoke:
    config = common.smoke(config)
    common.smoke_tokens(config)
    config.model.update(kv_heads=1, mlp_width=32)
  return config
