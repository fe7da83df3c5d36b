"""The sections of a config that several builders have, see `genjax.options`."""

from collections.abc import Mapping
import dataclasses

from genjax.config import Config
from genjax.nn.attention.self_attention import RopeScaling
from genjax.objectives.seq2seq import Tokens
from genjax.options import Section
from genjax.training.optimization import optimizers

MADE = {'shape': 'config.data.shape', 'num_classes': 'config.data.num_classes'}  # what models take from the data


@dataclasses.dataclass(frozen=True)
class Splits:
  """The data that any builder reads.

  Attributes:
    name: of a data set.
    train: split to train on, such as 'train[:90%]'.
    heldout: split to evaluate on.
    data_dir: folder of prepared sets; '' for TFDS_DATA_DIR, else ~/tensorflow_datasets.
    originals: folder of the original files of a set that is not prepared yet; '' to download them.
  """

  name: str
  train: str
  heldout: str
  data_dir: str = ''
  originals: str = ''


def training(config: Config) -> dict[str, Section]:
  """The optimizers of all groups that the config names."""
  return {f'optimizers.{group}': optimizer(options) for group, options in config.optimizers.items()}


def optimizer(options: Mapping) -> Section:
  """The optimizer of one group."""
  name = options.get('name')
  own = optimizers.parts_of(name) if name in optimizers.OPTIMIZERS else ()
  others = {other: optimizers.parts_of(other) for other in optimizers.OPTIMIZERS}
  computed = {'where': '', optimizers.RATED: ''}  # which a whole optimizer takes, and the schedule gives
  return Section((*own, optimizers.make), computed, {'steps': None}, names=tuple(optimizers.OPTIMIZERS), others=others)


def special_tokens(config: Config) -> dict[str, Section]:
  """The tokens with a meaning of their own, of data with the tokenizer of a public model."""
  tokenized = {'data.tokens': Section((Tokens,), {'begins': 'config.data.begin'})}
  return tokenized if config.data.get('vocabulary') else {}


def scaled_positions(config: Config, where: str = 'model') -> dict[str, Section]:
  """The options of rotary positions for long contexts, of a model that has them."""
  given = config[where].get('rope_scaling')
  return {f'{where}.rope_scaling': Section((RopeScaling,))} if given else {}
