"""Pages of `genjax report` in Chromium: what is on them, what clicks and keys do, and that nothing goes wrong or out.

Skipped where Debian's chromium and chromium-driver are absent.
"""

import json
import os
import pathlib
import re
import shutil
import sys

import numpy as np
from PIL import Image
import pytest

from genjax.artifacts import Clip, Sound, write, write_shown
from genjax.cli.main import main

webdriver = pytest.importorskip('selenium.webdriver')
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent.parent
CHROMIUM, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
pytestmark = [
  pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='no browser: apt-get install chromium chromium-driver'),
  pytest.mark.filterwarnings('ignore::ResourceWarning'),  # sockets of selenium
]
NARROW = 360


class Browser:
  """A page in Chromium."""

  def __init__(self, driver):
    self.driver = driver

  def open(self, path, width=1200):
    """Opens a page; what the console and the network say of it is kept apart from that of others."""
    self.log('browser'), self.log('performance')
    self.size(width)
    self.driver.get(path.absolute().as_uri())
    return self

  def size(self, width):
    self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
      'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width == NARROW})

  def log(self, kind):
    return self.driver.get_log(kind)

  def js(self, code, *given):
    return self.driver.execute_script(f'return {code}', *given)

  def all(self, selector):
    return self.driver.find_elements(By.CSS_SELECTOR, selector)

  def one(self, selector):
    return self.driver.find_element(By.CSS_SELECTOR, selector)

  def wait(self, code, *given):
    WebDriverWait(self.driver, 30).until(lambda _: self.js(code, *given), code)

  def check_quiet(self):
    """Nothing in the console; nothing was asked for but the page itself and data in it."""
    assert self.log('browser') == []
    messages = [json.loads(entry['message'])['message'] for entry in self.log('performance')]
    asked = [message['params']['request']['url'] for message in messages
             if message['method'] == 'Network.requestWillBeSent']
    assert asked and all(url.startswith(('file:', 'data:', 'blob:')) for url in asked)
    assert len({url for url in asked if url.startswith('file:')}) == 1

  def check_narrow(self):
    """No part sticks out of a narrow screen, whatever is unfolded."""
    self.size(NARROW)
    self.driver.refresh()
    self.js('document.querySelectorAll("details").forEach(one => one.open = true)')
    self.wait('!document.querySelector("#plot") || document.querySelector("#plot svg").clientWidth <= 360')
    wide = self.js('[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > 361 && '
                   '!e.closest(".wide, .strip, pre, .skip, #plot")).map(e => e.outerHTML.slice(0, 200))')
    assert self.js('document.documentElement.scrollWidth') <= NARROW, wide
    self.size(1200)

  def click_through(self):
    """Each link of the contents leads to what it names; each fold opens."""
    for link in self.all('nav a'):
      link.click()
      target = self.js('document.getElementById(location.hash.slice(1)).textContent.trim()')
      assert target
    for summary in self.all('summary'):
      if summary.is_displayed():
        self.js('arguments[0].scrollIntoView({block: "center"})', summary)
        summary.click()
        assert self.js('arguments[0].parentElement.open', summary)

  def reached(self, presses=150):
    """What the Tab key reaches: tags with ids or texts."""
    self.js('document.activeElement.blur()')
    found = []
    for _ in range(presses):
      ActionChains(self.driver).send_keys(Keys.TAB).perform()
      found.append(self.js('(e => [e.tagName.toLowerCase(), e.id || e.className || e.type || ""])'
                           '(document.activeElement)'))
    return found


@pytest.fixture(scope='module')
def driver():
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--mute-audio',
               '--autoplay-policy=no-user-gesture-required', '--disable-background-networking'):
    options.add_argument(flag)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
  yield found
  found.quit()


@pytest.fixture
def browser(driver):
  driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
  return Browser(driver)


def report(folder, *flags):
  assert main(['report', str(folder), *flags]) == 0
  return folder / 'report.html'


def check_numbers(browser, folder):
  """The numbers of evaluation.json and summary.json, to the last digit."""
  shown = {name: float(value) for name, value in browser.js(
    '[...document.querySelectorAll(".metrics tbody tr")].map('
    'row => [row.cells[0].textContent, row.querySelector("data").value])') if value}
  for file, key in (('evaluation.json', 'metrics'), ('summary.json', 'heldout')):
    if (folder / file).exists():
      for name, value in json.loads((folder / file).read_text())[key].items():
        assert shown[name] == value


def check_media(browser):
  """Pictures are decoded; clips and sounds have a length, and play."""
  kinds = set()
  for node in browser.all('.series .large, .series .spectrogram'):
    browser.js('arguments[0].scrollIntoView({block: "center"})', node)
    kinds.add(node.tag_name)
    if node.tag_name == 'img':
      browser.wait('arguments[0].complete && arguments[0].naturalWidth > 0', node)
    elif node.tag_name in ('video', 'audio'):
      browser.wait('arguments[0].readyState >= 1 && arguments[0].duration > 0', node)
      browser.js('void arguments[0].play()', node)
      browser.wait('arguments[0].currentTime > 0', node)
    else:
      assert node.text
  return kinds


def curve(step, value):
  return {'step': step, 'net/loss': value, 'learning_rate/net': 0.001}


@pytest.fixture
def run(tmp_path, fake_run):
  """A run with curves, four sets of pictures, a clip, sounds and texts, an evaluation, and a hostile config."""
  evil = '"></td><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'
  folder = fake_run(tmp_path / 'run <b>', {'data.name': evil}, loss=0.123456789, evaluation={
    'metrics': {'heldout/loss': 0.123456789012345, 'samples/frechet': 35.1812626009}, 'card': {
      'step': 10, 'data': {'name': evil}, 'measures': {'samples': {'num_samples': 200}}}})
  lines = [curve(step, 2 / step) for step in range(1, 101)] + [{'step': 100, 'heldout/loss': 0.1, evil: 1.0}]
  (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
  random = np.random.default_rng(0)
  for step in (25, 50, 75, 100):
    stem = folder / 'samples' / f'step_{step:07d}'
    write_shown(stem.with_name(f'{stem.name}_digits'), random.integers(0, 256, (20, 30, 1), np.uint8))
    write_shown(stem.with_name(f'{stem.name}_text'), f'{evil} {step}')
    write_shown(stem.with_name(f'{stem.name}_tone'), Sound(np.sin(np.arange(9000) / step), 8000))
  write_shown(folder / 'samples' / 'step_0000100_film',
              Clip(random.integers(0, 256, (10, 32, 48, 3), np.uint8), 10.0, 'a caption'))
  (folder / 'events.jsonl').write_text(json.dumps(
    {'time': '2026-01-01', 'step': 50, 'event': 'resumed', 'text': evil}) + '\n')
  return folder


def test_a_run(run, browser):
  browser.open(report(run))
  assert browser.one('h1').text == 'run <b>' and browser.js('window.hacked === undefined')
  check_numbers(browser, run)
  assert check_media(browser) == {'img', 'video', 'audio', 'pre'}
  assert 'resumed at step 50' in browser.one('.events').text.replace('\n', ' ')
  browser.click_through()
  assert browser.js('[...document.querySelectorAll("td")].some(cell => cell.textContent.includes("window.hacked"))')
  browser.check_narrow()
  browser.check_quiet()


def test_curves_are_zoomed_and_compared(run, browser):
  browser.open(report(run))
  axis = 'document.getElementById("plot")._fullLayout'
  assert browser.js(f'{axis}.yaxis.title.text') == 'net/loss'
  whole = browser.js(f'{axis}.xaxis.range')
  browser.js('document.getElementById("plot").scrollIntoView({block: "center"})')
  plot = browser.one('#plot .nsewdrag')
  ActionChains(browser.driver).move_to_element_with_offset(plot, -100, 0).click_and_hold().move_by_offset(
    200, 0).release().perform()
  browser.wait(f'{axis}.xaxis.range[1] - {axis}.xaxis.range[0] < arguments[0]', 0.6 * (whole[1] - whole[0]))
  assert float(browser.one('#from').get_property('value')) > 1
  browser.one('#whole').click()
  browser.wait(f'{axis}.xaxis.range[1] - {axis}.xaxis.range[0] > 95')
  Select(browser.one('#second')).select_by_visible_text('learning_rate/net')
  Select(browser.one('#scale')).select_by_value('log')
  browser.wait(f'{axis}.yaxis2 && {axis}.yaxis2.title.text === "learning_rate/net" && {axis}.yaxis.type === "log"')
  for name, text in (('from', '10'), ('to', '20')):
    browser.one(f'#{name}').send_keys(text, Keys.TAB)
  browser.wait(f'{axis}.xaxis.range[0] === 10 && {axis}.xaxis.range[1] === 20')
  browser.one('#curves ~ details summary').click()
  cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, 'td')] for row in browser.all('#ends tbody tr')]
  assert ['net/loss', '100', '2', '0.02', '0.02', '2'] in cells
  browser.check_quiet()


def test_keys_reach_everything_and_move_through_training(run, browser):
  browser.open(report(run))
  reached = browser.reached()
  for wanted in (['a', 'skip'], ['select', 'metric'], ['select', 'second'], ['select', 'scale'], ['input', 'from'],
                 ['button', 'whole'], ['input', 'range'], ['button', 'through'], ['div', 'strip'], ['div', 'wide']):
    assert wanted in reached, wanted
  assert {'summary', 'video', 'audio', 'pre'} <= {tag for tag, _ in reached}
  series = browser.one('.series[data-kind="picture"]')
  slider, large = (series.find_element(By.CSS_SELECTOR, selector) for selector in ('input[type=range]', 'img.large'))
  last = large.get_attribute('src')
  slider.send_keys(Keys.ARROW_LEFT)
  assert series.find_element(By.TAG_NAME, 'output').text == '75' and large.get_attribute('src') != last
  assert slider.get_attribute('aria-valuetext') == 'step 75' and large.get_attribute('alt').endswith('step 75')
  series.find_elements(By.TAG_NAME, 'figure')[0].click()
  assert series.find_element(By.TAG_NAME, 'output').text == '25'
  button = series.find_element(By.CSS_SELECTOR, '.through')
  button.send_keys(Keys.ENTER)
  browser.wait('arguments[0].querySelector("output").textContent === "100"', series)
  browser.wait('arguments[0].getAttribute("aria-pressed") === "false"', button)
  sound = browser.one('.series[data-kind="sound"]')
  before = sound.find_element(By.TAG_NAME, 'audio').get_attribute('src')
  sound.find_element(By.CSS_SELECTOR, 'input').send_keys(Keys.HOME)
  assert sound.find_element(By.TAG_NAME, 'audio').get_attribute('src') != before
  check_media(browser)
  unnamed = browser.js('[...document.querySelectorAll("select, input, button, video, audio, img, meter, [role=region]"'
                       ')]'
                       '.filter(e => !(e.labels && e.labels.length) && !e.getAttribute("aria-label") && !e.alt '
                       '&& !e.textContent.trim()).map(e => e.outerHTML.slice(0, 200))')
  assert unnamed == []
  browser.check_quiet()


def test_dark_and_light(run, browser):
  browser.open(report(run))
  colors = {}
  for scheme in ('light', 'dark'):
    browser.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {
      'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
    back = browser.js('getComputedStyle(document.documentElement).getPropertyValue("--back").trim()')
    browser.wait('document.getElementById("plot")._fullLayout.paper_bgcolor === arguments[0]', back)
    colors[scheme] = browser.js('getComputedStyle(document.body).backgroundColor')
  assert colors == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(18, 22, 28)'}
  browser.check_quiet()


def test_a_sweep(fake_sweep, browser):
  folder = fake_sweep({1.0: {0: 0.5, 1: 0.6}, 2.0: {0: 0.4, 1: 0.45}, 3.0: {0: 'failed', 1: None}})
  (folder / 'guidance=3,seed=0' / 'job.log').write_text('Traceback <b>\nstopped: loss is nan at step 3\n')
  browser.open(report(folder))
  rows = [row.text for row in browser.all('.settings tbody tr')]
  assert rows[0].startswith('1 2 of 2 0.550 ± 0.071 baseline') and '-0.125 [-0.148, -0.102]' in rows[1]
  assert 'FAILED: guidance=3,seed=0' in browser.one('.notes').text
  names = 'document.getElementById("plot").data.map(trace => trace.name).filter(name => name)'
  assert browser.js(names) == ['guidance=1 (mean of 2)', 'guidance=2 (mean of 2)']
  Select(browser.one('#lines')).select_by_value('runs')
  browser.wait(f'{names}.length === 4')
  browser.click_through()
  failed = browser.one('#run-4')
  assert 'failed' in failed.text and 'loss is nan at step 3' in failed.text and 'Traceback <b>' in failed.text
  reached = browser.reached(60)
  assert ['select', 'lines'] in reached and ['summary', ''] in reached
  browser.check_narrow()
  browser.check_quiet()


def test_two_hundred_evaluations_and_five_gigabytes(tmp_path, fake_run, browser):
  folder = fake_run(tmp_path / 'long', {'steps': 200}, step=200, loss=0.5)
  lines = [{'step': step, 'heldout/loss': 1 / step, 'net/loss': 2 / step} for step in range(1, 201)]
  (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
  picture = write(tmp_path / 'picture.png', np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
  (folder / 'samples').mkdir()
  for step in range(1, 201):
    file = folder / 'samples' / f'step_{step:07d}_samples.png'
    shutil.copy(picture, file)
    os.truncate(file, 25_000_000)  # what follows takes no disk; readers of PNG stop at its end
  assert sum(file.stat().st_size for file in (folder / 'samples').iterdir()) == 5_000_000_000
  page = report(folder, '--size=6MB')
  assert page.stat().st_size <= 6_000_000
  browser.open(page)
  shown = len(browser.all('.strip figure'))
  assert 8 <= shown <= 64 and f'{shown} of 200 steps are shown' in browser.one('.series').text
  said = browser.one('#left-out + ul').text
  assert f'{200 - shown} of 200 samples "samples" (5 GB in files)' in said and 'full quality' in said
  assert check_media(browser) == {'img'}
  assert browser.js('document.getElementById("plot").data[0].x.length') == 200
  browser.click_through()
  browser.check_narrow()
  browser.check_quiet()


BREAK = """
import dataclasses
import jax
from genjax.training import hooks

class Break(hooks.Hook):
  def after_step(self, run, metrics):
    if run.step == 2:
      broken = jax.tree.map(lambda leaf: leaf * float('nan'), run.state.params)
      run.state = dataclasses.replace(run.state, params=broken)

hooks.HOOKS.add('break', lambda workdir: Break())
"""


@pytest.mark.slow
def test_a_run_that_fails_at_step_three(tmp_path, browser):
  from genjax.runs import extensions
  (tmp_path / 'break.py').write_text(BREAK)
  folder = tmp_path / 'run'
  try:
    assert main(['train', f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={folder}', '--config.steps=6',
                 '--config.checkpoint.every=100', '--config.evaluate_every=0', '--config.sample_every=0',
                 f'--import={tmp_path / "break.py"}']) == 3
  finally:
    extensions.unload()
  browser.open(report(folder))
  assert browser.one('header .state').text == 'failed'
  assert 'failed at step 3' in browser.one('.events').text.replace('\n', ' ')
  assert re.search(r'NonFiniteError: loss of phase .diffusion. is nan at step 3', browser.one('.events').text)
  browser.click_through()
  browser.check_narrow()
  browser.check_quiet()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['language/names', 'autoencoders/digits_vae', 'gans/grid_gan', 'quickstart'])
def test_a_run_of_each_family(name, smoke_run, tmp_path, browser):
  folder = tmp_path / 'run'
  shutil.copytree(smoke_run(name), folder)
  assert main(['evaluate', f'--workdir={folder}', '--no-samples']) == 0
  browser.open(report(folder))
  check_numbers(browser, folder)
  assert check_media(browser) & {'img', 'pre'}
  about = browser.one('[aria-labelledby=run-0-about]').text
  count = sum(json.loads((folder / 'run.json').read_text())['parameters'].values())
  assert f'{count:,}' in about and 'FLOPs of a step' in about
  events = browser.one('.events').text.replace('\n', ' ')
  assert 'started at step 0' in events and 'finished at step 2' in events
  assert browser.js('document.querySelectorAll("meter").length') >= 4
  browser.click_through()
  browser.check_narrow()
  browser.check_quiet()


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['clips', 'sounds'])
def test_a_run_of_clips_and_one_of_sounds(kind, tmp_path, browser, monkeypatch):
  monkeypatch.chdir(tmp_path)
  text = (ROOT / 'docs' / 'clips_and_sounds.md').read_text()
  for name, code in re.findall(r'```python\n# (\w+\.py)\n(.*?)```', text, re.S):
    (tmp_path / name).write_text(code)
  random = np.random.default_rng(0)
  for index in range(12):
    write(tmp_path / 'data' / f'{index:02d}', Clip(random.integers(0, 256, (12, 32, 32, 3), np.uint8), 5.0)
          if kind == 'clips' else Sound(random.uniform(-1, 1, 8000), 8000))
  config = 'films.py' if kind == 'clips' else 'digits_spoken.py'
  try:
    assert main(['train', f'--config={config}', '--workdir=run', '--config.data.name=data', '--config.steps=2',
                 '--config.sample_every=2', '--config.sample_num=2', '--config.batch_size=4']) == 0
  finally:
    for name in ('film_builder', 'sound_builder'):
      sys.modules.pop(name, None)
  browser.open(report(tmp_path / 'run'))
  assert check_media(browser) == ({'video'} if kind == 'clips' else {'audio', 'img'})
  check_numbers(browser, tmp_path / 'run')
  browser.click_through()
  browser.check_narrow()
  browser.check_quiet()


def test_the_picture_of_another_page_is_not_loaded(tmp_path, fake_run, browser):
  """The policy of the page holds, should markup ever get in: it loads and runs nothing."""
  page = report(fake_run(tmp_path / 'run', loss=1.0, curve=[(1, 1.0), (2, 0.5)]))
  Image.new('RGB', (4, 4)).save(tmp_path / 'other.png')
  text = page.read_text()
  page.write_text(text.replace('<main', f'<img id="other" src="{(tmp_path / "other.png").as_uri()}">'
                               '<script>window.hacked = 1</script><main', 1))
  browser.open(page)
  browser.wait('document.getElementById("other").complete')
  assert browser.js('document.getElementById("other").naturalWidth') == 0
  assert browser.js('window.hacked === undefined && document.querySelector("#plot svg") !== null')
  assert len(browser.log('browser')) == 2  # both refusals
