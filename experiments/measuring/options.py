"""What config.evaluation may hold for measures of samples and of reconstructions."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from genjax import checks

FEATURES = ('frechet', 'kernel', 'inception_score', 'precision_recall', 'density_coverage')  # of an extractor
TEXTS = ('clip_score', 'retrieval')  # of pictures and the texts that they were drawn for
ATTRIBUTES = ('attributes',)  # of pictures and what texts ask for
LABELS = ('accuracy_score',)  # of pictures and the labels that they were drawn for
NEIGHBOURS = ('neighbours', 'class_shares')  # of pictures, the training pictures and a classifier
PAIRS = ('psnr', 'ssim', 'lpips')  # of reconstructions and originals
OWN = ('samples',)  # what is computed of pictures where nothing is chosen
NAMES = (*FEATURES, *TEXTS, *ATTRIBUTES, *LABELS, *NEIGHBOURS, *PAIRS, *OWN)


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures; docs/measures.md says what each of them needs.

  Attributes:
    num_samples: samples that are drawn for all measures together.
    metrics: names in `genjax.metrics.named.METRICS`, computed beside these.
    measures: what is computed, each one of `genjax.experiments.measuring.options.NAMES`; () for 'samples' where there
      is a classifier of the data.
    extractor: entry of `parts` whose features and logits judge samples.
    perceptual: entry of `parts` that is the network of LPIPS.
    joint: entry of `parts` that has pictures and texts in one space, such as CLIP.
    parts: extractors by name, each as in config.parts: RUN_DIR, RUN_DIR@STEP, a folder of public weights, or a dict of
      the options of `genjax.runs.sources.Judge`.
    reference: split of the data that samples are compared with; '' for the held-out one.
    reference_data: config.data.name of the pictures that samples are compared with; '' for that of the run, which
      holds no pictures if it is encoded.
    kernel_size: samples of a subset of the kernel distance; 0 for 1000, or less so that there are ten subsets.
    kernel_subsets: most subsets of the kernel distance.
    splits: of the inception score.
    nearest: neighbour to which balls reach, for precision and recall.
    nearest_density: neighbour to which balls reach, for density and coverage.
    recall_at: numbers k of the recall at k.
    text: the condition whose texts samples are compared with; '' for the only one.
    judge: entry of `parts` that reads attributes off pictures; scenes need none.
    unseen: column of the held-out split that is not 0 where training holds out a combination; '' for none.
    compared: training pictures that samples are compared with, for copies, by 'attributes' and 'neighbours'.
  """

  num_samples: int = 2000
  metrics: tuple[str, ...] = ()
  measures: tuple[str, ...] = ()
  extractor: str = ''
  perceptual: str = 'lpips'
  joint: str = 'clip'
  parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  reference: str = ''
  reference_data: str = ''
  kernel_size: int = 0
  kernel_subsets: int = 100
  splits: int = 10
  nearest: int = 3
  nearest_density: int = 5
  recall_at: tuple[int, ...] = (1, 5, 10)
  text: str = ''
  judge: str = 'judge'
  unseen: str = ''
  compared: int = 10_000

  def __post_init__(self):
    checks.whole(self, 2, 'num_samples')
    checks.whole(self, 0, 'kernel_size')
    checks.whole(self, 1, 'kernel_subsets', 'splits', 'nearest', 'nearest_density', 'recall_at')
    if self.kernel_size == 1:
      raise checks.OutOfRange('kernel_size must be 0, or at least 2, got 1')
    if not self.recall_at:
      raise checks.OutOfRange('recall_at must name at least one number, got none')
    if not isinstance(self.measures, tuple):
      raise checks.OutOfRange(f'measures must be a list of names, got {self.measures!r}')
