"""Writes a run of diffusion with its parts as a whole pipeline, which `diffusers` loads."""

from collections.abc import Callable, Mapping
import json
import pathlib
import shutil
from typing import Any

from genjax import config as config_lib
from genjax import interop
from genjax.config import Config
from genjax.experiments import diffusion, imported, pipelines, public_configs
from genjax.experiments.pipeline_interface import AUTOENCODER, Family
from genjax.interop import files, schedulers, weights
from genjax.interop import pipelines as index
from genjax.interop.entries import read_json
from genjax.runs import sources
from genjax.types import Tree

TOKENIZERS = ('tokenizer.json', 'tokenizer_config.json', 'vocab.json', 'merges.txt', 'special_tokens_map.json',
              'added_tokens.json', 'spiece.model', 'tokenizer.model', 'vocab.txt')
WritePart = Callable[[pathlib.Path, pathlib.Path, int | None, str | None], None]


def family_of(config: Config, kept: Mapping[str, bytes]) -> tuple[str, Family] | None:
  """The class of pipelines that a run is written as, and its family; None for a run that is no pipeline.

  Args:
    config: of the run.
    kept: the files that the run keeps.
  """
  if config.experiment != diffusion.__name__:
    return None
  kind = told(kept).get('pipeline', {}).get(index.CLASS)
  if kind is not None:
    return kind, pipelines.FAMILIES[kind]
  return next(((name, family) for name, family in pipelines.FAMILIES.items()
               if family.model == config.model.name and family.fits(config)
               and family.autoencoder == (AUTOENCODER in sources.names(config))), None)


def told(kept: Mapping[str, bytes]) -> dict[str, Any]:
  """What a run keeps of the public model that it was imported from."""
  return json.loads(kept[imported.PUBLIC]) if imported.PUBLIC in kept else {}


def write(folder: pathlib.Path, config: Config, net: Tree, kept: Mapping[str, bytes], dtype: str | None,
          write_part: WritePart) -> None:
  """Writes the pipeline of a run. Writing is atomic.

  Args:
    folder: a new folder.
    config: of the run, whose parts are where it says.
    net: parameters of the denoiser.
    kept: the files that the run keeps.
    dtype: of the tensors; None for that of the parameters. Parts that are public folders are then copied as they are.
    write_part: (new folder, folder of a run, step, dtype) -> None, which writes a part that is a run.

  Raises:
    UserError: see `genjax.interop.save` and `genjax.interop.schedulers.write`.
  """
  found = family_of(config, kept)
  assert found is not None
  kind, family = found
  known = told(kept)
  scheduler = _scheduler(config, known.get('scheduler'), kind)
  model = interop.Model(family.architecture, diffusion.model_options(config),
                        weights.ARCHITECTURES[family.architecture].network(diffusion.model_options(config)), net, {},
                        known.get('config', {}))
  with files.new_folder(folder) as partial:
    interop.save(partial / family.denoiser, model, net, dtype=dtype)
    components = {family.denoiser: ['diffusers', family.architecture],
                  'scheduler': ['diffusers', scheduler[index.CLASS]], **_parts(partial, config, dtype, write_part)}
    before = known.get('pipeline', family.settings)
    # A component that is not read is named by the index alone, so that diffusers loads the pipeline without it.
    settings = {name: [None, None] if isinstance(value, list) else value for name, value in before.items()
                if name != index.CLASS}
    same = {name: before[name] for name in components if isinstance(before.get(name), list) and name != 'scheduler'
            and before[name][1] is not None}
    index.write_index(partial, kind, {**components, **same}, settings, scheduler)


def _parts(folder: pathlib.Path, config: Config, dtype: str | None, write_part: WritePart) -> dict[str, list[str]]:
  """Writes autoencoder, text encoders and their tokenizers; name -> [library, class]."""
  components = {}
  if AUTOENCODER in sources.names(config):
    _write_component(folder / 'vae', sources.source(config, AUTOENCODER), dtype, write_part)
    components['vae'] = ['diffusers', read_json(folder / 'vae' / 'config.json', 'of the autoencoder')[index.CLASS]]
  for place, part in enumerate(text_parts(config)):
    name = part if part in index.TEXTS else index.TEXTS[place]
    source = sources.source(config, part)
    _write_component(folder / name, source, dtype, write_part)
    kinds = read_json(folder / name / 'config.json', 'of the text encoder').get('architectures') or ['CLIPTextModel']
    tokenizer = name.replace(public_configs.TEXT_ENCODER, public_configs.TOKENIZER)
    _copy(public_configs.tokenizer_folder(pathlib.Path(source.path)), folder / tokenizer, TOKENIZERS)
    settings = folder / tokenizer / 'tokenizer_config.json'
    usual = 'CLIPTokenizer' if 'CLIP' in kinds[0] else 'T5TokenizerFast'
    chosen = read_json(settings, 'of the tokenizer').get('tokenizer_class') if settings.is_file() else None
    components |= {name: ['transformers', kinds[0]], tokenizer: ['transformers', chosen or usual]}
  return components


def text_parts(config: Config) -> tuple[str, ...]:
  """The text encoders that the conditions of a run read, in order."""
  found: list[str] = []
  for options in config_lib.plain(config.get('conditions') or {}).values():
    if options.get('kind') == 'prompt':
      found += options['parts']
    elif options.get('kind') == 'text' and options.get('part'):
      found.append(options['part'])
  return tuple(found)


def _write_component(to: pathlib.Path, source: Any, dtype: str | None, write_part: WritePart) -> None:
  """Writes a part: a public folder as it is, byte by byte, where no other type is asked for."""
  folder = pathlib.Path(source.path)
  if (folder / 'run.json').is_file():
    write_part(to, folder, source.step, dtype)
  elif dtype is not None:
    interop.save(to, interop.load(folder, variant=source.variant), dtype=dtype)
  else:
    _copy(folder, to, ('config.json', *sorted(path.name for pattern in ('*.safetensors', '*.safetensors.index*.json')
                                              for path in folder.glob(pattern))))


def _copy(source: pathlib.Path, to: pathlib.Path, names: tuple[str, ...]) -> None:
  to.mkdir(exist_ok=True)
  for name in names:
    if (source / name).is_file():
      shutil.copyfile(source / name, to / name)


def _scheduler(config: Config, before: Mapping[str, Any] | None, kind: str) -> dict[str, Any]:
  """scheduler_config.json of a run: the one that it was imported with, while it says the same."""
  goal, sampler = (config_lib.plain(section) for section in (config.objective, config.sampler))
  now = schedulers.write(goal['process'], goal['parameterization'], sampler)
  if before is None:
    return now
  read = [schedulers.read(each, index.SCHEDULER, kind) for each in (before, now)]
  return dict(before) if read[0] == read[1] else now
