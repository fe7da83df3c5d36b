"""Whether a run goes on as it began: with the same config, random numbers and, in every process, versions."""

import dataclasses
import json
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax import distributed
from genjax.config import Config
from genjax.runs import builders, defaults, sources
from genjax.runs.assets import read_json
from genjax.runs.workdir import versions
from genjax.training import keys
from genjax.types import UserError

# Where a run is computed, and what watches it; results do not depend on it, so a resumed run may change it.
PLACEMENT = ('mesh.', 'rules.', 'watchdog_seconds', 'data.threads', 'loggers')


def check_alike(config: Config) -> None:
  """Checks that all processes were started with one config and run the same versions.

  Raises:
    UserError: they do not; the message shows the differing keys.
  """
  facts = json.loads(
    json.dumps({'config': config_lib.plain(config), 'versions': versions(), 'random': keys.implementation()}))
  pairs = config_lib.difference(distributed.broadcast(facts, 'config and versions'), facts)
  found = [f'{key} is {here!r} there and {first!r} in process 0' for key, (first, here) in pairs.items()]
  for process, different in enumerate(distributed.gather(found, 'differences of config and versions')):
    if different:
      raise UserError(f'process {process} was started otherwise than process 0: {", ".join(different)}. '
                      'Start all processes with one command and one environment')


def check_same(workdir: pathlib.Path, config: Config) -> int:
  """Checks that a config is the one of an existing run directory, placement aside, and perhaps of more steps.

  A key that one of them lacks has its default, see `genjax.runs.defaults`.

  Returns:
    config.steps of that run.

  Raises:
    UserError: it is another; the message shows the differing keys.
  """
  old = read_json(workdir / 'config.json')
  new = config_lib.plain(config)
  for config_of in (old, new):
    config_of['experiment'] = builders.current_name(config_of['experiment'], [str(workdir)])
    config_of['parts'] = {name: _without_path(given) for name, given in (config_of.get('parts') or {}).items()}
  pairs = defaults.differences(old, new, ignored=(*PLACEMENT, 'assets.'))
  if pairs.get('steps') and new['steps'] > old['steps']:
    del pairs['steps']
  if pairs:
    lines = '\n'.join(f'  {key}: {was!r} there, {now!r} now' + (' (it may only grow)' if key == 'steps' else '')
                      for key, (was, now) in pairs.items())
    raise UserError(
      f'--workdir={workdir} holds a run of another config:\n{lines}\nUse another --workdir, or go on with the config '
      f'of that run: genjax train --workdir={workdir}')
  return old['steps']


def _without_path(given: Any) -> dict[str, Any]:
  """The options of a part that decide what is computed. Its parameters are compared wherever they are, so that it may
  be moved."""
  usual = config_lib.plain(dataclasses.asdict(sources.Options('')))
  return {**usual, **(given if isinstance(given, dict) else {}), 'path': ''}


def check_random(workdir: pathlib.Path) -> None:
  """Checks that random numbers are drawn as those of an existing run directory were.

  Raises:
    UserError: by another implementation; the steps would go on with other numbers than those of one undisturbed run.
  """
  before, now = read_json(workdir / 'run.json').get('random'), keys.implementation()
  if before is not None and before != now:  # runs of before it was recorded have none
    raise UserError(
      f'--workdir={workdir} holds a run whose random numbers are drawn by {before!r}, and this process draws them by '
      f'{now!r}; set JAX_DEFAULT_PRNG_IMPL and JAX_THREEFRY_PARTITIONABLE as they were, or use another --workdir')
