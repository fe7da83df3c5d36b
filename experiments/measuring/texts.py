"""Whether pictures fit the texts that they were drawn for: CLIP score and retrieval."""

from typing import Any

import numpy as np

from genjax.experiments.measuring import extracting
from genjax.experiments.measuring.samples import Group, Values
from genjax.metrics import retrieval
from genjax.training.experiment import Columns
from genjax.types import UserError


class Texts(Group):
  """CLIP score and recall at k, in the space of a part of the kind `joint`. Only vectors are kept."""

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    options, subject = self._options, self._subject
    self._condition = condition(subject.config, options.text)
    if 'retrieval' in self._chosen and max(options.recall_at) > options.num_samples:
      raise UserError(f'config.evaluation.recall_at={options.recall_at} needs at least {max(options.recall_at)} '
                      f'samples, got config.evaluation.num_samples={options.num_samples}')
    extractor = extracting.open(subject.config, options.joint, 'joint', 'joint')
    functions = extractor.functions
    self._prepare = extracting.fits(extractor, subject.shape, f'{subject.name} of this run')
    self._tokenize = functions.tokenize
    self._image, self._text = extractor.apply(functions.image), extractor.apply(functions.text)
    facts = {'extractor': extractor.card, 'texts': f'of the condition {self._condition!r}; those of the held-out '
             'split in their order where the config names no defaults, longer ones cut off'}
    own = {'clip_score': {'scale': 100.0}, 'retrieval': {'recall_at': list(options.recall_at)}}
    return {name: {**facts, **own[name]} for name in self._chosen}

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    del seed
    self._images: list[np.ndarray] = []
    self._texts: list[np.ndarray] = []
    self._said: list[str] = []

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    texts = [str(text) for text in part[self._condition]]
    ids_BL, mask_BL = self._tokenize(texts, True)
    self._images.append(self._image(self._prepare(part[self._subject.column])))
    self._texts.append(self._text(ids_BL, mask_BL))
    self._said += texts

  def values(self) -> Values:
    """See `samples.Group`."""
    image_ND, text_ND = np.concatenate(self._images), np.concatenate(self._texts)
    found: Values = {}
    if 'clip_score' in self._chosen:
      found['clip_score'] = {'mean': float(retrieval.clip_score(image_ND, text_ND).mean())}
    if 'retrieval' in self._chosen:
      group_N, at = np.unique(self._said, return_inverse=True)[1], self._options.recall_at
      found['retrieval'] = {
        **{f'text_of_image_{k}': value for k, value in retrieval.recall(image_ND, text_ND, at, group_N).items()},
        **{f'image_of_text_{k}': value for k, value in retrieval.recall(text_ND, image_ND, at, group_N).items()}}
    return found

  def close(self) -> None:
    """See `samples.Group`."""
    self._images, self._texts, self._said = [], [], []


def condition(config: Any, name: str) -> str:
  """The condition whose texts are compared.

  Raises:
    UserError: the model has none of that name, or none or several where none is named.
  """
  known = [key for key, given in (config.get('conditions') or {}).items() if given.get('kind') == 'text']
  if name not in known and (name or len(known) != 1):
    raise UserError(f'config.evaluation.text={name!r} must name a condition that is a text; this run has '
                    f'{known or "none"}')
  return name or known[0]
