"""Conditions at the command line and in Python: texts, numbers, pictures, lists, negatives, several scales."""

import json
import pathlib

import numpy as np
from PIL import Image
import pytest

import genjax
from genjax.cli.main import main
from genjax.training.checkpoints.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent.parent
CONDITIONS = dict(
  text=dict(kind='text', length=50, truncate=False), hole=dict(kind='mask', dropout=0.2, default=()),
  box=dict(kind='numbers', column=('extent', 'extent'), low=0.0, high=1.0), before=dict(kind='image', column='image'),
  fixed=dict(kind='numbers', column='extent', dropout=0.0))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run of one step with conditions of several kinds; its samples depend on them."""
  folder = tmp_path_factory.mktemp('conditions') / 'run'
  config = genjax.load_config(f'{ROOT}/configs/diffusion/captioned_flow.py:smoke')
  with config.unlocked():
    config.conditions, config.sampler.guidance, config.evaluate_every = CONDITIONS, 2.0, 0
    config.model.depth, config.optimizers.net.lr = 1, 0.05
  return genjax.train(config, folder, steps=2, sample_every=0)


@pytest.fixture
def files(tmp_path):
  """Pictures of sizes and modes that are not those of the run."""
  random = np.random.default_rng(0)
  for name, mode in (('a.png', 'RGB'), ('b.jpg', 'L'), ('c,d.png', 'RGBA')):
    channels = {'RGB': (3,), 'L': (), 'RGBA': (4,)}[mode]
    Image.fromarray(random.integers(0, 256, (20, 12, *channels)).astype(np.uint8), mode).save(tmp_path / name)
  (tmp_path / 'broken.png').write_bytes(b'\x89PNG and no more')
  return tmp_path


def drawn(run, argv, tmp_path):
  out = tmp_path / 'drawn.npz'
  assert main(['sample', f'--workdir={run.workdir}', f'--out={out}', *argv]) == 0
  with np.load(out, allow_pickle=False) as found:
    return dict(found)


def test_every_kind_from_the_command_line_as_from_python(run, files, tmp_path):
  there = drawn(run, ['--num=3', '--prompt=a red square', '--negative=grey, all of it', '--seed=5',
                      f'--conditions=box=0.2,0.4;before={files}/a.png,{files}/c,d.png;hole={files}/b.jpg;fixed=0.3'],
                tmp_path)
  here = run.sample(3, seed=5, text='a red square', negative_text='grey, all of it', box=(0.2, 0.4), fixed=0.3,
                    before=[files / 'a.png', files / 'c,d.png'], hole=files / 'b.jpg')
  assert set(there) == set(here) and there['image'].shape == (3, 8, 8, 3)
  for name, column in here.items():
    np.testing.assert_array_equal(there[name], column)
  assert there['text'].tolist() == ['a red square'] * 3 and there['negative_text'].tolist() == ['grey, all of it'] * 3
  np.testing.assert_allclose(there['box'], [[0.2, 0.4]] * 3, rtol=1e-6)
  opened = Image.open(files / 'a.png').resize((8, 8), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(there['before'][0], np.asarray(opened))
  np.testing.assert_array_equal(there['before'][2], there['before'][0])
  assert not np.array_equal(there['before'][0], there['before'][1]) and there['hole'].shape == (3, 8, 8, 1)


def test_arrays_are_rows_and_lists_of_rows(run):
  random = np.random.default_rng(1)
  pictures = random.integers(0, 256, (2, 30, 10, 3)).astype(np.uint8)
  many = run.sample(before=pictures, box=[(0.1, 0.2), (0.3, 0.4)], text=['one', 'two'])
  assert many['image'].shape == (2, 8, 8, 3) and many['text'].tolist() == ['one', 'two']
  alone = run.sample(before=pictures[1], box=np.asarray([0.3, 0.4]), text='two', num=2)
  np.testing.assert_array_equal(alone['image'][1], many['image'][1])
  listed = run.sample(2, box=[0.1, 0.2])
  np.testing.assert_allclose(listed['box'], [[0.1, 0.2]] * 2, rtol=1e-6)
  single = run.sample(2, fixed=[0.3, 0.4])  # a row has one number
  np.testing.assert_allclose(single['fixed'], [[0.3], [0.4]], rtol=1e-6)


def test_lists_go_round_and_defaults_are_heldout_rows(run, tmp_path):
  there = drawn(run, ['--num=5', '--prompt=one', '--prompt=two; and, three', '--conditions=box=0.1,0.2,0.3,0.4'],
                tmp_path)
  assert there['text'].tolist() == ['one', 'two; and, three', 'one', 'two; and, three', 'one']
  np.testing.assert_allclose(there['box'][:3], [[0.1, 0.2], [0.3, 0.4], [0.1, 0.2]], rtol=1e-6)
  assert not any(name.startswith('negative_') for name in there)
  heldout = run.experiment.heldout.source.get(np.arange(5))
  np.testing.assert_array_equal(there['before'], heldout['before_pixels'])
  first = run.sample(3)['text'].tolist()
  assert all(text.startswith('a ') and ' at the ' in text for text in first) and len(set(first)) > 1


def test_a_negative_stands_in_the_place_of_nothing(run):
  asked = dict(text='a red square', box=(0.2, 0.2), fixed=0.3)
  plain = run.sample(2, **asked)['image']
  np.testing.assert_array_equal(run.sample(2, negative_text='', **asked)['image'], plain)
  assert not np.array_equal(run.sample(2, negative_text='a blue circle', **asked)['image'], plain)
  same = run.sample(2, negative='a blue circle', prompt='a red square', box=(0.2, 0.2), fixed=0.3)
  np.testing.assert_array_equal(same['image'], run.sample(2, negative_text='a blue circle', **asked)['image'])


def test_several_scales_of_guidance(run, tmp_path):
  argv = ['--num=2', '--prompt=a red square', '--conditions=box=0.2,0.2;fixed=0.3']
  one = drawn(run, [*argv, '--set', 'sampler.guidance=1.0'], tmp_path)['image']
  both = drawn(run, [*argv, '--set', 'sampler.guidances.text=1.0', 'sampler.guidances.before=1.0'], tmp_path)['image']
  np.testing.assert_array_equal(one, both)
  more = drawn(run, [*argv, '--set', 'sampler.guidances.text=7.5', 'sampler.guidances.before=1.5'], tmp_path)['image']
  other = drawn(run, [*argv, '--set', 'sampler.guidances.text=1.5', 'sampler.guidances.before=7.5'], tmp_path)['image']
  assert not np.array_equal(more, one) and not np.array_equal(more, other)
  opened = genjax.open(run.workdir, **{'sampler.guidances.text': 7.5, 'sampler.guidances.before': 1.5})
  np.testing.assert_array_equal(opened.sample(2, text='a red square', box=(0.2, 0.2), fixed=0.3)['image'], more)


@pytest.mark.parametrize(('argv', 'words'), [
  (['--conditions=colour=red'], "no condition 'colour'; it takes {'before': 'the path of a picture"),
  (['--prompt=' + 'x' * 60], "'text': the text 'xxxx"), (['--prompt=' + 'x' * 60], 'has 61 tokens, and 50 are read'),
  (['--conditions=text'], "takes NAME=VALUE, several of them with ; between, got 'text'; write for example "
                         "--conditions='text=VALUE'"),
  (['--prompt=a', '--conditions=text=b'], "'text' is given twice"),
  (['--negative=a', '--set', 'sampler.guidance=1.0'], "the scale of guidance by 'text' is 1"),
  (['--negative=a', '--set', 'sampler.guidances.before=2.0'], "the scale of guidance by 'text' is 1"),
  (['--conditions=negative_fixed=1'], "no condition 'negative_fixed'"),
  (['--set', 'sampler.guidances.fixed=2.0'], 'config.conditions.fixed.dropout above 0'),
  (['--set', 'sampler.guidances.txt=2.0'], "Did you mean 'sampler.guidances.text'"),
  (['--conditions=before={files}/broken.png'], 'cannot read the picture {files}/broken.png'),
  (['--conditions=before={files}/none.png'], 'none.png: No such file'),
  (['--conditions=box=1'], "'box' takes 2 numbers a row, got 1"),
  (['--conditions=box=1,2,3'], "'box' takes 2 numbers a row, got 1"),
  (['--conditions=box=a,b'], "'box' takes 2 numbers a row, got 'a,b'"),
  (['--conditions=fixed=nan'], "'fixed' takes one number"),
  (['--conditions=text=a;box='], "'box' takes 2 numbers"),
  (['--set', 'data.heldout=gone'], "no before is given"),
])
def test_what_is_refused_before_a_checkpoint_is_read(run, files, monkeypatch, capsys, argv, words):
  monkeypatch.setattr(Checkpoints, 'restore', lambda *_, **__: pytest.fail('a checkpoint was read'))
  argv = [arg.replace('{files}', str(files)) for arg in argv]
  assert main(['sample', f'--workdir={run.workdir}', f'--out={files}/x.png', '--num=1', *argv]) == 2
  said = capsys.readouterr().err
  assert words.replace('{files}', str(files)) in said, said


@pytest.mark.parametrize(('given', 'words'), [
  (dict(text=3), "'text' takes a text"), (dict(box=(1, 2, 3)), 'takes 2 numbers a row, got 3'),
  (dict(box=1.0), 'got 1'), (dict(before=np.zeros((4, 4, 3))), 'takes uint8 pixels'),
  (dict(before=np.zeros((4, 4, 5), np.uint8)), 'uint8 pixels'),
  (dict(fixed=True), 'got True'), (dict(text='a', prompt='b'), 'given twice'), (dict(box='a'), "got 'a'"),
])
def test_what_python_is_refused(run, given, words):
  with pytest.raises(genjax.UserError, match=words):
    run.sample(1, **given)


def test_a_run_keeps_what_its_conditions_need(run, smoke_run, capsys, tmp_path):
  kept = json.loads((run.workdir / 'config.json').read_text())['assets']
  assert [name for name, _ in kept['files']] == ['conditions.npz']
  shapes = smoke_run('diffusion/captioned_flow')
  kept = json.loads((shapes / 'config.json').read_text())['assets']
  assert kept['conditions']['text']['vocabulary'] == 'wordpiece'
  assert [name for name, _ in kept['files']] == ['conditions.npz', 'text_tokenizer.json']
  two = ['--prompt=a red circle at the top left', '--prompt=a blue square at the top right', '--num=2']
  assert main(['sample', f'--workdir={shapes}', f'--out={tmp_path}/two.png', *two]) == 0
  assert main(['evaluate', f'--workdir={shapes}', '--no-samples']) == 0
  capsys.readouterr()


def test_options_are_listed_and_set_by_flag(capsys):
  config = f'--config={ROOT}/configs/diffusion/captioned_flow.py:smoke'
  anew = "--config.conditions={'hole': {'kind': 'mask', 'dropout': 0.3}}"
  assert main(['inspect', config, '--options', '--config.conditions.text.length=20']) == 0
  listed = capsys.readouterr().out
  assert 'conditions.text.truncate' in listed and 'sampler.guidances.text' in listed and 'sampler.rescale' in listed
  assert main(['inspect', config, '--options', anew]) == 0
  listed = capsys.readouterr().out
  assert 'conditions.hole.dropout' in listed and 'conditions.text.length' not in listed


def test_a_folder_that_continues_a_draw_names_its_rows(run, files, tmp_path):
  asked = [f'--workdir={run.workdir}', '--prompt=one', '--prompt=two', '--prompt=three',
           f'--conditions=before={files}/a.png,{files}/b.jpg']
  assert main(['sample', *asked, '--num=2', '--start=5', f'--out={tmp_path}/rest/']) == 0
  lines = [json.loads(line) for line in (tmp_path / 'rest' / 'metadata.jsonl').read_text().splitlines()]
  assert [(line['file_name'], line['row'], line['text']) for line in lines] == [
    ('000005.png', 5, 'three'), ('000006.png', 6, 'one')]
  assert [pathlib.Path(line['before']).name for line in lines] == ['b.jpg', 'a.png']
