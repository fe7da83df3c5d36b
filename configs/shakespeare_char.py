"""A character-level GPT on tiny Shakespeare, the size of nanoGPT's documented CPU run.

    genjax data build tiny_shakespeare --from=FOLDER_OF_INPUT_TXT
    genjax train --config=configs/shakespeare_char.py --workdir=runs/shakespeare
    genjax sample --workdir=runs/shakespeare --prompt='ROMEO:'

Setting: 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, AdamW 1e-3 (b2 0.99, weight decay 0.1, clip 1),
100 steps of warm-up, cosine to a tenth, no dropout, no biases; the first 90 % of the text train, the rest is held out.
karpathy/nanoGPT README prints validation loss 1.88 for it, over 20 batches; its code gives 1.919 over 200 batches.
Held-out windows overlap by half, which makes 291 batches of the last tenth of the text.
"""

from configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=2000, batch_size=12, seed=1337)
  config.experiment = 'experiments.language'
  config.data = dict(name='tiny_shakespeare', train='train', heldout='validation+test', vocabulary='char',
                     context=64, heldout_stride=32, start='\n', data_dir='', originals='')
  config.model = dict(name='gpt', layers=4, heads=4, width=128, mlp='gelu', bias=False, dropout=0.0, dtype='float32',
                      attention='auto', remat='none', unroll=True)
  config.sampler = dict(common.TOKENS, length=500, temperature=0.8)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.99, weight_decay=0.1, clip=1.0, warmup=100, schedule='cosine', end=0.1)
  config.log_every = 100
  config.evaluate_every = 500
  config.evaluate_batches = 40
  config.sample_every = 500
  config.sample_num = 2
  config.checkpoint.every = 500
  if arg.smoke:
    config.data.name = 'python_stdlib'
    config.data.train = 'validation[:3]'
    config.data.heldout = 'test[:3]'
    config.data.vocabulary = 'byte'
    config.data.context, config.data.heldout_stride = 16, 16
    config.model.update(layers=2, heads=2, width=16)
    config.sampler.length = 20
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
