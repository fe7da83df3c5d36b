"""Where a run writes what it measured: JSON lines and TensorBoard, and files for samples."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboard.compat.proto.types_pb2 import DT_STRING  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from genjax import artifacts, distributed
from genjax.artifacts import Artifact, Clip, Sound
from genjax.types import strict_json


class Writer:
  """Logs of one run below `workdir`; processes other than the first write nothing.

  metrics.jsonl: one object a line, {'step': s, name: value, ...}; null stands for NaN and infinities. tensorboard/: the
  same, with pictures, clips, sounds and texts.
  samples/: step_<s>_<name> with the endings of `genjax.artifacts.write_shown`.

  Args:
    workdir: the run directory.
    texts: name -> text that TensorBoard shows from the start, such as the config.
  """

  def __init__(self, workdir: pathlib.Path, texts: Mapping[str, str] | None = None):
    self.workdir, self.texts = workdir, dict(texts or {})
    self.active = distributed.is_first()
    self._board: EventFileWriter | None = None

  def start(self, step: int) -> None:
    """Opens the logs of a run that continues after `step`: lines of later steps, which will be run again, are
    dropped."""
    if not self.active:
      return
    path = self.workdir / 'metrics.jsonl'
    if path.exists():
      lines = path.read_bytes().splitlines(keepends=True)
      known = [_step_of(line) for line in lines]
      if lost := known[:-1].count(None):  # a last line may have been cut off
        say(f'{path}: {lost} damaged lines are left out')
      kept = [line for line, at in zip(lines, known) if line.endswith(b'\n') and at is not None and at <= step]
      if len(kept) < len(lines):
        partial = path.with_name(f'{path.name}.partial')
        partial.write_bytes(b''.join(kept))
        partial.replace(path)
    self._board = EventFileWriter(str(self.workdir / 'tensorboard'))
    if step:
      # TensorBoard then drops what an earlier process logged for later steps.
      self._board.add_event(Event(wall_time=time.time(), step=step + 1,
                                  session_log=SessionLog(status=SessionLog.START)))
    self._log(step, [_text(name, text) for name, text in self.texts.items()])

  def has(self, step: int, prefix: str) -> bool:
    """Whether there is a line of `step` with a value whose name begins with `prefix`."""
    path = self.workdir / 'metrics.jsonl'
    lines = path.read_bytes().splitlines() if path.exists() else []
    return any(_step_of(line) == step and any(name.startswith(prefix) for name in json.loads(line)) for line in lines)

  def sampled(self, step: int) -> bool:
    """Whether there is a file of samples of `step`."""
    return any((self.workdir / 'samples').glob(f'step_{step:07d}_*'))

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """One line of metrics."""
    if self._board is None:
      return
    with open(self.workdir / 'metrics.jsonl', 'a') as lines:
      lines.write(strict_json({'step': step, **{name: float(f'{value:.8g}') for name, value in values.items()}}) + '\n')
    self._log(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

  def artifact(self, step: int, name: str, value: Artifact) -> list[pathlib.Path]:
    """A picture, clip, sound or text; returns the files."""
    if self._board is None:
      return []
    paths = artifacts.write_shown(self.workdir / 'samples' / f'step_{step:07d}_{name}', value)
    self._log(step, _shown(name, value))
    return paths

  def histogram(self, step: int, name: str, counts: np.ndarray, low: float, high: float, total: float,
                square: float) -> None:
    """A histogram for TensorBoard.

    Args:
      step, name: what it is of.
      counts: entries in bins of equal width from `low` to `high`.
      low, high: smallest and largest entry; not finite where there is none, and nothing is then written.
      total, square: sum of the entries and of their squares.
    """
    if np.isfinite(low) and np.isfinite(high):
      limits = np.linspace(low, high, len(counts) + 1)[1:]
      values = HistogramProto(min=float(low), max=float(high), num=float(np.sum(counts)), sum=float(total),
                              sum_squares=float(square), bucket_limit=limits.tolist(), bucket=counts.tolist())
      self._log(step, [Summary.Value(tag=name, histo=values)])

  def _log(self, step: int, values: list[Any]) -> None:
    if self._board is not None:
      self._board.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

  def close(self) -> None:
    """Flushes."""
    if self._board is not None:
      self._board.close()
      self._board = None


def _shown(name: str, value: Artifact) -> list[Any]:
  """An artifact as TensorBoard shows it: a clip is an animated .gif, a sound comes with its spectrogram."""
  if isinstance(value, str):
    return [_text(name, value)]
  if isinstance(value, Clip):
    return [_image(name, value.frames_THWC.shape[1:], artifacts.encode(value, '.gif'))]
  if isinstance(value, Sound):
    length, channels = value.two_axes().shape
    audio = Summary.Audio(sample_rate=value.rate, num_channels=channels, length_frames=length,
                          encoded_audio_string=artifacts.encode(value, '.wav'), content_type='audio/wav')
    return [Summary.Value(tag=name, audio=audio), *_shown(f'{name}_spectrogram', artifacts.spectrogram(value))]
  return [_image(name, value.shape, artifacts.encode(value, '.png'))]


def _image(name: str, shape: Sequence[int], data: bytes) -> Any:
  height, width, channels = shape
  image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=data)
  return Summary.Value(tag=name, image=image)


def _text(name: str, text: str) -> Any:
  """A text as TensorBoard shows it, with its line breaks."""
  metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name='text'))
  tensor = TensorProto(dtype=DT_STRING, string_val=[f'```\n{text}\n```'.encode(errors='backslashreplace')])
  return Summary.Value(tag=name, metadata=metadata, tensor=tensor)


def _step_of(line: bytes) -> int | None:
  """The step of a line of metrics; None for a line that is none, as a machine that lost its power may leave one."""
  try:
    return int(json.loads(line)['step'])
  except (ValueError, KeyError, TypeError):
    return None


_titles: list[str] = []  # of the work that is done now, the outermost first


@contextlib.contextmanager
def inside(title: str) -> Iterator[None]:
  """Marks work that another work needs: each line of `say` begins with its title."""
  _titles.append(title)
  try:
    yield
  finally:
    _titles.pop()


def title() -> str:
  """What lines begin with; empty for work that a person asked for."""
  return ''.join(f'{name}: ' for name in _titles)


def say(*words: Any) -> None:
  """A line for the person at the terminal, on standard error: standard output is for results."""
  if distributed.is_first():
    lines = ' '.join(map(str, words)).split('\n')
    print('\n'.join(title() + line if line else line for line in lines), file=sys.stderr, flush=True)
