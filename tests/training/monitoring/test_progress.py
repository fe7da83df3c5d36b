"""What a terminal shows: messages stand above the bar, each on a line of its own."""

import io
import logging
import sys

from genjax.training import hooks, loop
from genjax.training.monitoring import logs, progress


class Terminal(io.StringIO):
  """Keeps what is written, and shows the lines as a terminal would."""

  def isatty(self):
    return True

  def lines(self):
    shown = []
    for written in self.getvalue().split('\n'):
      line = ''
      for part in written.split('\r'):
        line = part + line[len(part):]
      shown.append(line.rstrip())
    return shown


def test_messages_of_all_kinds_leave_the_bar_whole(monkeypatch):
  terminal = Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  logger = logging.getLogger('test_progress')
  handler = logging.StreamHandler()  # keeps the terminal as its stream
  handler.setFormatter(logging.Formatter('%(name)s: %(message)s'))
  logger.addHandler(handler)
  bar = progress.Bar(total=10, done=0, title='classifier')
  bar.advance()
  bar.show('loss 0.5')
  logs.say('said')
  logger.warning('logged')
  print('printed', file=sys.stderr)
  bar.advance()
  bar.close()
  logger.removeHandler(handler)
  shown = terminal.lines()
  words = ('said', 'test_progress: logged', 'printed')
  assert [line for line in shown if line in words] == list(words)
  bars = [line for line in shown if '/10' in line]
  assert len(bars) == 1 and bars[0].startswith('classifier:') and bars[0].endswith('loss 0.5]')
  assert sys.stderr is terminal and handler.stream is terminal


def test_the_bar_shows_speed_loss_gradient_norm_and_rate(monkeypatch, small_run, tmp_path):
  terminal = Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  monkeypatch.setenv('COLUMNS', '300')
  run, log = small_run(), hooks.Log(logs.Writer(tmp_path), every=4)

  class Talks(hooks.Hook):
    def after_step(self, run, metrics):
      logs.say(f'step {run.step} talks')

  loop.train(run, [log, Talks()])
  shown = terminal.lines()
  assert [line for line in shown if 'talks' in line] == [f'step {step} talks' for step in range(1, 13)]
  last, = (line for line in shown if '12/12' in line)
  assert all(words in last for words in ('step/s', 'first/loss ', 'second/gradient_norm ', 'examples/s'))


def test_lines_where_there_is_no_terminal(small_run, tmp_path, capsys):
  with logs.inside('classifier'):
    loop.train(small_run(), [hooks.Log(logs.Writer(tmp_path), every=6)])
  lines = capsys.readouterr().err.splitlines()
  assert [line.split('  ')[0] for line in lines] == ['classifier: step 6/12', 'classifier: step 12/12']
  assert all(word in lines[0] for word in ('first/loss', 'first/gradient_norm', 'examples/s', 'ETA'))
  assert '\r' not in lines[0]
