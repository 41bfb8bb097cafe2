import os
from itertools import product

import numpy as np
import openpyxl
import pytest
import rasterio
import rioxarray
import torch
from affine import Affine
from PIL import Image

import segearth
from segearth.cli import run_cli
from segearth.commands import main
from segearth.errors import ConfigError, DataError
from segearth.inference.settings import InferenceSettings
from segearth.maps.labelling import WindowGrid
from segearth.maps.scene import find_scenes
from segearth.maps.words import MARGINS, Tally, _blocks, examine_words, with_tried
from segearth.text.vocabulary import Vocabulary
from tests.maps.conftest import UTM, smooth_picture

METRES = UTM | {'transform': UTM['transform'] @ Affine.scale(4)}  # of 2, which the encoders' record knows
RADAR = UTM | {'transform': UTM['transform'] @ Affine.scale(20)}

CLASSES = {'water': ['river', 'lake'], 'road': ['street'], 'tree': []}
LISTED = ['water', 'river', 'lake', 'road', 'street', 'tree']


@pytest.fixture(scope='module')
def make(tiny_clip):
    """Function that makes a segmenter of some classes; a large factor lets random features differ."""

    def make(classes=CLASSES, **settings):
        windows = {'slide_crop': 32, 'slide_stride': 16, 'logit_scale': 400, 'feature_up': False, 'device': 'cpu'}
        return segearth.Segmenter(classes, clip_path=str(tiny_clip), **windows | settings)

    return make


@pytest.fixture
def scene(write_scene):
    picture = smooth_picture(50, 60)
    picture[:, :10, :20] = 0
    return write_scene(picture, nodata=0, **METRES)


def label_map(segmenter, scene, out, **options):
    """The map by names of classes, which keep them when there are others; empty without data."""
    with rasterio.open(segmenter.predict_scene(scene, out, **options)) as dataset:
        return np.array([*segmenter.class_names, *[''] * 256])[dataset.read(1)]


def shares_of(names, total):
    return {str(name): count / total for name, count in zip(*np.unique(names, return_counts=True), strict=True)}


@pytest.mark.parametrize('threshold', [0.0, (0.45, 0.0, 0.6)])
def test_words_less_or_more_give_the_map_of_a_segmenter_without_or_with_them(make, scene, tmp_path, threshold):
    segmenter = make(prob_threshold=threshold)
    study = examine_words(segmenter, scene, 'road=way; tree=wood')
    whole = label_map(segmenter, scene, tmp_path / 'whole')
    has_data = whole != ''
    total = study.pixels
    assert total == has_data.sum() == 50 * 60 - 200 and study.seen == 1
    assert {row.name: row.share for row in study.classes if row.share} == pytest.approx(
        shares_of(whole[has_data], total)
    )
    assert len({row.share for row in study.classes}) == 3  # the words differ at all

    def changed(words, name):
        segmenter.set_classes(list(words.values()))
        other = label_map(segmenter, scene, tmp_path / name)
        names = dict(zip(segmenter.class_names, words, strict=True))  # the first word may be missing
        other = np.vectorize(lambda word: names.get(word, ''))(other)
        return other, (other != whole) & has_data

    words = {name: [name, *others] for name, others in CLASSES.items()}
    for row in study.words:
        own = whole == row.class_name
        if len(words[row.class_name]) == 1:  # without it numbers of classes shift, and thresholds with them
            assert row.alone is None
            continue
        without = [word for word in words[row.class_name] if word != row.word]
        other, moved = changed(words | {row.class_name: without}, f'no_{row.word}')
        assert row.changed == pytest.approx(moved.sum() / total)
        assert row.to == pytest.approx(shares_of(other[moved], total))
        other, _ = changed(words | {row.class_name: [row.word]}, f'only_{row.word}')
        assert row.alone == (pytest.approx((other[own] == row.class_name).mean()) if own.any() else None)
    for row in study.tried:
        other, moved = changed(words | {row.class_name: [*words[row.class_name], row.word]}, f'with_{row.word}')
        gained = moved & (other == row.class_name)
        assert row.gained == pytest.approx(gained.sum() / total)
        assert row.taken == pytest.approx(shares_of(whole[gained], total))
    assert [row.word for row in study.words] == LISTED and [row.word for row in study.tried] == ['way', 'wood']


def test_without_its_only_word_a_class_is_gone(make, scene, tmp_path):
    segmenter = make('water; road; lake; tree')
    study = examine_words(segmenter, scene)
    row, share = study.words[2], study.classes[2].share
    assert share > 0 and row.word == 'lake' and row.alone is None and 'lake' not in row.to
    assert row.changed == pytest.approx(share) == pytest.approx(row.best)
    whole = label_map(segmenter, scene, tmp_path / 'whole')
    segmenter.set_classes('water; road; tree')
    without = label_map(segmenter, scene, tmp_path / 'without')
    assert row.to == pytest.approx(shares_of(without[whole != without], study.pixels))


@pytest.mark.parametrize('threshold', [0.0, 0.5])
def test_shares_and_margins(make, scene, threshold):
    study = examine_words(make(prob_threshold=threshold), scene)
    assert sum(row.share for row in study.classes) == pytest.approx(1)
    assert sum(row.best for row in study.words) == pytest.approx(1)
    assert (sum(row.below for row in study.classes) > 0) == (threshold > 0)
    for row in study.classes:
        if row.score is None:
            assert row.close == (0, 0, 0) and not row.seconds
            continue
        assert 1 / 6 < row.score <= 1 and row.score >= threshold
        assert sorted(row.close) == list(row.close) and row.close[0] >= 0 and row.close[-1] <= 1
        assert sum(share for share, _ in row.seconds.values()) == pytest.approx(1)
        mean = sum(share * margin for share, margin in row.seconds.values())
        assert 0 <= mean <= row.score and row.name not in row.seconds
        assert mean >= (1 - row.close[-1]) * MARGINS[-1]


def test_a_case_by_hand():
    vocabulary, tried = Vocabulary.from_classes('a,b; c').with_tried('c=d')
    tally = Tally(vocabulary, tried, InferenceSettings(logit_scale=1))
    pixels = torch.tensor([[6, 3, 1, 9], [0.5, 4, 1, 9], [2, 3, 7, 2]])  # three pixels: odds of a, b, c and d
    tally.add(pixels.log().T)
    study = tally.result(1)
    first, second = study.classes
    assert (first.share, second.share) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert first.score == pytest.approx((6 / 10 + 4 / 5.5) / 2) and second.score == pytest.approx(7 / 12)
    assert first.seconds == {'c': (1, pytest.approx((5 / 10 + 3 / 5.5) / 2))}
    assert second.seconds == {'a': (1, pytest.approx(4 / 12))}
    a, b, c = study.words
    third = pytest.approx(1 / 3)
    assert (a.best, b.best, c.best) == (third, third, third)
    assert (a.changed, b.to, c.to) == (0, {'c': third}, {'a': third})
    assert (a.alone, b.alone, c.alone) == (0.5, 1, None)
    assert [(row.word, row.class_name, row.taken) for row in study.tried] == [('d', 'c', {'a': pytest.approx(2 / 3)})]


def test_a_large_scene_is_looked_at_evenly_and_always_in_the_same_places(make, write_scene):
    picture = smooth_picture(400, 600)
    picture[:, :, 300:] = 0
    large = write_scene(picture, nodata=0, **METRES)
    segmenter, told = make(), []
    study = examine_words(segmenter, large, windows=100, progress=lambda *counts: told.append(counts))
    assert study == examine_words(segmenter, str(large), windows=100)
    assert 0.02 < study.seen < 0.3 and 0 < study.pixels < 400 * 600 * study.seen
    assert told[-1][0] <= 100 and {total for _, total in told} == {100}
    assert examine_words(segmenter, large, windows=1).pixels > 0  # a block at least
    assert examine_words(segmenter, large, windows=10**6).pixels == 400 * 300
    boxes = list(_blocks(WindowGrid((4000, 2000), (32, 32), (16, 16)), (0, 0, 4000, 2000), 100))
    assert len(set(boxes)) == len(boxes) and sum((y2 - y1) * (x2 - x1) for y1, x1, y2, x2 in boxes) == 8e6
    quarters = [(y1 >= 2000, x1 >= 1000) for y1, x1, *_ in boxes[:40]]
    assert all(8 <= quarters.count(quarter) <= 12 for quarter in product((False, True), repeat=2))


def test_data_sets_and_parts_of_scenes(make, scene, tmp_path):
    segmenter = make()
    with rasterio.open(scene) as dataset:
        assert examine_words(segmenter, dataset) == examine_words(segmenter, scene)
        left, _, _, top = dataset.bounds
    assert examine_words(segmenter, rioxarray.open_rasterio(scene)) == examine_words(segmenter, scene)
    extent = left + 20, top - 80, left + 110, top - 10  # two metres a pixel
    study = examine_words(segmenter, scene, extent=extent)
    part = label_map(segmenter, scene, tmp_path, extent=extent)
    assert study.pixels == (part != '').sum() == 35 * 45 - 5 * 10 and study.seen == 1
    assert {row.name: row.share for row in study.classes if row.share} == pytest.approx(
        shares_of(part[part != ''], study.pixels)
    )
    assert examine_words(segmenter, scene, resolution=4.0).pixels == pytest.approx((50 * 60 - 200) / 4, rel=0.02)


def test_words_are_examined_without_refinement(make, scene, caplog):
    study = examine_words(make(), scene)
    assert not caplog.records
    refined = make(refine='propagation')
    assert examine_words(refined, scene) == study and refined.model.settings.refine == 'propagation'
    assert "without refine='propagation'" in caplog.text


def test_radar(make, write_scene):
    values = smooth_picture(40, 50, 2).astype(np.float32) / 2000
    values[:, :10] = np.nan
    study = examine_words(make(sensor='sar'), write_scene(values, nodata=np.nan, **RADAR))
    assert study.pixels == 30 * 50


def test_what_cannot_be(make, scene, write_scene):
    for tried, message in (
        ('wter=pond', "names a class 'wter', which is none. Did you mean water"),
        ('water=Lake', "'Lake' is a word of the class water already"),
        ('road=way; tree=way', "--try has 'way' twice, for the class road"),
        ('water', 'give CLASS=WORDS'),
        (' ; ', 'give CLASS=WORDS'),
        ('water=a,,b', 'an empty word for the class water'),
    ):
        with pytest.raises(ConfigError, match=message):
            examine_words(make(), scene, tried)
    with pytest.raises(ConfigError, match='only word'):
        examine_words(make('water'), scene)
    with pytest.raises(ConfigError, match='256 classes; a map of 8 bits has room for 255'):
        with_tried(Vocabulary.from_classes([f'thing {number}' for number in range(256)]), None)
    with pytest.raises(ConfigError, match='--windows is 0; allowed: 1 or more'):
        examine_words(make(), scene, windows=0)
    empty = write_scene(np.zeros((3, 40, 50), np.uint8), 'empty.tif', nodata=0, **METRES)
    with pytest.raises(DataError, match='holds no valid pixel: words cannot be compared'):
        examine_words(make(), empty)


@pytest.fixture
def run(tiny_clip, tmp_path, capsys, monkeypatch):
    """Runs ``segearth words`` with the tiny encoder; returns (exit code, output, error stream)."""
    monkeypatch.chdir(tmp_path)
    options = ('--weights', tiny_clip, '--no-upsampling', '--device', 'cpu')

    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda: main(['words', *map(os.fspath, (*arguments, *options))]))
        return ended.value.code, *capsys.readouterr()

    return run_command


def test_command(run, scene, tmp_path):
    classes = 'water,river; =1+1; [red],grass'
    code, output, _ = run(scene, '--classes', classes, '--try', '[red]=[bold]', '--out', 'out')
    assert code == 0 and output.startswith('scene: 0.0028 million pixels, all of it')
    assert all(word in output for word in ('river', '=1+1', '[red]', '[bold]', 'confusions', 'kept with it alone'))
    assert output.splitlines()[-2:] == ['out/scene_words.png', 'out/scene_words.xlsx']
    workbook = openpyxl.load_workbook('out/scene_words.xlsx')
    assert workbook.sheetnames == ['classes', 'confusions', 'words', 'tried']
    assert [row[0].value for row in workbook['classes'].rows] == ['class', 'water', '=1+1', '[red]']
    assert workbook['classes'].cell(3, 1).data_type == 's'
    assert sum(row[1] for row in workbook['classes'].iter_rows(2, values_only=True)) == pytest.approx(1)
    with Image.open('out/scene_words.png') as picture:
        assert picture.width > 100
    assert find_scenes([scene.parent]) == [str(scene)]
    code, _, message = run(scene, '--classes', classes, '--out', 'out')
    assert code == 2 and 'results exist already' in message
    assert run(scene, '--classes', classes, '--out', 'out', '--overwrite')[0] == 0
    assert 'tried' not in openpyxl.load_workbook('out/scene_words.xlsx').sheetnames
    assert find_scenes(['out/scene_words.png', scene]) == ['out/scene_words.png', str(scene)]
    assert sorted(os.listdir('out')) == ['scene_words.png', 'scene_words.xlsx']


def test_command_with_options_of_predict_and_mistakes(run, write_scene, scene, tmp_path):
    (tmp_path / 'large').mkdir()
    with open('words.txt', 'w') as file:
        file.write('water,river\nroad')
    code, output, _ = run(scene, '--classes-file', 'words.txt', '--threshold', '0.9', '--stretch', '0,99')
    assert code == 0 and 'below the threshold' in output and 'all of it' in output
    large = write_scene(smooth_picture(500, 600), 'large/scene.tif', **METRES)
    code, output, _ = run(large, '--classes-file', 'words.txt', '--windows', '4')
    assert code == 0 and 'of it, blocks that lie evenly over it' in output
    with open('config.py', 'w') as file:
        file.write("model = dict(clip_type='Demo', classes=['a', 'b', 'c'])")
    assert run(scene, '--config', 'config.py', '--resolution', '2px', '--extent', '0,0,40,40')[0] == 2
    assert run(scene, '--config', 'config.py', '--resolution', '2px')[0] == 0
    write_scene(smooth_picture(40, 50), 'other.tif', **METRES)
    for arguments, expected in (
        ((scene,), 'say what to look for'),
        ((scene, '--classes', 'a;b', '--try', 'c=d'), "names a class 'c'"),
        ((scene, '--classes', 'a'), 'only word'),
        ((scene, '--classes', 'a;b', '--windows', '0'), '--windows is 0'),
        ((scene.parent, '--classes', 'a;b'), 'holds 2 scenes; give one'),
    ):
        code, output, message = run(*arguments)
        assert code == 2 and expected in message and 'Traceback' not in message and not output
