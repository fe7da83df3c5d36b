"""Measures against other libraries, on the same features and pictures."""

import numpy as np
import pytest

from genjax.metrics import frechet, inception_score, kernel, manifold, pictures, retrieval

pytestmark = pytest.mark.filterwarnings('ignore:Metric `InceptionScore` will save')


def close(value):
  return pytest.approx(value, rel=1e-5)


def features(count, seed, shift=0.0, width=16):
  """Features as networks give them, float32."""
  return (np.random.default_rng(seed).standard_normal((count, width)) * 0.5 + shift).astype(np.float32)


def images(seed, count=3, size=32, channels=3):
  """Smooth pictures, and the same with noise."""
  random = np.random.default_rng(seed)
  coarse = random.integers(40, 216, (count, size // 8, size // 8, channels))
  clean = np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.float64)
  noisy = clean + random.normal(0, 12, clean.shape)
  return clean.astype(np.uint8), np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip('torch')


@pytest.fixture(scope='module')
def torchmetrics(torch):
  return pytest.importorskip('torchmetrics')


def test_kernel_distance_of_torchmetrics(torch, torchmetrics):
  from torchmetrics.image.kid import poly_mmd
  x_ND, y_ND = features(200, 0), features(200, 1, 0.1)
  expected = poly_mmd(*(torch.from_numpy(side).double() for side in (x_ND, y_ND)))
  assert kernel.squared_mmd(x_ND, y_ND) == close(float(expected))
  assert kernel.distance(x_ND, y_ND, 200).mean == close(float(expected))


def test_kernel_distance_of_torch_fidelity(torch):
  """On the subsets that it draws."""
  fidelity = pytest.importorskip('torch_fidelity.metric_kid', exc_type=ImportError)
  x_ND, y_ND = features(300, 0), features(250, 1, 0.1)
  expected = fidelity.kid_features_to_metric(
    *(torch.from_numpy(side) for side in (x_ND, y_ND)), kid_subsets=10, kid_subset_size=100, rng_seed=2020,
    verbose=False)
  random = np.random.RandomState(2020)
  found = []
  for _ in range(10):
    x_BD, y_BD = (side[random.choice(len(side), 100, replace=False)] for side in (x_ND, y_ND))
    found.append(kernel.squared_mmd(x_BD, y_BD))
  assert np.mean(found) == close(expected['kernel_inception_distance_mean'])


def test_inception_score_of_torchmetrics(torch, torchmetrics, monkeypatch):
  from torchmetrics.image.inception import InceptionScore
  logits_NK = 2 * features(120, 3, width=10)

  class Given(torch.nn.Module):
    def forward(self, image):
      return torch.from_numpy(logits_NK).double()

  score = InceptionScore(feature=Given(), splits=4)
  score.update(torch.zeros((120, 3, 4, 4), dtype=torch.uint8))
  monkeypatch.setattr(torch, 'randperm', torch.arange)  # it shuffles before it splits
  mean, deviation = score.compute()
  found = inception_score.score(logits_NK, 4)
  assert found.mean == close(float(mean))
  assert found.deviation * np.sqrt(4 / 3) == close(float(deviation))  # it divides by the number of splits less one


def test_inception_score_of_torch_fidelity(torch):
  fidelity = pytest.importorskip('torch_fidelity.metric_isc', exc_type=ImportError)
  logits_NK = 2 * features(103, 3, width=10)
  expected = fidelity.isc_features_to_metric(torch.from_numpy(logits_NK), splits=10, shuffle=False)
  found = inception_score.score(logits_NK, 10)
  assert found.mean == close(expected['inception_score_mean'])
  assert found.deviation == close(expected['inception_score_std'])


def test_frechet_distance_of_torchmetrics(torch, torchmetrics):
  from torchmetrics.image.fid import FrechetInceptionDistance

  class Given(torch.nn.Module):
    num_features = 16

    def forward(self, image):
      return image.reshape(len(image), -1)[:, :16]

  x_ND, y_ND = features(200, 0), features(300, 1, 0.1)
  measure = FrechetInceptionDistance(feature=Given(), input_img_size=(1, 4, 4), normalize=False).set_dtype(
    torch.float64)
  measure.used_custom_model = True
  for side, real in ((x_ND, False), (y_ND, True)):
    measure.update(torch.from_numpy(side).double().reshape(-1, 1, 4, 4), real=real)
  assert frechet.distance(frechet.moments(x_ND), frechet.moments(y_ND)) == close(float(measure.compute()))


def test_manifolds_of_prdc():
  prdc = pytest.importorskip('prdc')
  real_ND, fake_ND = features(220, 0), features(180, 1, 0.1) * np.float32(0.9)
  for nearest in (3, 5):
    expected = prdc.compute_prdc(real_features=real_ND, fake_features=fake_ND, nearest_k=nearest)
    found = {**manifold.precision_recall(fake_ND, real_ND, nearest)._asdict(),
             **manifold.density_coverage(fake_ND, real_ND, nearest)._asdict()}
    assert found == close({name: float(value) for name, value in expected.items()})
    assert all(value > 0.05 for value in found.values())


def test_precision_and_recall_of_torch_fidelity(torch):
  fidelity = pytest.importorskip('torch_fidelity.metric_prc', exc_type=ImportError)
  sample_ND, real_ND = features(180, 1, 0.1) * np.float32(0.9), features(220, 0)
  expected = fidelity.prc_features_to_metric(torch.from_numpy(sample_ND), torch.from_numpy(real_ND),
                                             prc_neighborhood=3, prc_batch_size=100, verbose=False)
  found = manifold.precision_recall(sample_ND, real_ND, 3)
  assert found == close((float(expected['precision']), float(expected['recall'])))


def test_pictures_of_scikit_image():
  metrics = pytest.importorskip('skimage.metrics')
  for channels in (1, 3):
    clean, noisy = images(0, channels=channels)
    expected = [metrics.peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(pictures.psnr(clean, noisy), expected, rtol=1e-12)
    expected = [metrics.structural_similarity(a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
                                              use_sample_covariance=False) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(pictures.ssim(clean, noisy), expected, rtol=1e-12)


def test_pictures_of_torchmetrics(torch, torchmetrics):
  functional = pytest.importorskip('torchmetrics.functional.image')
  clean, noisy = images(1)
  a, b = (torch.from_numpy(side).double().permute(0, 3, 1, 2) for side in (clean, noisy))
  ratio = functional.peak_signal_noise_ratio(b, a, data_range=255.0, reduction='none', dim=(1, 2, 3))
  np.testing.assert_allclose(pictures.psnr(clean, noisy), ratio.numpy(), rtol=1e-5)
  _, similarity = functional.structural_similarity_index_measure(b, a, data_range=255.0, sigma=1.5, reduction='none',
                                                                 return_full_image=True)
  inside = similarity[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))  # its mean has windows that leave the picture, too
  np.testing.assert_allclose(pictures.ssim(clean, noisy), inside.numpy(), rtol=1e-5)


def test_clip_score_of_torchmetrics(torch, torchmetrics):
  """Its class, with a model and a processor that hand out vectors."""
  from torchmetrics.multimodal.clip_score import CLIPScore
  text_ND = features(20, 0)
  image_ND = text_ND + features(20, 1)

  class Model(torch.nn.Module):
    config = None
    device = torch.device('cpu')

    def get_image_features(self, pixel_values):
      return torch.from_numpy(image_ND)

    def get_text_features(self, input_ids, attention_mask):
      return torch.from_numpy(text_ND)

  def processor(text=None, images=None, **options):
    return {'pixel_values': torch.zeros(1), 'input_ids': torch.zeros((20, 1)), 'attention_mask': torch.ones((20, 1))}

  measure = CLIPScore(model_name_or_path=lambda: (Model(), processor))
  measure.update([torch.zeros((3, 4, 4), dtype=torch.uint8)] * 20, ['text'] * 20)
  found = retrieval.clip_score(image_ND, text_ND)
  assert (found > 0).all()
  assert found.mean() == close(float(measure.compute()))


def test_recall_of_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  text_ND = features(60, 0)
  image_ND = text_ND + features(60, 1)
  unit = lambda side: side / np.linalg.norm(side, axis=1, keepdims=True)
  cosine_NN = unit(image_ND) @ unit(text_ND).T
  for query, target, scores in ((image_ND, text_ND, cosine_NN), (text_ND, image_ND, cosine_NN.T)):
    for k, value in retrieval.recall(query, target).items():
      expected = metrics.top_k_accuracy_score(np.arange(60), scores, k=k, labels=np.arange(60))
      assert value == close(expected) and 0 < value < 1
