"""Tables of studies: means over seeds, what is refused, and the same bytes for the same runs."""

import csv
import io
import json

import pytest

from genjax.cli.main import main
from genjax.studies import curves, rendering, statistics, tables
from genjax.studies.compare import Incomparable
from genjax.types import UserError

LOSSES = {1.0: {0: 0.5, 1: 0.7, 2: 0.6}, 1.5: {0: 0.4, 1: 0.5, 2: 0.6}}


def test_mean_deviation_and_number_of_seeds_and_the_best(fake_sweep, capsys):
  assert main(['table', str(fake_sweep(LOSSES))]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '| guidance | runs | heldout/loss | samples/frechet |'
  assert lines[2] == '| 1 | 3 | 0.60 ± 0.10 | 6.0 ± 1.0 |'
  assert lines[3] == '| 1.5 | 3 | **0.50 ± 0.10** | **5.0 ± 1.0** |'
  assert lines[5] == '- Mean ± standard deviation over seed. The best is bold.' and len(lines) == 6


def test_differences_are_paired_by_seed(fake_sweep):
  table = tables.make(fake_sweep(LOSSES), baseline='guidance=1')
  found = table.rows[1].differences['heldout/loss']
  assert found.mean == pytest.approx(-0.1) and found.count == 3
  assert (found.low, found.high) == (pytest.approx(-0.2 + 0.65 / 30), pytest.approx(-0.65 / 30))  # of 27 means
  text = rendering.render(table, 'markdown')
  assert 'Δ heldout/loss' in text and '| baseline |' in text and '-0.10 [-0.18, -0.02]' in text
  shifted = {1.0: {0: 1.0, 1: 2.0, 2: 9.0}, 1.5: {1: 2.5, 2: 9.5, 3: 0.0}}
  found = tables.make(fake_sweep(shifted, 'shifted'), baseline='guidance=1').rows[1].differences['heldout/loss']
  assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 2)


def test_unfinished_and_failed_runs_are_shown_and_not_averaged(fake_sweep):
  folder = fake_sweep({1.0: {0: 0.5, 1: 'failed'}, 1.5: {0: 0.4, 1: None}, 2.0: {0: 0.6, 1: 0.8},
                       3.0: {0: 0.9, 1: 0.9}})
  table = tables.make(folder, metrics=['heldout/loss'])
  text = rendering.render(table, 'markdown')
  assert '| 1 | 1 of 2 | 0.5 |' in text and '| 1.5 | 1 of 2 | 0.4 |' in text
  assert '| 2 | 2 | **0.70 ± 0.14** |' in text  # the best of those whose runs are all finished
  assert '- FAILED: guidance=1,seed=1, step 3 of 10 (train: exit code 3).' in text
  assert '- Unfinished: guidance=1.5,seed=1.' in text
  rows = list(csv.DictReader(io.StringIO(rendering.render(table, 'csv'))))
  assert (rows[0]['finished'], rows[0]['failed'], rows[1]['waiting']) == ('1', '1', '1')
  assert rows[2]['heldout/loss mean'] == '0.7' and rows[0]['heldout/loss sd'] == ''


@pytest.mark.parametrize(('better', 'names'), [
  ('min', ('heldout/loss', 'heldout/nll', 'likelihood/nll', 'samples/frechet', 'frechet/distance', 'frechet/fid',
           'kernel/distance', 'kernel/kid', 'lpips/mean')),
  ('max', ('psnr/mean', 'ssim/mean', 'clip_score/mean', 'inception_score/mean', 'accuracy_score/accuracy',
           'precision_recall/recall', 'density_coverage/coverage')),
  ('', ('mean', 'samples/distance_ratio_mean', 'inception_score/deviation', 'likelihood/nll_error'))])
def test_which_values_are_better(better, names):
  assert {name: tables._better(name) for name in names} == dict.fromkeys(names, better)


def test_a_sweep_without_finished_runs_has_a_table(fake_sweep):
  text = rendering.render(tables.make(fake_sweep({1.0: {0: None}, 1.5: {0: None}})), 'markdown')
  assert '| 1 | 0 of 1 |' in text and '- Unfinished: guidance=1.5,seed=0.' in text


def test_runs_without_evaluations_show_the_end_of_training(fake_sweep):
  folder = fake_sweep(LOSSES)
  (folder / 'guidance=1,seed=0' / 'evaluation.json').unlink()
  (folder / 'guidance=1,seed=1' / 'evaluation.json').write_text('{"loss": 1.0}')  # of another tool
  table = tables.make(folder)
  assert list(table.metrics) == ['heldout/loss']
  assert any('2 of 6 finished runs are not evaluated' in note for note in table.notes)


@pytest.mark.parametrize(('values', 'said'), [
  ([0.0985] * 3, '0.0985 ± 0'), ([1.45e-6, 1.47e-6], '1.460e-06 ± 1.4e-08'), ([1234.0, 1250.0], '1242 ± 11'),
  ([-0.5, 0.5], '0.00 ± 0.71'), ([3.0], '3'), ([1.0, 1.0 + 2**-50], '1.000000e+00 ± 6.3e-16'), ([], '-'),
])
def test_numbers_have_two_digits_of_their_deviation(values, said):
  assert rendering.number(statistics.summary(values)) == said


def test_latex_and_markdown_escape(fake_sweep):
  table = tables.make(fake_sweep(LOSSES), metrics=['samples/odd:max', 'heldout/loss'], baseline='guidance=1.5')
  text = rendering.render(table, 'latex')
  assert r'\textbf{0.50 $\pm$ 0.10}' in text and r'$\Delta$ samples/odd' in text and r'\bottomrule' in text
  assert rendering._replaced('a_b & 5%', rendering._LATEX) == r'a\_b \& 5\%'
  with pytest.raises(UserError, match='markdown'):
    rendering.render(table, 'markdwn')


def test_the_same_runs_give_the_same_bytes_in_any_order_of_writing(fake_sweep):
  first = fake_sweep(LOSSES, 'first')
  second = fake_sweep({guidance: dict(reversed(seeds.items())) for guidance, seeds in LOSSES.items()}, 'second')
  for form in rendering.FORMS:
    made = [rendering.render(tables.make(folder, baseline='guidance=1'), form) for folder in (first, second)]
    assert made[0] == made[1]


def test_a_folder_of_plain_runs_groups_by_what_differs(tmp_path, fake_run):
  for depth in (2, 4):
    for seed in (0, 1):
      fake_run(tmp_path / f'{depth}{seed}', {'model.depth': depth, 'seed': seed, 'watchdog_seconds': float(seed)},
               loss=depth + seed)
  table = tables.make(tmp_path)
  assert table.header == ('depth',) and [row.values for row in table.rows] == [('2',), ('4',)]
  assert table.rows[0].cells['heldout/loss'].mean == 2.5
  fake_run(tmp_path / 'again', {'model.depth': 4, 'seed': 1}, loss=1.0)
  with pytest.raises(UserError, match='41 and again are runs of one config'):
    tables.make(tmp_path)


def test_settings_that_differ_in_more_are_refused(tmp_path, fake_run, capsys):
  for depth, width in ((2, 8), (2, 16), (4, 8)):
    fake_run(tmp_path / f'{depth}-{width}', {'model.depth': depth, 'model.width': width}, loss=1.0)
  assert main(['table', str(tmp_path), '--by=depth']) == 8
  said = capsys.readouterr().err
  assert 'model.width: 16, 8' in said and '--by=model.depth,model.width' in said
  assert main(['table', str(tmp_path), '--by=depth,width']) == 0
  assert main(['table', str(tmp_path), '--by=depth', '--over=seed,model.width']) == 0
  assert '| 2 | 2 | 1 ± 0 |' in capsys.readouterr().out


def test_two_settings_that_differ_in_something_else_too_are_refused(tmp_path, fake_run):
  fake_run(tmp_path / 'a', {'model.depth': 2, 'model.width': 8}, loss=1.0)
  fake_run(tmp_path / 'b', {'model.depth': 4, 'model.width': 16}, loss=1.0)
  with pytest.raises(Incomparable, match='model.width'):
    tables.make(tmp_path, by=['depth'])


def test_runs_of_different_code_are_refused(fake_sweep, fake_run, capsys):
  folder = fake_sweep(LOSSES)
  path = folder / 'guidance=1,seed=0' / 'run.json'
  facts = json.loads(path.read_text())
  path.write_text(json.dumps({**facts, 'source': 'another'}))
  assert main(['table', str(folder)]) == 8
  said = capsys.readouterr().err
  assert 'trained by different code' in said and '"another" | "s"' in said and '--allow=source' in said
  assert main(['table', str(folder), '--allow=source']) == 0
  assert 'NOT ALIKE: the runs differ in source.' in capsys.readouterr().out
  path.write_text(json.dumps({**facts, 'versions': {**facts['versions'], 'jax': '0.9'}}))
  assert main(['table', str(folder), '--allow=source']) == 8
  assert 'versions.jax' in capsys.readouterr().err
  path.write_text(json.dumps(facts))
  (folder / 'guidance=1,seed=0' / 'code').mkdir()
  (folder / 'guidance=1,seed=0' / 'code' / 'builder.py').write_text('x = 1')
  assert main(['table', str(folder)]) == 8
  assert 'builder' in capsys.readouterr().err


def test_runs_that_were_not_measured_alike_are_refused(fake_sweep, capsys):
  folder = fake_sweep(LOSSES)  # guidance differs in the cards, too: it is what the settings differ in
  path = folder / 'guidance=1,seed=0' / 'evaluation.json'
  found = json.loads(path.read_text())
  for change, field in ((lambda card: card['sampler'].update(steps=50), 'sampler.steps'),
                        (lambda card: card.update(step=5), 'checkpoint'),
                        (lambda card: card['measures']['samples']['pictures'].update(resize='box'), 'resize')):
    changed = json.loads(json.dumps(found))
    change(changed['card'])
    path.write_text(json.dumps(changed))
    assert main(['table', str(folder)]) == 8
    said = capsys.readouterr().err
    assert 'not measured alike' in said and field in said
    assert main(['table', str(folder), f'--allow={field}']) == 0
    assert 'NOT ALIKE' in capsys.readouterr().out


@pytest.mark.parametrize(('flags', 'said'), [
  (['--metrics=heldout/los'], "Did you mean 'heldout/loss'"), (['--metrics=heldout/loss:less'], 'min or max'),
  (['--by=gidance'], "Did you mean 'guidance'"), (['--baseline=guidance=7'], 'is that of no settings'),
  (['--format=word'], 'must be one of'), (['--out=table.doc'], 'must end in one of'),
  (['--curve=loss'], '--curves=FILE'),
  (['--curves=a.pdf'], 'ends in .png or .svg'), (['--allow=sampler.stepz'], "Did you mean 'sampler.steps'"),
])
def test_bad_flags(fake_sweep, tmp_path, monkeypatch, capsys, flags, said):
  monkeypatch.chdir(tmp_path)
  assert main(['table', str(fake_sweep(LOSSES)), *flags]) == 2
  assert said in capsys.readouterr().err


def test_a_folder_without_runs(tmp_path, capsys):
  assert main(['table', str(tmp_path)]) == 2
  assert 'holds no runs' in capsys.readouterr().err


def test_out_decides_the_form(fake_sweep, tmp_path):
  for name, word in (('a.md', '| guidance'), ('a.tex', '\\toprule'), ('a.csv', 'guidance,finished')):
    assert main(['table', str(fake_sweep(LOSSES)), f'--out={tmp_path}/new/{name}']) == 0
    assert word in (tmp_path / 'new' / name).read_text()


def test_curves_are_means_over_the_steps_that_all_runs_have(fake_sweep):
  metric, found = curves.find(tables.make(fake_sweep(LOSSES)))
  assert metric == 'net/loss' and [curve.name for curve in found] == ['guidance=1', 'guidance=1.5']
  assert found[0].step_S.tolist() == [5, 10] and found[0].mean_S.tolist() == pytest.approx([1.6, 0.6])
  assert found[0].deviation_S.tolist() == pytest.approx([0.1, 0.1]) and found[0].runs == 3
  with pytest.raises(UserError, match="Did you mean 'net/loss'"):
    curves.find(tables.make(fake_sweep(LOSSES)), 'nett/loss')


@pytest.mark.parametrize('ending', curves.ENDINGS)
def test_curves_are_drawn_and_equal_curves_give_equal_bytes(fake_sweep, tmp_path, ending):
  pytest.importorskip('matplotlib')
  files = [tmp_path / f'{name}{ending}' for name in 'ab']
  for file in files:
    assert main(['table', str(fake_sweep(LOSSES)), f'--curves={file}']) == 0
  data = [file.read_bytes() for file in files]
  assert data[0] == data[1] and len(data[0]) > 5000
  assert data[0].startswith(b'\x89PNG' if ending == '.png' else b'<?xml')


@pytest.mark.parametrize('name, better', [
  ('frechet/fid', 'min'), ('frechet/distance', 'min'), ('kernel/kid', 'min'), ('kernel/distance', 'min'),
  ('kernel/error', ''), ('inception_score/mean', 'max'), ('inception_score/deviation', ''),
  ('precision_recall/recall', 'max'), ('density_coverage/density', 'max'), ('clip_score/mean', 'max'),
  ('retrieval/text_of_image_10', 'max'), ('accuracy_score/accuracy', 'max'), ('accuracy_score/accuracy_of_real', ''),
  ('psnr/mean', 'max'), ('lpips/mean', 'min'), ('likelihood/nll', 'min'), ('likelihood/nll_error', ''),
  ('samples/frechet', 'min'), ('samples/distance_ratio_mean', ''), ('heldout/loss', 'min'), ('heldout/mean', '')])
def test_which_of_two_values_is_better(name, better):
  assert tables._better(name) == better
