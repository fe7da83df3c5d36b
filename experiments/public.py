"""Runs of public models: from a folder in the layout of `transformers` to a config with parameters, and back."""

from collections.abc import Callable, Mapping
import copy
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from configs import common
from experiments import language
from genjax import config as config_lib
from genjax import interop
from genjax.config import Config
from genjax.data import tokenizers
from genjax.interop import files, peft
from genjax.models.transformer import TransformerConfig, transformer
from genjax.nn import lora
from genjax.types import Params, Tree, UserError


class Imported(NamedTuple):
  """config: of the run. params: group -> parameters. mutable: see `Variables`. files: what the run keeps beside its config."""

  config: Config
  params: Params
  mutable: Tree
  files: dict[str, bytes]


def read(folder: pathlib.Path, dtype: str | None) -> Imported:
  """The run that a public model begins.

  Its config trains no step and has no data; its optimizer has no state, so that the run is no larger than the model.

  Args:
    folder: see `genjax.interop.load`.
    dtype: of the parameters; None for that of the files.

  Raises:
    UserError: see `genjax.interop.load` and `genjax.data.tokenizers.open_tokenizer`; or no builder makes runs of such a model.
  """
  model = interop.load(folder, dtype)
  if type(model.config) not in CONFIGS:
    raise UserError(f'{folder}: a {model.architecture} can be loaded (genjax.interop.load), but no run can be made of it: no experiment '
                    f'has a {type(model.config).__name__}')
  config = CONFIGS[type(model.config)](model.config, folder)
  told = {'architecture': model.architecture, 'config': dict(model.source)}
  return Imported(config, {'net': model.params}, model.mutable, {language.PUBLIC: (json.dumps(told, indent=2) + '\n').encode()})


def write(folder: pathlib.Path, config: Config, params: Params, kept: Mapping[str, bytes], dtype: str | None) -> None:
  """Writes the model of a run as a folder that `transformers` loads, tokenizer included; it appears when all of it is written.

  Args:
    folder: a new folder.
    config: of the run.
    params: group -> parameters.
    kept: the files that the run keeps.
    dtype: of the tensors; None for that of the parameters.

  Raises:
    UserError: see `genjax.interop.save`; or the run is not of a family with public architectures.
  """
  options, model = _model(config, params, kept)
  with files.new_folder(folder) as partial:
    interop.save(partial, model or options, params['net'], dtype=dtype)
    for name, data in kept.items():
      if name != language.PUBLIC:
        (partial / name).write_bytes(data)


def read_adapter(folder: pathlib.Path, base: Config, params: Params, kept: Mapping[str, bytes]) -> Imported:
  """The run with adapters that a folder of PEFT begins; its config names no base yet.

  Args:
    folder: see `genjax.interop.peft.load`.
    base, params, kept: config, parameters and files of the run that the adapters are of.

  Raises:
    UserError: see `genjax.interop.peft.load`; or a base that is not in the tables of public architectures.
  """
  adapter = peft.load(folder, _public(base, params, kept))
  config = copy.deepcopy(base)
  with config.unlocked():
    config.steps = 0
    config.lora = {**dataclasses.asdict(adapter.options), 'groups': ('net',)}
  return Imported(config, {'lora': adapter.params}, {}, {})


def write_adapter(folder: pathlib.Path, config: Config, params: Params, frozen: Params, kept: Mapping[str, bytes]) -> None:
  """Writes the adapters of a run as a folder that PEFT loads.

  Args:
    folder: a new folder.
    config: of the run.
    params: its adapters.
    frozen: the parameters that they adapt.
    kept: the files that the run keeps.

  Raises:
    UserError: see `genjax.interop.peft.save`.
  """
  given = config_lib.plain(config.lora)
  del given['groups']
  options = config_lib.build(lora.Options, given, 'config.lora')
  peft.save(folder, _public(config, frozen, kept), peft.Adapter(options, params['lora']), config.init_from)


def _model(config: Config, params: Params, kept: Mapping[str, bytes]) -> tuple[TransformerConfig, interop.Model | None]:
  """The options of a run's model; and the model, if it was a public one."""
  if config.experiment != language.__name__:
    raise UserError(f'runs of {config.experiment} have no public architecture; those of {language.__name__} have')
  net = params['net']
  options = language.model_options(config, len(net['embedding']['token']['embedding']))
  if language.PUBLIC not in kept:
    return options, None
  told = json.loads(kept[language.PUBLIC])
  return options, interop.Model(told['architecture'], options, transformer(options), net, {}, told['config'])


def _public(config: Config, params: Params, kept: Mapping[str, bytes]) -> interop.Model:
  """The model of a run under the name of its public architecture."""
  options, model = _model(config, params, kept)
  return model or interop.Model(interop.architecture_of(options), options, transformer(options), params['net'], {}, {})


def _language_model(options: TransformerConfig, folder: pathlib.Path) -> Config:
  config = common.base(steps=0, batch_size=8)
  config.experiment = language.__name__
  vocabulary, start = 'ids', '0'
  if any((folder / name).is_file() for name in (tokenizers.LIBRARY, tokenizers.SENTENCEPIECE)):
    vocabulary, start = str(folder.absolute()), _start(tokenizers.open_tokenizer(folder))
  config.data = dict(name='', train='train', heldout='train', field='text', separator='', vocabulary=vocabulary,
                     vocabulary_size=options.vocab, context=options.context, heldout_stride=0, start=start, segments=False, data_dir='',
                     originals='')
  given = dataclasses.asdict(options)
  del given['vocab']
  config.model = dict(name='gpt', **given)
  config.sampler = dict(common.TOKENS, length=min(256, options.context), temperature=0.8, top_p=0.95)
  config.optimizers.net = dict(name='sgd', lr=1e-4, b2=0.95, weight_decay=0.0, clip=1.0, warmup=0, schedule='constant', end=0.1)
  return config.lock()


def _start(tokenizer: tokenizers.Tokenizer) -> str:
  """A prompt that stands for none: nothing but the beginning of a text, or as little as there is."""
  if tokenizer.begins:
    return ''
  first = tokenizer.special.get('bos', tokenizer.special.get('eos'))
  texts = [*([] if first is None else [tokenizer.decode([first])]), '\n', ' ', 'a']
  return next((text for text in texts if len(tokenizer.encode(text))), texts[-1])


CONFIGS: dict[type, Callable[[Any, pathlib.Path], Config]] = {TransformerConfig: _language_model}
