"""Logs can be read back: JSON lines, TensorBoard events, files."""

import json

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genjax.training.monitoring import logs


def test_what_is_written_can_be_read(tmp_path):
  writer = logs.Writer(tmp_path)
  writer.start(0)
  for step in (1, 2, 3):
    writer.scalars(step, {'loss': 1 / step})
  (picture,) = writer.artifact(3, 'samples', np.full((4, 5, 3), 7, np.uint8))
  (text,) = writer.artifact(3, 'text', 'To be, or not')
  writer.close()

  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2, 3] and lines[1]['loss'] == 0.5
  with Image.open(picture) as image:
    assert image.size == (5, 4)
  assert text.read_text() == 'To be, or not'
  board = EventAccumulator(str(tmp_path / 'tensorboard'))
  board.Reload()
  assert [(event.step, event.value) for event in board.Scalars('loss')][1] == (2, 0.5)
  assert board.Images('samples')[0].width == 5
  assert b'To be' in board.Tensors('text')[0].tensor_proto.string_val[0]


def test_nan_and_infinity_are_null_in_json_lines(tmp_path):
  writer = logs.Writer(tmp_path)
  writer.start(0)
  writer.scalars(1, {'loss': float('nan'), 'rate': float('inf'), 'other': 2.0})
  writer.close()

  def refuse(word):
    raise AssertionError(word)

  line = json.loads((tmp_path / 'metrics.jsonl').read_text(), parse_constant=refuse)
  assert line == {'step': 1, 'loss': None, 'rate': None, 'other': 2.0}
  assert logs.Writer(tmp_path).has(1, 'loss')


def test_a_resumed_run_drops_lines_that_will_be_written_again(tmp_path):
  for start, steps in ((0, (1, 2, 3, 4)), (2, (3,))):
    writer = logs.Writer(tmp_path)
    writer.start(start)
    for step in steps:
      writer.scalars(step, {'loss': float(step + 10 * start)})
    writer.close()
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['loss'] for line in lines] == [1, 2, 23]


def test_damaged_lines_are_left_out_and_said(tmp_path, capsys):
  """As a machine that lost its power, or an editor, may leave them."""
  path = tmp_path / 'metrics.jsonl'
  for damage in (b'\0\0\0\n', b'\n', b'{"loss": 1}\n', b'\xff\n', b'[]\n'):
    path.write_bytes(b'{"step": 1, "loss": 1}\n' + damage + b'{"step": 2, "loss": 2}\n{"step": 3, "lo')
    assert logs.Writer(tmp_path).has(2, 'loss') and not logs.Writer(tmp_path).has(3, 'lo')
    writer = logs.Writer(tmp_path)
    writer.start(2)
    writer.close()
    assert path.read_bytes() == b'{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n'
    assert '1 damaged lines are left out' in capsys.readouterr().err
