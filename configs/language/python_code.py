"""A byte-level LLaMA on the source of Python's standard library. Nothing to download.

    genjax train --config=configs/language/python_code.py --workdir=runs/python
    genjax sample --workdir=runs/python --prompt='def __init__(self'

The loss is in nats per byte; evaluation also reports bits per byte.
"""

from genjax.configs import common

SIZES = {
  'S': dict(layers=4, heads=4, kv_heads=2, width=128, mlp_width=384),
  'M': dict(layers=6, heads=6, kv_heads=2, width=384, mlp_width=1024),
  'L': dict(layers=12, heads=12, kv_heads=4, width=768, mlp_width=2048),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='S', smoke=False)
  config = common.base(steps=3000, batch_size=16)
  config.experiment = 'genjax.experiments.language'
  config.data = dict(name='python_stdlib', train='train', heldout='validation', vocabulary='byte', context=128,
                     start='def ', data_dir='', originals='')
  config.model = dict(name='llama', dropout=0.0, dtype='float32', attention='auto', remat='none', unroll=True,
                      **SIZES[arg.model])
  config.sampler = dict(common.TOKENS, length=400, temperature=0.8, top_p=0.95)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.99, weight_decay=0.1, clip=1.0, warmup=100,
                               schedule='cosine', end=0.1)
  config.ema = dict(net=0.99)
  config.log_every = 100
  config.evaluate_every = 1000
  config.evaluate_batches = 50
  config.sample_every = 1000
  config.sample_num = 2
  if arg.smoke:
    config.data.train = 'validation[:3]'
    config.data.heldout = 'test[:3]'
    config.data.context = 16
    config.model.update(layers=2, heads=2, kv_heads=1, width=16, mlp_width=32)
    config.sampler.length = 20
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
