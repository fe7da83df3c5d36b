"""A character-level GPT on tiny Shakespeare: nanoGPT's documented CPU run, or with model=10.65M its GPU run.

    genjax data build tiny_shakespeare --from=FOLDER_OF_INPUT_TXT
    genjax train --config=configs/language/shakespeare_char.py --workdir=runs/shakespeare
    genjax sample --workdir=runs/shakespeare --prompt='ROMEO:'

Setting: 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, AdamW 1e-3 (b2 0.99, weight decay 0.1, clip
1), 100 steps of warm-up, cosine decay to a tenth, no dropout, no biases. The first 90 % of the text train, the rest is
held out. The README of karpathy/nanoGPT reports validation loss 1.88, over 20 batches; its code gives 1.919 over 200
batches. Held-out windows overlap by half, which makes 291 batches of the last tenth of the text.

model=10.65M: 6 layers, 6 heads, width 384, context 256, batch 64, 5,000 steps, dropout 0.2 of embeddings, attention
weights and residual branches; the rest as above. The published best validation loss is 1.4697. The model overfits, so
use the best checkpoint (`genjax evaluate --step=best`). Every evaluation reads the last tenth of the text once, in
windows that do not overlap.
"""

from genjax.configs import common

# Layers and heads, width, context, held-out stride, batch, steps, dropout, steps between and batches of evaluations.
SIZES = {
  '0.8M': (4, 128, 64, 32, 12, 2000, 0.0, 500, 40),
  '10.65M': (6, 384, 256, 256, 64, 5000, 0.2, 250, 0),
}


def get_config(arg=None):
  arg = common.parse_arg(arg, model='0.8M', smoke=False)
  layers, width, context, stride, batch_size, steps, dropout, every, batches = common.size(SIZES, arg.model)
  config = common.base(steps=steps, batch_size=batch_size, seed=1337)
  config.experiment = 'genjax.experiments.language'
  config.data = dict(name='tiny_shakespeare', train='train', heldout='validation+test', vocabulary='char',
                     context=context, heldout_stride=stride, start='\n', data_dir='', originals='')
  config.model = dict(name='gpt', layers=layers, heads=layers, width=width, mlp='gelu', bias=False, dropout=dropout,
                      attention_dropout=dropout, dtype='float32', attention='auto', remat='none', unroll=True)
  config.sampler = dict(common.TOKENS, length=500, temperature=0.8)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.99, weight_decay=0.1, clip=1.0, warmup=100,
                               schedule='cosine', end=0.1)
  config.log_every = 100
  config.evaluate_every = every
  config.evaluate_batches = batches
  config.sample_every = 500
  config.sample_num = 2
  config.checkpoint.update(every=every, best='loss' if dropout else '')
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
