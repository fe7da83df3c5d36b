"""Feature networks against the packages that define them, with random weights: torch-fidelity, lpips, torch.save."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from genjax import interop
from genjax.interop import conversion, pickles
from genjax.models.features import lpips
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow


def folder(path, kind, tensors):
  path.mkdir()
  save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path / 'model.safetensors')
  (path / 'config.json').write_text(json.dumps({'model_type': kind}))
  return path


def images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.filterwarnings('ignore:.*deprecated since 0.13')  # lpips calls torchvision as it was
@pytest.mark.parametrize(('kind', 'net'), [('vgg16_lpips', 'vgg'), ('alexnet_lpips', 'alex')])
def test_lpips(kind, net, tmp_path):
  package = pytest.importorskip('lpips', reason='parity tests need the extra [parity]')
  torch.manual_seed(0)
  theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False)  # random trunk, published heads
  ours = interop.load(folder(tmp_path / 'own', kind, {name: value.numpy() for name, value in
                                                      theirs.state_dict().items()}))
  for size in ((64, 64), (35, 50)):
    a, b = (image / np.float32(127.5) - 1 for image in images(2, 2, *size, 3))
    found, _ = jax.jit(ours.network.apply)(ours.params, {}, a, b)
    with torch.no_grad():
      expected = theirs(*(torch.tensor(x.transpose(0, 3, 1, 2)) for x in (a, b))).numpy().ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  interop.save(tmp_path / 'copy', ours)
  again = interop.load(tmp_path / 'copy')
  jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)


@pytest.mark.parametrize('side', [16, 32, 40])
def test_maps_of_vgg_on_small_pictures(side):
  """The last maps have 1, 4 and 4 pixels, fewer than the kernel has."""
  options = lpips.LpipsConfig('vgg16', divisor=4)
  net = lpips.network(options)
  params, _ = net.init(jax.random.key(0))
  image = images(2, side, side, 3) / np.float32(127.5) - 1
  found, _ = jax.jit(net.apply)(params, {}, image)
  x = torch.tensor(((image - np.float32(lpips.SHIFT)) / np.float32(lpips.SCALE)).transpose(0, 3, 1, 2))
  expected = []
  for layer in lpips.TRUNKS['vgg16'].layers:
    x = torch.nn.functional.max_pool2d(x, 2) if layer.pooled else x
    kernel, bias = (torch.tensor(np.asarray(params['features'][f'conv{layer.number}'][name]))
                    for name in ('kernel', 'bias'))
    x = torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
    expected += [x.permute(0, 2, 3, 1).numpy()] if layer.read else []
  assert found[-1].shape == (2, side // 16, side // 16, 128)
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.max())


def test_inception(tmp_path, monkeypatch):
  theirs = _torch_fidelity(monkeypatch)
  torch.save(theirs.state_dict(), tmp_path / 'weights.pth')
  parameters, name = conversion.convert(tmp_path / 'weights.pth', 'inception_fid', tmp_path / 'own')
  assert (parameters, name) == (23_885_392, 'inception_fid')  # and not 'fid': these weights are not the published ones
  ours = interop.load(tmp_path / 'own')
  for shape in ((1, 32, 32, 3), (1, 310, 350, 3)):
    image = images(*shape)
    found, _ = jax.jit(ours.network.apply)(ours.params, {}, image)
    features, logits = (value.numpy() for value in theirs(torch.tensor(image.transpose(0, 3, 1, 2))))
    for mine, their in ((found['features'], features), (found['logits'], logits)):
      np.testing.assert_allclose(mine, their, rtol=0, atol=1e-5 * np.abs(their).max())


def _torch_fidelity(monkeypatch):
  module = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3',
                               reason='parity tests need the extra [parity]')
  kind = module.FeatureExtractorInceptionV3
  monkeypatch.setattr(module, 'load_state_dict_from_url', lambda *arguments, **options: {})
  with monkeypatch.context() as patch:
    patch.setattr(kind, 'load_state_dict', lambda self, state: None)
    made = kind('inception', ['2048', 'logits_unbiased'])
  generator = torch.Generator().manual_seed(0)
  for name, value in [*made.named_parameters(), *made.named_buffers()]:
    if name.endswith(('bn.weight', 'running_var')):
      value.uniform_(0.5, 1.5, generator=generator)
    elif name.endswith(('bn.bias', 'running_mean')):
      value.normal_(0, 0.1, generator=generator)
    elif value.ndim > 1:
      value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
  return made


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_torch(zipped, tmp_path):
  whole = torch.arange(24.0).reshape(4, 6)
  tensors = {'a': whole, 'rows': whole[1:3, ::2].T, 'half': torch.ones(3, dtype=torch.float16),
             'count': torch.tensor(5), 'brain': torch.full((2,), 1.5, dtype=torch.bfloat16),
             'parameter': torch.nn.Parameter(torch.ones(2, 1)), 'empty': torch.zeros(0, 3)}
  torch.save(tensors, tmp_path / 'file.pth', _use_new_zipfile_serialization=zipped)
  found = pickles.read_torch(tmp_path / 'file.pth')
  assert list(found) == list(tensors)
  for name, tensor in tensors.items():
    assert found[name].shape == tuple(tensor.shape)
    np.testing.assert_array_equal(found[name].astype(np.float64), tensor.detach().double().numpy())
  data = (tmp_path / 'file.pth').read_bytes()
  (tmp_path / 'cut.pth').write_bytes(data[:len(data) - 200])
  with pytest.raises(UserError):
    pickles.read_torch(tmp_path / 'cut.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_torch_with_code(zipped, tmp_path):
  torch.save({'model': torch.nn.Linear(2, 2)}, tmp_path / 'file.pth', _use_new_zipfile_serialization=zipped)
  with pytest.raises(UserError, match='torch.nn.modules.linear.Linear, which is no array'):
    pickles.read_torch(tmp_path / 'file.pth')
