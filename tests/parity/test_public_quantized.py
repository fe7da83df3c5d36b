"""VQModel of `diffusers`, and the critic of patches, against torch: random small ones, in and out."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.models.adversarial.patch import Patch, critic
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

MODEL = dict(block_out_channels=(16, 32), layers_per_block=1, latent_channels=3, norm_num_groups=8, sample_size=16,
             num_vq_embeddings=20, down_block_types=('DownEncoderBlock2D',) * 2,
             up_block_types=('UpDecoderBlock2D',) * 2)
CASES = {
  'f2': dict(scaling_factor=0.5),
  'attention': dict(vq_embed_dim=5, layers_per_block=2,
                    down_block_types=('DownEncoderBlock2D', 'AttnDownEncoderBlock2D'),
                    up_block_types=('AttnUpDecoderBlock2D', 'UpDecoderBlock2D')),
}


def saved(case, folder):
  """A VQModel with random parameters, saved, and as genjax reads it."""
  torch.manual_seed(0)
  model = diffusers.VQModel(**MODEL | CASES[case])
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = torch.randn_like(parameter)
      scale = 1.0 if name.startswith('quantize') else 0.5 / max(1, parameter[0].numel()) ** 0.5
      parameter.copy_(scale * noise if noise.ndim > 1 else 0.3 + 0.2 * noise)
    codes = model.encode(torch.randn(4, 3, 16, 16)).latents.permute(0, 2, 3, 1).flatten(0, 2)
    model.quantize.embedding.weight.copy_(codes[torch.randperm(len(codes))[:20]])  # so that many of them are used
  model.eval().save_pretrained(folder)
  return model, interop.load(folder)


@pytest.mark.parametrize('case', CASES)
def test_quantized_autoencoders(case, tmp_path):
  model, imported = saved(case, tmp_path / 'theirs')
  x_BCHW = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
  with torch.no_grad():
    latents = model.encode(torch.tensor(x_BCHW)).latents
    wanted = model.decode(latents).sample.numpy().transpose(0, 2, 3, 1)
    index_N = model.quantize(latents)[2][2].numpy()
  index, got = jax.jit(imported.network.apply)(imported.params, {}, x_BCHW.transpose(0, 2, 3, 1))[0]
  np.testing.assert_array_equal(np.asarray(index).ravel(), index_N)
  assert len(np.unique(index_N)) > 3 and np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
  scale = CASES[case].get('scaling_factor', 0.18215)
  np.testing.assert_allclose(imported.mutable['moments']['square'], scale ** -2, rtol=1e-5)
  interop.save(tmp_path / 'ours', imported)
  again = diffusers.VQModel.from_pretrained(tmp_path / 'ours')
  before, after = model.state_dict(), again.state_dict()
  assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
  assert dict(again.config)['down_block_types'] == list(model.config.down_block_types)


def test_the_loss_is_that_of_diffusers(tmp_path):
  model, imported = saved('f2', tmp_path / 'theirs')
  z_BCHW = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
  z, codes = torch.tensor(z_BCHW, requires_grad=True), model.quantize.embedding.weight
  loss = model.quantize(z)[1]
  slopes = [slope.numpy() for slope in torch.autograd.grad(loss, (z, codes))]

  def ours(z_BHWC, codebook):
    return imported.config.quantizer.apply(codebook, {}, z_BHWC)[0].loss

  value, (z_slope, slope) = jax.jit(jax.value_and_grad(ours, (0, 1)))(z_BCHW.transpose(0, 2, 3, 1),
                                                                       imported.params['codebook'])
  assert float(value) == pytest.approx(float(loss.detach()), rel=1e-5)
  np.testing.assert_allclose(z_slope, slopes[0].transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(slope['embedding'], slopes[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(('entry', 'value', 'message'), [
  ('norm_type', 'spatial', 'norm_type'), ('lookup_from_codebook', True, 'lookup_from_codebook'),
  ('down_block_types', ['DownEncoderBlock2D', 'AttnDownEncoderBlock2D'], 'attention at the same resolutions'),
  ('up_block_types', ['UpBlock2D', 'UpDecoderBlock2D'], 'up_block_types must be of'),
  ('block_out_channels', [16, 24], 'of another shape')])
def test_what_is_not_read_is_named(entry, value, message, tmp_path):
  saved('f2', tmp_path / 'theirs')
  path = tmp_path / 'theirs' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
  with pytest.raises(UserError, match=message):
    interop.describe(tmp_path / 'theirs')


@pytest.mark.parametrize('layers', [1, 3])
def test_the_critic_is_that_of_latent_diffusion(layers):
  """The layers in the order of the published code, in training: batch norms by the statistics of the batch."""
  config = Patch(channels=3, width=4, layers=layers)
  inputs, modules = 4, [torch.nn.Conv2d(3, 4, 4, 2, 1), torch.nn.LeakyReLU(0.2, True)]
  for layer in range(1, layers + 1):
    outputs = 4 * min(2 ** layer, 8)
    modules += [torch.nn.Conv2d(inputs, outputs, 4, 2 if layer < layers else 1, 1, bias=False),
                torch.nn.BatchNorm2d(outputs), torch.nn.LeakyReLU(0.2, True)]
    inputs = outputs
  theirs = torch.nn.Sequential(*modules, torch.nn.Conv2d(inputs, 1, 4, 1, 1))
  network = critic(config)
  params, mutable = jax.device_get(jax.jit(network.init)(jax.random.key(0)))
  with torch.no_grad():
    convolutions = [module for module in theirs if isinstance(module, torch.nn.Conv2d)]
    own = [params['first'], *(params['stages'][str(index)]['conv'] for index in range(layers)), params['last']]
    for module, layer in zip(convolutions, own, strict=True):
      module.weight.copy_(torch.tensor(layer['kernel'].transpose(3, 2, 0, 1)))
      if module.bias is not None:
        module.bias.copy_(torch.tensor(layer['bias']))
    norms = [module for module in theirs if isinstance(module, torch.nn.BatchNorm2d)]
    for index, module in enumerate(norms):
      norm = params['stages'][str(index)]['norm']['norm']
      module.weight.copy_(torch.tensor(norm['scale']))
      module.bias.copy_(torch.tensor(norm['bias']))
    x_BCHW = np.random.default_rng(0).normal(size=(3, 3, 37, 40)).astype(np.float32)
    wanted = theirs(torch.tensor(x_BCHW)).numpy()[:, 0]
  got, _ = jax.jit(network.apply)(params, mutable, x_BCHW.transpose(0, 2, 3, 1), key=jax.random.key(0))
  assert got.shape == wanted.shape
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
