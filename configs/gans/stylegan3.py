"""StyleGAN3-T or -R with the settings of NVlabs/stylegan3 (train.py, --cfg). For accelerators.

    genjax train --config=configs/gans/stylegan3.py:data=FOLDER,pixels=256 --workdir=runs/stylegan3

Arguments: `rotation`, StyleGAN3-R; `data`, a TFDS data set or a folder of pictures, of which the last 1,000 are held
out; `pixels`, the side to which they are resized and cropped; `batch`; `gamma`, of R1, 0 for 0.001 pixels^2 / batch,
a choice of our own; `ada`, adaptive augmentation, which is on by default there (--aug=ada). Without data the images
are noise of the same shape, for plans and benchmarks. The discriminator of StyleGAN3-R sees blurred pictures at first:
10 pixels, which fall to 0 in 6,250 steps, 200,000 images in batches of 32. What differs from the code is in
docs/stylegan.md.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, data='', pixels=256, batch=32, gamma=0.0, rotation=False, ada=False, smoke=False)
  if arg.batch < 1:
    raise ValueError(f'config argument batch must be at least 1, got {arg.batch}')
  config = common.base(steps=25_000_000 // arg.batch, batch_size=arg.batch)
  config.experiment = 'genjax.experiments.gan'
  split = dict(name=arg.data, train='train[:-1000]', heldout='train[-1000:]') if arg.data else dict(
    name='random_images', train='train', heldout='heldout')
  config.data = {**common.IMAGES, **split, 'shape': (arg.pixels, arg.pixels, 3), 'num_classes': 0, 'flip': True,
                 **(dict(resize='lanczos', crop=True, threads=4) if arg.data else {})}
  config.model = dict(name='stylegan3', latent=512, style=512, mapping=2, width=32_768, width_max=512,
                      rotation=arg.rotation, convolutions=14, critical=2, critic='residual', group=4, clamp=256.0,
                      average=0.998, magnitude=0.5**(arg.batch / 20_000), dtype='bfloat16')
  config.objective = dict(loss='non_saturating', distribution='normal',
                          r1_gamma=arg.gamma or 1e-3 * arg.pixels**2 / arg.batch, r1_every=16, mixing=0.0,
                          path_weight=0.0, truncation=1.0, truncation_layers=0, discriminator_steps=1,
                          conditional=False, corrected_adam=True,
                          blur=10.0 if arg.rotation else 0.0, blur_steps=6_250 if arg.rotation else 0,
                          augment=dict(name='ada') if arg.ada else dict(name='none'))
  adam = dict(name='adam', lr=2.5e-3, b1=0.0, b2=0.99, eps=1e-8)
  config.optimizers = dict(generator=adam, discriminator=dict(adam, lr=2e-3))
  config.ema = dict(generator=dict(half_life=arg.batch * 10_000 / 32, ramp_up=0.05))
  config.evaluation = dict(common.IMAGE_EVALUATION, num_samples=10_000)
  config.nonfinite.policy = 'skip'
  config.evaluate_batches = 20
  common.every(config, 200_000 // arg.batch)
  if arg.smoke:
    common.smoke(config)
    config.data.shape = (16, 16, 3)
    config.model.update(latent=8, style=8, width=64, width_max=8, convolutions=2, critical=1,
                        dtype='float32')
    config.objective.update(r1_every=2)
  return config
