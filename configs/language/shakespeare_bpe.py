"""A GPT on tiny Shakespeare with byte-level BPE of 512 tokens, trained on the training split.

    genjax data build tiny_shakespeare --from=FOLDER_OF_INPUT_TXT
    genjax train --config=configs/language/shakespeare_bpe.py --workdir=runs/shakespeare_bpe
    genjax sample --workdir=runs/shakespeare_bpe --prompt='ROMEO:'

The setting is that of `configs.language.shakespeare_char`, with another vocabulary. The loss is in nats per token of
about two bytes; compare the two by bits_per_byte. After 2,000 steps it is 2.466 on the held-out text; the character
model has 1.902 / log(2) = 2.744. The argument vocabulary=wordpiece trains WordPiece instead; vocabulary=PATH uses a
tokenizer.json or a SentencePiece model.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, vocabulary='bpe', size=512, smoke=False)
  config = common.base(steps=2000, batch_size=12, seed=1337)
  config.experiment = 'genjax.experiments.language'
  config.data = dict(
    name='tiny_shakespeare', train='train', heldout='validation+test', field='text', separator='',
    vocabulary=arg.vocabulary, vocabulary_size=arg.size if arg.vocabulary in ('bpe', 'wordpiece') else 0, context=64,
    heldout_stride=32, start='.' if arg.vocabulary == 'wordpiece' else '\n', segments=False, data_dir='', originals='')
  config.model = dict(name='gpt', layers=4, heads=4, width=128, mlp='gelu', bias=False, dropout=0.0, dtype='float32',
                      attention='auto', remat='none', unroll=True)
  config.sampler = dict(common.TOKENS, length=250, temperature=0.8)
  config.optimizers.net = dict(name='adamw', lr=1e-3, b2=0.99, weight_decay=0.1, clip=1.0, warmup=100,
                               schedule='cosine', end=0.1)
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
    config.data.vocabulary_size = 280
    config.data.context, config.data.heldout_stride = 16, 16
    config.model.update(layers=2, heads=2, width=16)
    config.sampler.length = 20
    config.optimizers.net.warmup = 1
    config = common.smoke(config)
  return config
