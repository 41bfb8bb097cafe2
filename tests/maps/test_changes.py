import csv
import os

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.vrt import WarpedVRT

from segearth.cli import run_cli
from segearth.commands import main
from segearth.errors import ConfigError, DataError, MissingFileError, ResultsError
from segearth.maps import changes
from segearth.maps.changes import compare_maps
from segearth.maps.results import MapLegend, describe_classes, write_legend
from segearth.maps.scene import find_scenes
from tests.maps.conftest import ALL, UTM, make_map, read, smooth_picture

RGB = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
RG = ('red', 'green')
BEFORE = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 2]], np.uint8).repeat(4, 0).repeat(4, 1)
AFTER = np.array([[0, 1, 1, 1], [0, 0, 1, 0], [2, 2, 2, 255]], np.uint8).repeat(4, 0).repeat(4, 1)


@pytest.fixture
def write_map(write_scene):
    """Function that writes labels (h, w) as segearth predict does, and scores (h, w) beside them."""

    def write(labels, name, names=('red', 'green', 'blue'), scores=None, **profile):
        profile = UTM | {'nodata': 255} | profile
        path = write_scene(labels[None], f'{name}_classes.tif', **profile)
        describe_classes(path, MapLegend(tuple(names), RGB[: len(names)]), {})
        if scores is not None:
            write_scene(scores.astype(np.float32)[None], f'{name}_scores.tif', **profile | {'nodata': float('nan')})
        return path

    return write


def table_of(files):
    rows = list(csv.DictReader(files.table.read_text(encoding='utf-8').splitlines()))
    return {(row['from'], row['to']): int(row['pixels']) for row in rows}, rows


def kinds_of(path):
    """Value -> name of a change raster."""
    with rasterio.open(path) as dataset:
        tags = dataset.tags(1)
    return {int(key[6:]): value for key, value in tags.items() if key.startswith('class_')}


def test_table_raster_polygons_and_picture_agree(write_map, tmp_path):
    files = compare_maps(write_map(BEFORE, 'a'), write_map(AFTER, 'b'), tmp_path / 'out', polygons=True)
    counts, rows = table_of(files)
    assert counts == {('red', 'red'): 48, ('red', 'green'): 16, ('green', 'green'): 48, ('green', 'red'): 16,
                      ('blue', 'blue'): 32}  # fmt: skip
    assert sum(float(row['share']) for row in rows) == pytest.approx(1, abs=1e-5)
    hectares = {(row['from'], row['to']): float(row['hectares']) for row in rows}
    assert hectares['red', 'green'] == pytest.approx(16 * 0.25 / 1e4, abs=1e-4)
    kinds = kinds_of(files.changes)
    assert kinds[0] == 'unchanged' and sorted(kinds.values()) == ['green to red', 'red to green', 'unchanged']
    with rasterio.open(files.changes) as dataset:
        assert (dataset.crs, dataset.transform, dataset.nodata) == (UTM['crs'], UTM['transform'], 255)
        assert dataset.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG' and set(dataset.colormap(1)) == set(kinds)
    values = read(files.changes)
    assert ((values == 255) == ((BEFORE == 255) | (AFTER == 255))).all()
    names = np.array([kinds.get(value, '') for value in range(256)])[values]
    assert (names[(BEFORE == 0) & (AFTER == 1)] == 'red to green').all()
    assert (names[(BEFORE == AFTER) & (BEFORE < 255)] == 'unchanged').all()
    frame = geopandas.read_file(files.polygons)
    assert sorted(zip(frame['change'], frame['from'], frame['to'], frame.pixels, strict=True)) == [
        ('green to red', 'green', 'red', 16), ('red to green', 'red', 'green', 16)]  # fmt: skip
    assert frame.area.sum() / 1e4 == pytest.approx(frame.hectares.sum(), rel=2e-3) and 'mean_score' not in frame
    for style in (files.changes.with_suffix('.qml'), files.polygons.with_suffix('.qml')):
        assert 'red to green' in style.read_text(encoding='utf-8')
    assert Image.open(files.picture).height > 480
    assert sorted(os.listdir(tmp_path / 'out')) == sorted(path.name for path in files.paths)
    with pytest.raises(DataError, match='no scenes in'):
        find_scenes([tmp_path / 'out'])


def test_maps_of_predict_and_the_command_line(write_scene, tmp_path, capsys):
    scenes = [write_scene(smooth_picture(60, 70, seed=seed), f'{seed}.tif', **UTM) for seed in (1, 2)]
    maps = [make_map(scene, tmp_path / 'maps', ALL).classes for scene in scenes]

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda: main(['compare', *map(os.fspath, maps), '--out', str(tmp_path / 'out'), *arguments]))
        return ended.value.code, capsys.readouterr()

    code, printed = run('--min-score', '0.5', '--polygons')
    assert code == 0 and str(tmp_path / 'out' / '1_to_2_changes.tif') in printed.out.splitlines()
    before, after = map(read, maps)
    scores = [read(str(path).replace('classes', 'scores')) for path in maps]
    differs, unsure = before != after, np.minimum(*scores) < 0.5
    values, kinds = read(tmp_path / 'out' / '1_to_2_changes.tif'), kinds_of(tmp_path / 'out' / '1_to_2_changes.tif')
    assert kinds[1] == 'unsure' and ((values == 1) == (differs & unsure)).all() and (values == 1).any()
    assert ((values == 0) == ~differs).all() and (values[differs & ~unsure] > 1).all()
    assert set(geopandas.read_file(tmp_path / 'out' / '1_to_2_change_polygons.gpkg')['change']) <= {*kinds.values()}
    code, printed = run()
    assert code == 2 and 'results exist already' in printed.err and 'Traceback' not in printed.err
    assert run('--overwrite')[0] == 0
    assert not (tmp_path / 'out' / '1_to_2_change_polygons.gpkg').exists()  # of the comparison that was replaced
    assert 'unsure' not in kinds_of(tmp_path / 'out' / '1_to_2_changes.tif').values()


def test_classes_are_matched_by_name(write_map, tmp_path):
    after = np.select([AFTER == 0, AFTER == 1, AFTER == 2], [2, 0, 1], 255).astype(np.uint8)
    files = compare_maps(write_map(BEFORE, 'a'), write_map(after, 'b', ('green', 'sea', 'red')), tmp_path / 'out')
    counts, _ = table_of(files)
    assert counts == {('red', 'red'): 48, ('red', 'green'): 16, ('green', 'green'): 48, ('green', 'red'): 16,
                      ('blue', 'sea'): 32}  # fmt: skip


def test_categories_of_gdal_are_names_too(write_map, write_scene, tmp_path):
    other = write_scene(AFTER[None], 'other.tif', nodata=255, **UTM)
    before = write_map(BEFORE, 'a')
    with pytest.raises(DataError, match='other.tif is no map of classes'):
        compare_maps(before, other, tmp_path / 'out')
    write_legend(tmp_path / 'other.tif.aux.xml', MapLegend(('red', 'green', 'blue'), RGB))
    assert table_of(compare_maps(before, other, tmp_path / 'out'))[0]['red', 'green'] == 16
    write_legend(tmp_path / 'other.tif.aux.xml', MapLegend(('red', 'green'), RGB[:2]))
    with pytest.raises(DataError, match='holds the value 2, which has no class name'):
        compare_maps(before, other, tmp_path / 'other')


@pytest.mark.parametrize('block_side', [7, 2048])
def test_another_grid_is_brought_to_the_first(write_map, tmp_path, monkeypatch, block_side):
    monkeypatch.setattr(changes, 'BLOCK_SIDE', block_side)
    finer = AFTER.repeat(2, 0).repeat(2, 1)[2:, 6:]  # pixels of 0.25 m, begins 3 columns and 1 row later
    place = Affine(0.25, 0, UTM['transform'].c + 1.5, 0, -0.25, UTM['transform'].f - 0.5)
    files = compare_maps(write_map(BEFORE, 'a'), write_map(finer, 'b', transform=place), tmp_path / 'out')
    with rasterio.open(files.changes) as dataset:
        assert dataset.transform.almost_equals(UTM['transform'] @ Affine.translation(3, 1))
        assert dataset.shape == (11, 13)
    same = compare_maps(tmp_path / 'a_classes.tif', write_map(AFTER, 'c'), tmp_path / 'out')
    kinds, expected = kinds_of(files.changes), kinds_of(same.changes)
    assert [kinds.get(value, '') for value in read(files.changes).ravel()] == [
        expected.get(value, '') for value in read(same.changes)[1:, 3:].ravel()]  # fmt: skip


def test_a_grid_in_another_system(write_map, tmp_path):
    labels = np.zeros((90, 120), np.uint8)
    labels[:, 50:] = 1
    before = write_map(labels, 'a')
    with rasterio.open(before) as first, WarpedVRT(first, crs='EPSG:4326') as degrees:
        after, place = degrees.read(1)[:, 30:], degrees.transform @ Affine.translation(30, 0)
    files = compare_maps(before, write_map(after, 'b', crs='EPSG:4326', transform=place), tmp_path / 'out')
    with rasterio.open(files.changes) as dataset:
        assert dataset.crs == UTM['crs'] and dataset.res == (0.5, 0.5) and 85 < dataset.width < 100
    counts, _ = table_of(files)
    assert counts['green', 'green'] > 0.98 * 70 * 90 and set(counts) <= {(a, b) for a in RG for b in RG}
    assert sum(count for (old, new), count in counts.items() if old != new) < 2 * 90  # along the edge


def test_without_a_system_pixels_are_counted(write_map, tmp_path):
    bare = {'crs': None, 'transform': Affine.identity()}
    before = write_map(BEFORE, 'a', **bare)
    _, rows = table_of(compare_maps(before, write_map(AFTER, 'b', **bare), tmp_path / 'out'))
    assert {row['hectares'] for row in rows} == {''}
    with pytest.raises(DataError, match=r'different grids.*a_classes.tif has no coordinate reference system.*-a_srs'):
        compare_maps(before, write_map(AFTER[:8], 'c', **bare), tmp_path / 'out')
    with pytest.raises(DataError, match='has no coordinate reference system'):
        compare_maps(before, write_map(AFTER, 'd'), tmp_path / 'out')


def test_what_has_no_room_in_eight_bits_shares_a_value(write_map, tmp_path):
    names = tuple(f'class {number}' for number in range(20))
    generator = np.random.default_rng(0)
    labels = [generator.integers(0, 20, (90, 90)).astype(np.uint8) for _ in range(2)]
    legend = MapLegend(names, ((1, 2, 3),) * 20)
    paths = [write_map(array, name) for array, name in zip(labels, 'ab', strict=True)]
    for path in paths:
        describe_classes(path, legend, {})
    files = compare_maps(*paths, tmp_path / 'out')
    kinds, values = kinds_of(files.changes), read(files.changes)
    assert len(kinds) == 255 and kinds[254] == 'other changes'
    assert ((values == 0) == (labels[0] == labels[1])).all() and (values == 254).any()
    assert len(table_of(files)[0]) == 400


def test_comparisons_that_cannot_be(write_map, write_scene, tmp_path):
    before, after = write_map(BEFORE, 'a'), write_map(AFTER, 'b')
    out = tmp_path / 'out'
    with pytest.raises(ConfigError, match='given twice'):
        compare_maps(before, tmp_path / 'b' / '..' / 'a_classes.tif', out)
    with pytest.raises(ConfigError, match='--min-score is 50; allowed'):
        compare_maps(before, after, out, min_score=50)
    with pytest.raises(MissingFileError, match='a_scores.tif, which is not there: make the map with segearth predict'):
        compare_maps(before, after, out, min_score=0.5)
    with pytest.raises(MissingFileError, match='absent.tif'):
        compare_maps(before, tmp_path / 'absent.tif', out)
    with pytest.raises(DataError, match='picture.tif is no map of classes'):
        compare_maps(before, write_scene(smooth_picture(12, 16), 'picture.tif', **UTM), out)
    with pytest.raises(DataError, match=r'pixels of 0.5 m.*of 5 m.*--resolution 5'):
        compare_maps(before, write_map(AFTER, 'coarse', transform=UTM['transform'] @ Affine.scale(10)), out)
    with pytest.raises(DataError, match='do not overlap'):
        compare_maps(before, write_map(AFTER, 'far', transform=UTM['transform'] @ Affine.translation(999, 0)), out)
    with pytest.raises(DataError, match='no pixel with a class in both'):
        compare_maps(before, write_map(np.full_like(AFTER, 255), 'empty'), out)
    write_map(BEFORE, 'a', scores=np.ones((5, 5)))
    with pytest.raises(DataError, match='another grid'):
        compare_maps(before, after, out, min_score=0.5)
    damaged = write_map(np.random.default_rng(0).integers(0, 3, (300, 300)).astype(np.uint8), 'damaged')
    damaged.write_bytes(damaged.read_bytes()[:50_000])
    with pytest.raises(DataError, match='damaged'):
        compare_maps(damaged, write_map(np.zeros((300, 300), np.uint8), 'whole'), out)
    assert not out.exists() or not os.listdir(out)
    (tmp_path / 'file').write_text('')
    with pytest.raises(ResultsError, match='cannot be the folder'):
        compare_maps(before, after, tmp_path / 'file')
