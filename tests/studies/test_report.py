"""The parts of a page: what it reads, what fits, what is escaped; test_report_browser.py opens pages."""

import io
import json
import os
import re

import numpy as np
from PIL import Image
import pytest

from genjax.cli.main import main
from genjax.studies import queues
from genjax.studies.report import facts, lines, media, page
from genjax.types import UserError


def picture(side, seed=0):
  """A PNG of noise."""
  file = io.BytesIO()
  noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
  Image.fromarray(noise).save(file, 'PNG')
  return file.getvalue()


def test_what_happened_is_read_with_or_without_a_record(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'a', loss=0.5)
  (folder / 'summary.json').write_text(json.dumps({'step': 10, 'skipped': 2, 'rollbacks': [[4, 7]]}))
  status = json.loads((folder / 'status.json').read_text())
  (folder / 'status.json').write_text(json.dumps({**status, 'attempt': 3, 'reached': 8}))
  assert [(event.kind, event.step) for event in facts.read(folder).events] == [
    ('resumed', 8), ('rolled back', 7), ('skipped', 10)]
  entries = [{'time': 't', 'step': index, 'event': 'skipped', 'text': ''} for index in range(500)]
  (folder / 'events.jsonl').write_text('\n'.join(map(json.dumps, entries)) + '\n{"time": "t", "st')
  found = facts.read(folder)
  assert (len(found.events), found.left_out, found.events[-1].step) == (400, 100, 499)


def test_a_failed_run_shows_the_end_of_its_log(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'a', step=3, job={'command': 'train', 'exit': 3})
  (folder / 'job.log').write_text('\n'.join(f'line {index}' for index in range(100)) + '\nbar 1\rbar 2\n')
  log = facts.read(folder).logs[0]
  assert (log.name, log.text.splitlines()[-2:]) == ('job.log', ['line 99', 'bar 2'])
  assert len(log.text.splitlines()) == facts.LINES
  assert not facts.read(fake_run(tmp_path / 'b', loss=1.0)).logs


def test_logs_of_other_processes_and_of_the_cluster_are_shown(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'a', step=3, job={'command': 'train', 'exit': 7})
  for name in ('job.log', 'job_1.log'):
    (folder / name).write_text(f'said in {name}\n')
  (tmp_path / '17_0.log').write_text('module: command not found\n')
  for name in 'ab':
    (tmp_path / '.sweep' / name).mkdir(parents=True)
  queues.write(folder, queues.SLURM, '17_0', str(tmp_path / '17_0.log'))
  assert [log.name for log in facts.read(folder).logs] == ['job.log', 'job_1.log', '17_0.log']
  queues.write(tmp_path / 'b', queues.SLURM, '17_0', str(tmp_path / '17_0.log'))  # its job ended before it began
  assert [log.text for log in facts.read(tmp_path / 'b').logs] == ['module: command not found']


def test_curves_keep_their_extremes():
  value_S = np.sin(np.arange(10_000.0))
  value_S[1234], value_S[4321], value_S[77] = 9.0, -9.0, np.nan
  short = lines.thinned(lines.Line(np.arange(10_000), value_S), 100)
  assert len(short.step_S) <= 102 and {0, 1234, 4321, 9999} <= set(short.step_S.tolist())
  assert len(lines.thinned(lines.Line(np.arange(100), np.full(100, np.nan)), 10).step_S) <= 12
  one = lambda values: {'net/loss': lines.Line(np.array([1, 2, 3]), np.array(values))}
  data = lines.data([('a', 's', one([1.0, 2.0, 3.0])), ('b', 's', one([3.0, 4.0, np.nan]))])
  assert data['settings']['net/loss'] == [{'setting': 's', 'runs': 2, 'x': [1, 2, 3], 'y': [2.0, 3.0, None],
                                           'low': [0.585786, 1.58579, None], 'high': [3.41421, 4.41421, None]}]
  assert data['metrics']['net/loss'][1]['y'] == [3.0, 4.0, None]


def test_samples_are_spread_over_training_and_fit(tmp_path):
  samples = tmp_path / 'samples'
  samples.mkdir()
  for step in range(100):
    (samples / f'step_{step:07d}_digits.png').write_bytes(picture(16, step))
  (samples / 'step_0000050_digits.png').write_bytes(b'\x89PNG cut off')
  (samples / 'step_0000001_a_spectrogram.png').write_bytes(picture(8))
  (samples / 'step_0000001_note.txt').write_text('a<b' * 9000)
  (samples / 'mine.png').write_bytes(picture(8))
  series = media.find(tmp_path)
  assert {(one.name, one.kind, len(one.files)) for one in series} == {
    ('digits', 'picture', 100), ('a_spectrogram', 'picture', 1), ('note', 'text', 1)}
  shown = {one.series.name: one for one in media.choose([series], 10**9)[0]}
  steps = [item.step for item in shown['digits'].items]
  assert len(steps) in (media.STEPS, media.STEPS - 1) and (steps[0], steps[-1]) == (0, 99)
  assert max(np.diff(steps)) <= 4 and len(shown['note'].items[0].content) == media.TEXT and shown['note'].smaller
  room = 40_000
  few = media.choose([series], room)[0]
  assert sum(item.cost for one in few for item in one.items) <= room
  steps = [item.step for one in few if one.series.name == 'digits' for item in one.items]
  assert len(steps) > 5 and (steps[0], steps[-1]) == (0, 99) and max(np.diff(steps)) < 30
  assert not any(one.items for one in media.choose([series], 0)[0])


def test_large_pictures_and_sounds_become_smaller(tmp_path):
  import soundfile
  samples = tmp_path / 'samples'
  samples.mkdir()
  (samples / 'step_0000001_big.png').write_bytes(picture(1400))
  wave = np.sin(np.arange(8 * 22_050) / 20)
  soundfile.write(samples / 'step_0000001_tone.wav', wave, 22_050, subtype='PCM_16')
  (samples / 'step_0000001_tone_spectrogram.png').write_bytes(picture(8))
  found = {one.series.name: one for one in media.choose([media.find(tmp_path)], 10**8)[0]}
  assert found['big'].smaller and found['big'].items[0].content.startswith('data:image/webp;base64,')
  tone = found['tone'].items[0]
  assert tone.content.startswith('data:audio/mpeg;base64,') and len(tone.content) < len(wave)
  assert tone.spectrogram.startswith('data:image/png;base64,')


def test_large_clips_become_smaller(tmp_path):
  av = pytest.importorskip('av')
  from genjax import artifacts
  frames_THWC = np.random.default_rng(0).integers(0, 256, (12, 300, 400, 3), np.uint8)
  path = artifacts.write(tmp_path / 'samples' / 'step_0000001_film', artifacts.Clip(frames_THWC, 5.0))
  artifacts.write(tmp_path / 'samples' / 'step_0000001_film.webp', artifacts.Clip(frames_THWC[:2], 5.0))
  shown = media.choose([media.find(tmp_path)], 4_000_000)[0][0]
  assert shown.series.kind == 'clip' and shown.smaller
  data = media.base64.b64decode(shown.items[0].content.partition(',')[2])
  assert len(data) < path.stat().st_size / 2
  with av.open(io.BytesIO(data)) as container:
    video = container.streams.video[0]
    assert (video.width, video.height, video.frames) == (256, 192, 12)


@pytest.fixture
def report(capsys):
  """report(folder, *flags) -> the page as text, and what was said."""

  def make(folder, *flags):
    assert main(['report', str(folder), *flags]) == 0
    return (folder / 'report.html').read_text(), capsys.readouterr().err

  return make


def test_nothing_of_a_run_is_markup(tmp_path, fake_run, report):
  evil = '</script><script>alert(1)</script><img src=x onerror=alert(2)>'
  folder = fake_run(tmp_path / 'a', {'data.name': evil}, loss=0.5, curve=[(1, 1.0), (2, 0.5)])
  (folder / 'metrics.jsonl').write_text(json.dumps({'step': 1, evil: 1.0}) + '\n')
  (folder / 'samples').mkdir()
  for step in (1, 2):
    (folder / 'samples' / f'step_000000{step}_note.txt').write_text(evil)
  (folder / 'events.jsonl').write_text(json.dumps({'time': evil, 'step': 1, 'event': evil, 'text': evil}) + '\n')
  text, _ = report(folder)
  plotly = page._plotly()
  rest = text.replace(plotly, '').replace((page.TEMPLATES / 'page.js').read_text(), '')
  assert '<script>alert' not in rest and '<img src=x' not in rest and '&lt;script&gt;alert(1)' in rest
  assert rest.count('<script') == 4  # two with JSON, and the two that are taken out
  assert not re.search(r'''(src|href)=["'](?!data:|#)''', rest)


def test_a_page_of_a_sweep_has_its_table(fake_sweep, report):
  folder = fake_sweep({1.0: {0: 0.5, 1: 0.6}, 2.0: {0: 0.4, 1: 0.45}, 3.0: {0: 'failed', 1: None}})
  text, _ = report(folder)
  rows = re.search(r'<table class="settings">(.*?)</table>', text, re.S)[1].split('<tr')
  assert len(rows) == 5 and 'baseline' in rows[2] and '-0.125 [-0.148, -0.102]' in rows[3] and '0 of 2' in rows[4]
  assert 'FAILED: guidance=3,seed=0' in text and text.count('<details class="run"') == 6
  text, _ = report(folder, '--baseline=guidance=2')
  assert '+0.125 [+0.102, +0.148]' in text


def test_a_sweep_that_may_not_be_compared_has_a_page(fake_sweep, report):
  folder = fake_sweep({1.0: {0: 0.5}, 2.0: {0: 0.4}})
  run = json.loads((folder / 'guidance=2,seed=0' / 'run.json').read_text())
  (folder / 'guidance=2,seed=0' / 'run.json').write_text(json.dumps({**run, 'source': 'other'}))
  text, _ = report(folder)
  assert 'There is no table: the runs were trained by different code' in text
  assert text.count('<details class="run"') == 2


def test_a_size_is_kept(tmp_path, fake_run, report, capsys):
  folder = fake_run(tmp_path / 'a', loss=0.5)
  with open(folder / 'metrics.jsonl', 'w') as file:
    for step in range(20_000):
      file.write(json.dumps({'step': step, **{f'net/{index}': step * 1.234567 + index for index in range(8)}}) + '\n')
  (folder / 'samples').mkdir()
  for step in range(40):
    (folder / 'samples' / f'step_{step:07d}_x.png').write_bytes(picture(120, step))
  for size in (5_000_000, 6_000_000):
    text, said = report(folder, f'--size={size}')
    assert size * 0.9 < len(text.encode()) <= size
    assert 'What this page leaves out' in text and 'points of curves' in said and 'samples "x"' in said
  assert main(['report', str(folder), '--size=100kB']) == 2
  assert 'without any sample the page has' in capsys.readouterr().err


def test_bad_input_is_told(tmp_path, fake_run, capsys, monkeypatch):
  folder = fake_run(tmp_path / 'a', loss=0.5)
  (tmp_path / 'none').mkdir()
  for argv, said in (([str(tmp_path / 'no')], 'is no folder'), ([str(tmp_path / 'none')], 'holds no runs'),
                     ([str(folder), '--size=many'], 'with a unit'), ([str(folder), '--size=0'], 'above 0'),
                     ([str(folder), '--out=x.pdf'], 'must end in .html'),
                     ([str(folder), '--baseline=lr=1'], '--baseline is for the table of several runs')):
    assert main(['report', *argv]) == 2
    assert said in capsys.readouterr().err
  assert page.size('1.5 GB') == 1_500_000_000 and page.size('7') == 7
  import builtins
  real = builtins.__import__
  monkeypatch.setattr(builtins, '__import__', lambda name, *rest, **more: _missing(name) or real(name, *rest, **more))
  with pytest.raises(UserError, match=r"pip install 'genjax-research\[report\]'"):
    page.check()


def _missing(name):
  if name.partition('.')[0] == 'plotly':
    raise ImportError(name)


def test_equal_runs_give_equal_pages(tmp_path, fake_run, report):
  folder = fake_run(tmp_path / 'a', loss=0.5, curve=[(1, 1.0), (2, 0.5)])
  first, _ = report(folder)
  os.remove(folder / 'report.html')
  assert report(folder)[0] == first


