"""StarGAN v2 with the settings of clovaai/stargan-v2 for AFHQ: cats, dogs and wild animals from each other.

    genjax train --config=configs/gans/stargan2.py:data=FOLDER --workdir=runs/animals
    genjax sample --workdir=runs/animals --conditions='image=FOLDER;label=2' --out=drawn/

Choi et al. (2020). The domains are the folders of pictures in FOLDER, in the order of their names. Without data the
pictures are noise, for `genjax inspect` and `genjax plan`. Published after 100,000 steps on AFHQ, with styles of
latents: FID 16.2 and LPIPS 0.450. What differs from the code is in docs/image_translation.md.

Arguments: data; domains (3), how many there are; pixels (256); dtype ('float32').
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', domains=3, pixels=256, dtype='float32', smoke=False)
  config = common.base(steps=100_000, batch_size=8)
  config.experiment = 'genjax.experiments.domains'
  folder = dict(name=arg.data, train='train[:95%]', heldout='train[95%:]', resize='bilinear')
  noise = dict(name='random_images', train='train', heldout='heldout')
  config.data = {**common.IMAGES, **dict(shape=(arg.pixels, arg.pixels, 3), num_classes=arg.domains, flip=True),
                 **(folder if arg.data else noise)}
  config.model = dict(name='stargan2', style=64, latent=16, width=0, widest=512, smallest=16, mapping_width=512,
                      dtype=arg.dtype)
  config.objective = dict(r1=1.0, style=1.0, diversity=2.0, diversity_steps=100_000, cycle=1.0, l2=1e-4)
  adam = dict(name='adam', lr=1e-4, b1=0.0, b2=0.99)
  config.optimizers = dict(generator=adam, mapping=dict(adam, lr=1e-6), style_encoder=adam, discriminator=adam)
  config.ema = dict(generator=0.999, mapping=0.999, style_encoder=0.999)
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=2_000)
  config.evaluate_every = config.sample_every = config.checkpoint.every = 5_000
  config.evaluate_batches = 20
  config.sample_num = 32
  if arg.smoke:
    config = common.smoke(config)
    config.data.shape = (8, 8, 3)
    config.model.update(style=4, latent=4, width=4, widest=8, smallest=4, mapping_width=8)
  return config
