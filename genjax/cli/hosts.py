"""Flags with which the processes of a run on several hosts find each other, for commands of either flag library."""

import argparse
import dataclasses
from typing import Any

from absl import flags

from genjax.cluster import Options

_HELP = {
  'coordinator': "HOST:PORT of process 0, for a run of several processes; TPU pods, Slurm and Kubernetes need no such "
                 "flag (docs/pods.md)",
  'num_processes': 'how many processes there are; 1 looks for no others',
  'process_id': 'which of them this is, from 0',
  'start_timeout': 'seconds until all processes must have come',
  'peer_timeout': 'seconds without a sign of life after which a process counts as lost',
}


def define(values: flags.FlagValues) -> None:
  """Adds the flags to absl's."""
  for field in dataclasses.fields(Options):
    define_one = {str: flags.DEFINE_string, float: flags.DEFINE_float}.get(type(field.default), flags.DEFINE_integer)
    define_one(field.name, field.default, _HELP[field.name], flag_values=values)


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to an `argparse` parser."""
  group = parser.add_argument_group('several processes')
  for field in dataclasses.fields(Options):
    kind: Any = {str: str, float: float}.get(type(field.default), int)
    group.add_argument(f'--{field.name}', type=kind, default=field.default, help=_HELP[field.name])


def options(values: Any) -> Options:
  """What the flags say; `values` has an attribute for each."""
  return Options(**{field.name: getattr(values, field.name) for field in dataclasses.fields(Options)})
