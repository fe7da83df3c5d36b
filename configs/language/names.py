"""A character-level transformer that generates names, with the settings of `transformer` in karpathy/makemore.

    genjax data build names --from=FOLDER_OF_NAMES_TXT
    genjax train --config=configs/language/names.py --workdir=runs/names
    genjax sample --workdir=runs/names --num=20

Setting: 4 layers, 4 heads, width 64, GELU (tanh), biases, an untied output layer without bias: 204,544 parameters, of
which makemore prints the 202,816 outside the output layer. Batch 32, AdamW 5e-4 (b1 0.9, b2 0.99, weight decay 0.01),
no dropout, 10,000 steps. An example is a name between two line ends: 27 symbols, at most 16 predictions. The loss is in
nats per symbol, including the end of a name. As in makemore, the 1,000 test names are drawn at random from the lines of
the file, in which names repeat, but they are other lines. makemore's code reaches 1.971 in 10,000 steps. It decays all
parameters and initializes linear layers uniformly; here only weights decay, and initialization is GPT-2's.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, smoke=False)
  config = common.base(steps=10_000, batch_size=32)
  config.experiment = 'genjax.experiments.language'
  config.data = dict(name='names', train='train', heldout='test', vocabulary='char', separator='\n', rows=True,
                     context=16, start='\n', data_dir='', originals='')
  config.model = dict(name='gpt', layers=4, heads=4, width=64, mlp='gelu_tanh', bias=True, tied=False, init_scale=0.07,
                      dropout=0.0, dtype='float32', attention='auto', remat='none', unroll=True)
  # At most 15 letters; the first symbol of the alphabet ends a name.
  config.sampler = dict(common.TOKENS, length=15, stop=(0,))
  config.optimizers.net = dict(name='adamw', lr=5e-4, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01)
  config.log_every = 500
  config.evaluate_every = 1000
  config.sample_every = 2500
  config.sample_num = 20
  config.checkpoint.every = 1000
  if arg.smoke:
    config.model.update(layers=2, heads=2, width=16)
    config.data.train, config.data.heldout = 'test[:64]', 'test[:16]'
    config = common.smoke(config)
  return config
