"""The files of a map as QGIS opens them. Run with -m qgis tests/qgis; $QGIS_PYTHON names a Python that has PyQGIS."""

import functools
import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio

from segearth.maps.changes import compare_maps
from segearth.maps.predict import predict_to_files
from segearth.maps.results import MapLegend
from segearth.maps.scene import SceneSource
from tests.maps.conftest import ALL, UTM, read, smooth_picture
from tests.maps.stand_in import StandInModel

pytestmark = pytest.mark.qgis

LEGEND = MapLegend(
    ('a "quoted", \'b\'', 'c <&> d', 'größe 道路'),
    ((220, 50, 47), (38, 110, 235), (0, 100, 0)),
    ('a "quoted", \'b\'', 'c <&> d, e', 'größe 道路'),
)
COLOURS = ['#dc322f', '#266eeb', '#006400']


@functools.cache
def qgis_python() -> str:
    python = os.environ.get('QGIS_PYTHON', '/usr/bin/python3')
    try:
        subprocess.run([python, '-c', 'import qgis.core'], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f'{python} has no PyQGIS; on Debian: apt install python3-qgis, or name another in $QGIS_PYTHON')
    return python


def open_in_qgis(folder: Path, *names: object) -> list[dict]:
    program = Path(__file__).with_name('open_outputs.py')
    kept = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'GDAL', 'PROJ'))}
    environment = kept | {'QT_QPA_PLATFORM': 'offscreen', 'HOME': str(folder), 'XDG_RUNTIME_DIR': str(folder)}
    command = [qgis_python(), str(program), *map(str, names)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'GeoPackage' not in done.stderr  # a version that GDAL reads in part only
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=['placed', 'nowhere'])
def files(request, write_scene, tmp_path):
    """The map of a scene in UTM, and of one without a system."""
    picture = smooth_picture(60, 70)
    picture[:, :20, :30] = 0
    scene = write_scene(picture, 'north (2021).tif', nodata=0, **(UTM if request.param == 'placed' else {}))
    return predict_to_files(SceneSource(str(scene)), StandInModel(), LEGEND, tmp_path / 'out', ALL)


@pytest.fixture
def write_scene(tmp_path):
    def write(array, name, **profile):
        bands, height, width = array.shape
        shape = {'count': bands, 'height': height, 'width': width, 'dtype': array.dtype}
        with rasterio.open(tmp_path / name, 'w', driver='GTiff', **shape, **profile) as dataset:
            dataset.write(array)
        return tmp_path / name

    return write


def test_the_map_has_its_classes_in_the_legend_and_no_data_is_transparent(files, tmp_path):
    files.legend.unlink()  # the style alone
    (told,) = open_in_qgis(tmp_path, files.classes)
    assert told['is_valid'] and told['renderer'] == 'paletted'
    assert told['classes'] == [[i, *pair] for i, pair in enumerate(zip(LEGEND.class_names, COLOURS, strict=True))]
    assert told['legend'] == list(LEGEND.class_names)
    labels = read(files.classes)
    table = np.zeros((256, 4), int)
    table[:3] = [(*colour, 255) for colour in LEGEND.palette]
    assert (np.array(told['picture']) == table[labels]).all() and (labels == 255).sum() == 600


def test_without_its_style_the_map_has_the_same_legend(files, tmp_path):
    files.styles['classes'].unlink()
    (told,) = open_in_qgis(tmp_path, files.classes)
    assert [entry[1:] for entry in told['classes']] == [list(i) for i in zip(LEGEND.class_names, COLOURS, strict=True)]


def test_scores_are_a_ramp_from_0_to_1(files, tmp_path):
    (told,) = open_in_qgis(tmp_path, files.scores)
    assert told['is_valid'] and told['renderer'] == 'singlebandpseudocolor'
    assert 'probability of the class' in told['band']
    values = [value for value, _ in told['ramp']]
    assert (values[0], values[-1]) == (0, 1)
    picture, scores = np.array(told['picture']), read(files.scores)
    assert ((picture[..., 3] == 0) == np.isnan(scores)).all()
    valid = ~np.isnan(scores)
    brightness = picture[valid][:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness[np.argsort(scores[valid])]) > -2).all()  # rounding of three channels


@pytest.mark.parametrize('kept', ['file', 'table'])
def test_polygons_open_in_the_class_colours_by_either_style(files, tmp_path, kept):
    if kept == 'table':
        files.styles['polygons'].unlink()
    else:
        with closing(sqlite3.connect(files.polygons)) as database, database:
            database.execute('DROP TABLE layer_styles')
            database.execute("DELETE FROM gpkg_contents WHERE table_name = 'layer_styles'")
    (told,) = open_in_qgis(tmp_path, files.polygons)
    assert told['is_valid'] and (told['renderer'], told['attribute']) == ('categorizedSymbol', 'class')
    assert told['classes'] == [[name, name, colour] for name, colour in zip(LEGEND.class_names, COLOURS, strict=True)]
    assert told['legend'] == list(LEGEND.class_names)
    assert told['layers'] == ['north_2021_']


def test_polygons_know_scene_words_and_the_area_that_qgis_measures(files, tmp_path):
    (told,) = open_in_qgis(tmp_path, files.polygons)
    rows = [dict(zip(told['fields'], values, strict=True)) for values in told['features']]
    assert {row['scene'] for row in rows} == {'north (2021)'}
    assert {(row['class'], row['words']) for row in rows} == set(
        zip(LEGEND.class_names, LEGEND.class_words, strict=True)
    )
    assert sum(row['pixels'] for row in rows) == (read(files.classes) != 255).sum()
    if told['crs'] == 'EPSG:25832':
        assert [row['hectares'] * 1e4 for row in rows] == pytest.approx(told['square_metres'], rel=1e-4)
    else:
        assert 'hectares' not in told['fields'] and told['crs'] == ''


def test_a_comparison_opens_with_the_kinds_of_changes(files, write_scene, tmp_path):
    with rasterio.open(files.classes) as dataset:
        place = {} if dataset.crs is None else UTM
    later = write_scene(smooth_picture(60, 70, seed=1), 'later.tif', **place)
    after = predict_to_files(SceneSource(str(later)), StandInModel(), LEGEND, tmp_path / 'out', ALL)
    changes = compare_maps(files.classes, after.classes, tmp_path / 'changes', polygons=True)
    raster, polygons = open_in_qgis(tmp_path, changes.changes, changes.polygons)
    with rasterio.open(changes.changes) as dataset:
        tags, colours = dataset.tags(1), dataset.colormap(1)
    kinds = [tags[f'class_{value}'] for value in range(len(colours))]
    assert raster['renderer'] == 'paletted' and raster['legend'] == kinds and kinds[0] == 'unchanged'
    values, drawn = read(changes.changes), np.array(raster['picture'])
    assert (drawn[values == 255][:, 3] == 0).all()
    assert all((drawn[values == value] == colours[value]).all() for value in range(len(kinds)))
    assert (polygons['renderer'], polygons['attribute']) == ('categorizedSymbol', 'change')
    assert polygons['legend'] == kinds[1:] and len(polygons['layers']) == 1
    found = {feature[polygons['fields'].index('change')] for feature in polygons['features']}
    assert found == set(kinds[1:])
