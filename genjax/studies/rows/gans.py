"""Rows of GANs of pictures: translation, enlargement, BigGAN, and StyleGAN2 with and without adaptive augmentation."""

from genjax.studies.baselines import Comparison, Metric, Row

TITLE = 'GANs of pictures'
_OURS = 'No value is published for this data.'
_PERCEPTUAL = {'evaluation.parts.lpips': 'vgg16_lpips'}
_JUDGE = 'heldout/accuracy'
_FRECHET = 'frechet/distance'
_KEPT = ('trousers', 'top', 'hair', 'shoes')


def _translation(name: str, label: str, band=(None, None)) -> Metric:
  return Metric(f'translation/{name}', band, label=label)


def _below(name: str, *others: str) -> tuple[Comparison, ...]:
  """A value of drawn pictures below those of baselines."""
  return tuple(Comparison(f'translation/{name}', (None, 1.0), other=f'translation/{name}_{other}') for other in others)


def _translated(*names: str, of: tuple[str, ...]) -> tuple[Metric, ...]:
  whose = {'': '', '_of_copy': ' of the source itself', '_of_mean': ' of the mean training picture',
           '_of_bicubic': ' of bicubic enlargement'}
  labels = {'l1': 'L1', 'psnr': 'PSNR', 'ssim': 'SSIM', 'lpips': 'LPIPS (VGG16)'}
  return tuple(_translation(name + other, labels[name] + whose[other]) for name in names for other in of)


TRANSLATION = (
  Row('emoji_pix2pix', 'configs/gans/emoji_pix2pix.py', minutes=18, data=('emoji_noto_all',), weights=_PERCEPTUAL,
      overrides={'evaluation.measures': ('l1', 'psnr', 'ssim', 'lpips')},
      metrics=_translated('l1', 'lpips', of=('', '_of_copy', '_of_mean')) + _translated('psnr', 'ssim', of=('',)),
      comparisons=(*_below('l1', 'of_copy', 'of_mean'), *_below('lpips', 'of_copy', 'of_mean')),
      note=f'pix2pix (Isola et al. 2017), edges to emoji. {_OURS} It must be better than two baselines.'),
  Row('sprites_judge', 'configs/classifiers/sprites_attributes.py', minutes=5, data=('lpc_sprites',), metrics=(
    Metric(_JUDGE, (0.99, None), label='sprites with all attributes right', percent=True),),
      note='The judge of attributes of sprites.'),
  Row('sprites_cyclegan', 'configs/gans/sprites_cyclegan.py', minutes=20, data=('lpc_sprites_orcs',),
      uses={'evaluation.parts.judge': 'sprites_judge'},
      overrides={'evaluation.measures': ('l1', 'psnr', 'ssim', 'attributes')}, metrics=(
        _translation('becomes_body', 'drawn as orcs', (0.90, None)),
        *(_translation(f'keeps_{name}', f'{name} kept', (0.85, None)) for name in _KEPT),
        *_translated('psnr', 'ssim', of=('', '_of_copy'))),
      note=f'CycleGAN (Zhu et al. 2017), pale persons to green orcs, unpaired. {_OURS}'),
  Row('emoji_enlarge', 'configs/gans/sprites_enlarge.py', minutes=10, data=('emoji_noto_all',), weights=_PERCEPTUAL,
      overrides={'evaluation.measures': ('l1', 'psnr', 'ssim', 'lpips')},
      metrics=_translated('psnr', 'lpips', of=('', '_of_bicubic')) + _translated('ssim', of=('', '_of_bicubic')),
      comparisons=_below('lpips', 'of_bicubic'),
      note=f'Four times, 16 to 64 pixels, absolute differences alone. {_OURS}'),
  Row('emoji_enlarge_gan', 'configs/gans/sprites_enlarge.py:adversarial', minutes=12, data=('emoji_noto_all',),
      uses={'init_from': 'emoji_enlarge'}, weights={**_PERCEPTUAL, 'parts.perceptual': 'alexnet_lpips'},
      overrides={'evaluation.measures': ('l1', 'psnr', 'ssim', 'lpips')},
      metrics=_translated('psnr', 'lpips', of=('', '_of_bicubic')) + _translated('ssim', of=('', '_of_bicubic')),
      comparisons=_below('lpips', 'of_bicubic'),
      note=f'The row `emoji_enlarge`, trained on with a critic and a perceptual distance. {_OURS} That LPIPS falls '
           'below that of `emoji_enlarge` was expected before the run, and did not come true.'),
)


def _biggan(name: str, minutes: float, measures: tuple[str, ...], label: str, metrics: tuple[Metric, ...],
            note: str, steps: int | None = None, comparisons: tuple[Comparison, ...] = ()) -> Row:
  return Row(
    name, 'configs/gans/cifar10_biggan.py:size=small', minutes=minutes, data=('cifar10',),
    weights={'evaluation.parts.vgg': 'vgg16_lpips'},
    overrides={'evaluation.measures': measures, 'evaluation.extractor': 'vgg', 'evaluation.parts.vgg.side': 32,
               **({} if steps is None else {'steps': steps})},
    metrics=(*metrics, Metric(_FRECHET, (None, None), label=label)), comparisons=comparisons, note=note)


_VGG = 'Fréchet distance in features of VGG16'
_INITIAL = 'cifar10_biggan_small_initial'
CLASSES = (
  _biggan(_INITIAL, 10, ('frechet',), f'{_VGG} before training', (), steps=0,
          note='The network of `cifar10_biggan_small` as it is drawn from the seed.'),
  _biggan('cifar10_biggan_small', 45, ('samples', 'frechet'), _VGG, (
    Metric('samples/label_agreement', (0.2, None), label='samples with the class asked for', percent=True),
    Metric('samples/classes_covered', (10, 10), label='classes covered'),
    Metric('samples/frechet', (None, None), label="Fréchet distance in the classifier's features"),
    Metric('samples/frechet_train', (None, None), label='the same of training images')),
          comparisons=(Comparison(_FRECHET, (None, 0.4), row=_INITIAL),),
          note=f'BigGAN (Brock et al. 2019) at a small width, 4,000 steps. {_OURS} A tenth of the classes is chance.'),
)

_SQUARE = {'data.shape': (32, 32, 3), 'data.resize': 'bilinear'}


def _style(name: str, argument: str, note: str, comparisons: tuple[Comparison, ...] = ()) -> Row:
  return Row(
    name, f'configs/gans/sprites_stylegan2.py{argument}', minutes=45, data=('lpc_sprites',),
    uses={'evaluation.parts.judge': 'sprites_judge_square'},
    overrides={'evaluation.measures': ('frechet', 'precision_recall'), 'evaluation.extractor': 'judge'}, metrics=(
      Metric(_FRECHET, (None, None), label="Fréchet distance in the judge's features"),
      Metric('precision_recall/precision', (None, None), label='precision', percent=True),
      Metric('precision_recall/recall', (None, None), label='recall', percent=True)),
    comparisons=comparisons, note=f'{note} 2,000 sprites of 32 pixels. {_OURS}')


STYLE = (
  Row('sprites_judge_square', 'configs/classifiers/sprites_attributes.py', minutes=5, data=('lpc_sprites',),
      overrides=_SQUARE, metrics=(
        Metric(_JUDGE, (0.97, None), label='sprites with all attributes right', percent=True),),
      note='The judge for sprites that are stretched to squares of 32 pixels.'),
  _style('sprites_stylegan2', '', 'StyleGAN2 without augmentation.'),
  _style('sprites_stylegan2_ada', ':ada=True', 'StyleGAN2 with adaptive augmentation (Karras et al. 2020a).',
         (Comparison(_FRECHET, (None, 1.0), row='sprites_stylegan2'),)),
)

ROWS = TRANSLATION + CLASSES + STYLE
