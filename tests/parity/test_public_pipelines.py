"""Whole pipelines against `diffusers`: random small ones, from a prompt to pixels, in and out."""

import json

import numpy as np
import pytest

import genjax
from genjax.runs import exporting, importing

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
from tests.parity import tiny_pipelines as tiny  # noqa: E402  # needs both

torch.set_num_threads(1)  # its threads wait for each other on busy machines
# numpy asks torch for `__array__(copy=...)` inside of diffusers
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')]
PROMPTS, NEGATIVE, STEPS = ('a red circle', 'blue square, a small photo of a red circle'), 'blue', 5


def noise(rows=2):
  return np.random.default_rng(0).normal(size=(rows, 16, 16, 4)).astype(np.float32)


def torch_of(noise_BHWC):
  return torch.tensor(np.ascontiguousarray(noise_BHWC.transpose(0, 3, 1, 2)))


def opened(folder, workdir, **sampler):
  importing.import_model(folder, workdir)
  return genjax.open(workdir, sampler=dict(steps=STEPS, **sampler))


def check_written(run, before, folder):
  """What is written again is the same to the last bit, and `diffusers` loads it."""
  exporting.export(run.workdir, folder)
  after = diffusers.DiffusionPipeline.from_pretrained(folder)
  assert type(after) is type(before) and type(after.scheduler) is type(before.scheduler)
  settings = [{**pipeline.scheduler.config, '_use_default_values': None} for pipeline in (before, after)]
  assert settings[0] == settings[1]
  for name, component in before.components.items():
    if isinstance(component, torch.nn.Module):
      theirs, ours = component.state_dict(), getattr(after, name).state_dict()
      assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in theirs), name
  return after


def near(ours, theirs):
  assert theirs.std() > 0.02
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_stable_diffusion(tmp_path):
  """Two prompts of different lengths at once, and each alone, with the same starting noise."""
  theirs = tiny.stable_diffusion(tmp_path / 'theirs')
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  given = dict(noise=noise(), exact=True, negative=NEGATIVE)
  both = run.sample(2, prompt=list(PROMPTS), **given)['image']
  wanted = theirs(list(PROMPTS), negative_prompt=[NEGATIVE] * 2, latents=torch_of(noise()), num_inference_steps=STEPS,
                  output_type='np').images
  near(both, wanted)
  alone = run.sample(2, prompt=list(PROMPTS), chunk=1, **given)['image']
  np.testing.assert_allclose(alone, both, rtol=0, atol=1e-5)
  check_written(run, theirs, tmp_path / 'ours')


def test_velocity(tmp_path):
  """Stable Diffusion 2: a network that predicts v, with DDIM, a projection by matrices, and no negative prompt."""
  theirs = tiny.stable_diffusion(tmp_path / 'theirs', tiny.DDIM_V, use_linear_projection=True, **tiny.ONE_LEVEL)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  wanted = theirs(PROMPTS[0], latents=torch_of(noise(1)), num_inference_steps=STEPS, output_type='np').images
  near(run.sample(1, prompt=PROMPTS[0], noise=noise(1), exact=True)['image'], wanted)
  check_written(run, theirs, tmp_path / 'ours')


def test_xl(tmp_path):
  """Two text encoders and six numbers; no negative prompt is zeros, and an empty one is encoded."""
  theirs = tiny.xl(tmp_path / 'theirs')
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  ask = dict(latents=torch_of(noise(1)), num_inference_steps=STEPS, output_type='np', height=32, width=32)
  found = []
  for told, negative in (({}, None), (dict(negative=''), '')):
    wanted = theirs(PROMPTS[1], negative_prompt=negative, **ask).images
    found.append(run.sample(1, prompt=PROMPTS[1], noise=noise(1), exact=True, **told)['image'])
    near(found[-1], wanted)
  assert np.abs(found[0] - found[1]).max() > 0.01
  check_written(run, theirs, tmp_path / 'ours')
  assert json.loads((tmp_path / 'ours' / 'vae' / 'config.json').read_text())['force_upcast'] is True


def test_refiner(tmp_path):
  """One text encoder, and a score that is lower where guidance leads away from."""
  theirs = tiny.xl(tmp_path / 'theirs', refiner=True)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  theirs.scheduler.set_timesteps(STEPS)
  start = torch_of(noise(1)) * theirs.scheduler.init_noise_sigma
  wanted = theirs(PROMPTS[0], negative_prompt=NEGATIVE, image=start, denoising_start=0.001, num_inference_steps=STEPS,
                  output_type='np').images
  near(run.sample(1, prompt=PROMPTS[0], negative=NEGATIVE, noise=noise(1), exact=True)['image'], wanted)
  check_written(run, theirs, tmp_path / 'ours')


def picture():
  pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
  return np.kron(pixels, np.ones((4, 4, 1), np.uint8))


def test_inpainting(tmp_path):
  from PIL import Image
  theirs = tiny.stable_diffusion(tmp_path / 'theirs', kind='StableDiffusionInpaintPipeline', in_channels=9,
                                 **tiny.ONE_LEVEL)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  hole = np.zeros((32, 32), np.uint8)
  hole[4:21, 7:24] = 255
  wanted = theirs(PROMPTS[0], image=Image.fromarray(picture()), mask_image=Image.fromarray(hole),
                  latents=torch_of(noise(1)), num_inference_steps=STEPS, strength=1.0, height=32, width=32,
                  output_type='np').images
  seen = np.concatenate([picture(), 255 - hole[..., None]], axis=2)
  near(run.sample(1, prompt=PROMPTS[0], hole=seen, noise=noise(1), exact=True)['image'], wanted)
  check_written(run, theirs, tmp_path / 'ours')


def test_instructions(tmp_path):
  """A picture to change, with a scale of its own."""
  theirs = tiny.stable_diffusion(tmp_path / 'theirs', kind='StableDiffusionInstructPix2PixPipeline',
                                 in_channels=8, **tiny.ONE_LEVEL)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  wanted = theirs(PROMPTS[0], image=torch.tensor(picture().transpose(2, 0, 1)[None] / 255.0, dtype=torch.float32),
                  latents=torch_of(noise(1)), num_inference_steps=STEPS, guidance_scale=7.5, image_guidance_scale=1.5,
                  output_type='np').images
  near(run.sample(1, prompt=PROMPTS[0], before=picture(), noise=noise(1), exact=True)['image'], wanted)
  check_written(run, theirs, tmp_path / 'ours')
