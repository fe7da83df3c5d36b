"""A text-to-image model from nothing: captioned scenes of coloured shapes, drawn by code, for two CPU cores. A DiT that
attends to a text encoder, which it learns, generates a linear code of patches by flow matching (Lipman et al. 2023;
Peebles & Xie 2023; Chen et al. 2024).

    genjax train --config=configs/quickstart_text.py --workdir=runs/text
    genjax sample --workdir=runs/text --prompt='a small red star left of two blue rings' --num=8 --out=star.png
    genjax evaluate --workdir=runs/text

Argument `trained`: a run of this config. Nothing is trained then; its samples are measured at several scales of
guidance:

    genjax sweep --config=configs/quickstart_text.py:trained=runs/text --workdir=runs/guidance --evaluate
"""

from genjax.configs import common, sweeps


def get_config(arg=None):
  arg = common.parse_arg(arg, trained='', smoke=False)
  config = common.base(steps=3500, batch_size=32)
  config.experiment = 'genjax.experiments.diffusion'
  config.data = dict(common.IMAGES, name='scenes', train='train', heldout='heldout', shape=(36, 36, 3), num_classes=0,
                     flip=False)
  config.code = dict(patch=12, kept=48, whitening=0.5, places=False)
  config.conditions = dict(text=dict(kind='text', column='text', dropout=0.1, truncate=True, length=14,
                                     vocabulary='wordpiece', vocabulary_size=200))
  config.model = dict(name='dit', patch=1, width=128, depth=4, heads=4, text_width=128, text_depth=2, text_heads=4,
                      pool=True, unroll=True, attention='auto', remat='none')
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='logit_normal', mean=2.0, std=1.5), weighting=dict(name='uniform'),
                          stratified=True)
  config.sampler = dict(name='dpmpp_2m', steps=24, spacing='', guidance=2.0, rescale=0.0, clip=0.0, options=dict(),
                        **{**common.SAMPLING, 'shift': 8.0})
  config.evaluation = dict(num_samples=1000, measures=('attributes',))
  config.optimizers = dict(net=dict(name='adamw', lr=1.5e-3, b2=0.99, warmup=100, schedule='cosine', end=0.02))
  config.ema = dict(net=0.997)
  config.evaluate_every = 500
  config.evaluate_batches = 4
  config.sample_every = 500
  config.checkpoint.every = 500
  if arg.smoke:
    common.smoke(config)
    config.conditions.text.vocabulary_size = 100
    config.code.kept = 8
    config.model.width, config.model.depth, config.model.heads = 16, 1, 4
    config.model.text_width, config.model.text_depth = 16, 1
    config.sampler.steps = 2
    config.evaluation.num_samples = 8
    config.optimizers.net.warmup = 1
  if arg.trained:
    config.init_from, config.init.averaged, config.steps, config.sample_every = arg.trained, True, 0, 0
    config.optimizers = dict(net=dict(name='adamw', lr=1e-3))
    if not arg.smoke:
      config.evaluation.num_samples = 1500  # of 1,000 prompts: 500 are answered twice, which shows how answers differ
  return config


def sweep():
  """Scales of guidance: how many prompts are answered right, and how much samples of one prompt differ."""
  return sweeps.product({'sampler.guidance': (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)})
