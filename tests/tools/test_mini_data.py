"""Lists of radar pairs, and the measures of Mini and MiniSAR, on files of a few pixels in the published layouts."""

import json
import sys

import list_mini_pairs
import measure_mini
import numpy as np
import pytest
from PIL import Image

from segearth.alignearth.pairs import read_list
from segearth.errors import DataError, MissingFileError

TILES = {'003.png': ['T11SLT'], '004.png': ['T11SMT'], '005.png': ['T14RNT'], '006.png': ['T11SLT', 'T11SMT']}


def save_noise(path, side, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


@pytest.fixture
def pairs(tmp_path):
    """Four Sentinel-1/-2 pairs, one of two tiles, and two scenes of SEN1-2 with a pair in each part."""
    entries = []
    for seed, (name, tiles) in enumerate(TILES.items()):
        entries += [{'fragment_filename': name, 'opt_tile_name': f'S2A_R027_{tile}_2020.SAFE'} for tile in tiles]
        for folder in ('opt', 'sar'):
            save_noise(tmp_path / 'pairs' / folder / name, 512, seed)
    (tmp_path / 'pairs' / 'metadata.json').write_text(json.dumps(entries))
    for seed, scene in enumerate(('river', 'forest')):
        for part in ('train', 'test'):
            save_noise(tmp_path / 'sen12' / scene / f'{part}_A' / f'sar_{seed}.png', 256, seed)
            save_noise(tmp_path / 'sen12' / scene / f'{part}_B' / f'op_{seed}.png', 256, seed)
    return tmp_path


@pytest.fixture
def run(pairs, monkeypatch):
    def run(program, *options):
        monkeypatch.setattr(sys, 'argv', [program.__file__, *map(str, options)])
        program.main()

    return run


def test_pairs_are_listed_by_region_and_those_to_learn_from_are_cut(pairs, run):
    run(list_mini_pairs, '--pairs', pairs / 'pairs', '--sen12', pairs / 'sen12', '--out', pairs / 'lists')
    found = {name: read_list(pairs / 'lists' / f'{name}.csv') for name in ('train', 'choose', 'test')}
    names = {name: [radar.name for _, radar in part] for name, part in found.items()}
    places = ('0_0', '0_256', '256_0', '256_256')
    assert names['train'] == [*(f'003_{place}_radar.png' for place in places), 'sar_1.png', 'sar_0.png']
    assert names['choose'] == ['004.png'] and names['test'] == ['005.png', 'sar_1.png', 'sar_0.png']
    folders = {optical.parent.name for part in found.values() for optical, _ in part}
    assert folders == {'tiles', 'opt', 'train_B', 'test_B'}
    whole, tile = (np.asarray(Image.open(path)) for path in (pairs / 'pairs' / 'sar' / '003.png', found['train'][1][1]))
    assert np.array_equal(tile, whole[:256, 256:])


def test_pairs_that_are_not_there(pairs, run):
    with pytest.raises(MissingFileError, match=r'metadata\.json not found'):
        run(list_mini_pairs, '--pairs', pairs / 'sen12', '--out', pairs / 'lists')
    with pytest.raises(DataError, match='no folders train_A and train_B'):
        run(list_mini_pairs, '--pairs', pairs / 'pairs', '--sen12', pairs / 'pairs', '--out', pairs / 'lists')
    metadata = pairs / 'pairs' / 'metadata.json'
    for text in ('{', '[{"fragment_filename": "a.png"}]', '3'):
        known = metadata.read_text()
        metadata.write_text(text)
        with pytest.raises(DataError, match='is not the list of these pairs'):
            run(list_mini_pairs, '--pairs', pairs / 'pairs', '--out', pairs / 'lists')
        metadata.write_text(known)
    (pairs / 'sen12' / 'river' / 'train_B' / 'op_0.png').unlink()
    with pytest.raises(DataError, match='no optical partner'):
        run(list_mini_pairs, '--pairs', pairs / 'pairs', '--sen12', pairs / 'sen12', '--out', pairs / 'lists')
    (pairs / 'pairs' / 'sar' / '003.png').unlink()
    with pytest.raises(MissingFileError, match='003.png'):
        run(list_mini_pairs, '--pairs', pairs / 'pairs', '--out', pairs / 'lists')


def test_a_radar_encoder_that_sees_what_the_optical_one_sees_agrees_with_it(pairs, run, tiny_clip, capsys):
    """Both images of a pair are equal here, and so are the weights."""
    run(list_mini_pairs, '--pairs', pairs / 'pairs', '--out', pairs / 'lists')
    weights = ['--clip-path', tiny_clip, '--optical-path', tiny_clip]
    run(measure_mini, 'radar', '--pairs', pairs / 'lists' / 'choose.csv', *weights)
    assert 'MiniSAR on radar: same class 100.0%, mIoU 100.0' in capsys.readouterr().out


def test_scene_names_of_radar_images(pairs, run, tiny_clip, capsys):
    weights = ['--clip-path', tiny_clip, '--optical-path', tiny_clip, '--side', 32]
    run(measure_mini, 'radar-scenes', '--sen12', pairs / 'sen12', *weights)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(',')[0] for line in lines] == [
        'MiniSAR on radar', 'Mini on radar (floor)', 'Mini on the optical partner in grey',
    ]  # fmt: skip
    assert all('2 images: [CLS]' in line for line in lines)
    with pytest.raises(DataError, match='holds no folders such as'):
        run(measure_mini, 'radar-scenes', '--sen12', pairs / 'pairs')
    with pytest.raises(SystemExit):
        run(measure_mini, 'radar')
