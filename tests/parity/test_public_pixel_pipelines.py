"""Pipelines with a U-Net on pixels against `diffusers`: as runs that sample, and written again."""

import numpy as np
import pytest

import genjax
from genjax.runs import exporting, importing
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow


def saved(folder, kind, scheduler, **more):
  """A pipeline with a small U-Net of random parameters, saved."""
  torch.manual_seed(0)
  unet = diffusers.UNet2DModel(**dict(dict(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=None,
    down_block_types=('DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
    downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6), **more))
  pipeline = kind(unet.eval(), scheduler)
  pipeline.save_pretrained(folder)
  return pipeline


def test_ddim(tmp_path):
  """The same image from the same noise, in five steps."""
  theirs = saved(tmp_path / 'theirs', diffusers.DDIMPipeline, diffusers.DDIMScheduler())
  importing.import_model(tmp_path / 'theirs', tmp_path / 'run')
  run = genjax.open(tmp_path / 'run', sampler=dict(steps=5))
  noise_BHWC = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  got = run.sample(2, noise=noise_BHWC, exact=True)['image']
  x_BCHW = torch.tensor(np.ascontiguousarray(noise_BHWC.transpose(0, 3, 1, 2)))
  theirs.scheduler.set_timesteps(5)
  with torch.no_grad():
    for time in theirs.scheduler.timesteps:
      x_BCHW = theirs.scheduler.step(theirs.unet(x_BCHW, time).sample, time, x_BCHW).prev_sample
  wanted = (x_BCHW / 2 + 0.5).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
  assert wanted.std() > 0.02
  np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-3)


def test_ddpm_is_written_again(tmp_path):
  scheduler = diffusers.DDPMScheduler(variance_type='fixed_large')
  theirs = saved(tmp_path / 'theirs', diffusers.DDPMPipeline, scheduler)
  importing.import_model(tmp_path / 'theirs', tmp_path / 'run')
  run = genjax.open(tmp_path / 'run', sampler=dict(steps=3))
  images = run.sample(2)['image']
  assert images.shape == (2, 8, 8, 3) and images.std() > 1
  exporting.export(tmp_path / 'run', tmp_path / 'ours')
  after = diffusers.DDPMPipeline.from_pretrained(tmp_path / 'ours')
  before, now = ({name: value for name, value in pipeline.scheduler.config.items() if name[0] != '_'}
                 for pipeline in (theirs, after))
  assert before == now
  assert all(torch.equal(value, after.unet.state_dict()[name]) for name, value in theirs.unet.state_dict().items())


def test_classes(tmp_path):
  """A network that is told a class makes other images for another one."""
  saved(tmp_path / 'theirs', diffusers.DDPMPipeline, diffusers.DDPMScheduler(), num_class_embeds=3)
  importing.import_model(tmp_path / 'theirs', tmp_path / 'run')
  run = genjax.open(tmp_path / 'run', sampler=dict(steps=2))
  noise_BHWC = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
  first, second = (run.sample(1, label=label, noise=noise_BHWC, exact=True)['image'] for label in (0, 2))
  assert np.abs(first - second).max() > 1e-4


def test_a_unet_that_sees_more_channels_is_refused(tmp_path):
  saved(tmp_path / 'theirs', diffusers.DDPMPipeline, diffusers.DDPMScheduler(), in_channels=4)
  with pytest.raises(UserError, match='as many channels as it gives'):
    importing.import_model(tmp_path / 'theirs', tmp_path / 'run')
