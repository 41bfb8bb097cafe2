import csv
import json
import shutil
import sqlite3
from contextlib import closing
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image
from shapely.geometry.polygon import orient

from segearth.errors import ConfigError, DataError, ResultsError
from segearth.io.outputs import check_results
from segearth.maps.predict import MapOptions, predict_to_files
from segearth.maps.results import MapFiles, MapLegend
from segearth.maps.scene import SceneSource
from tests.maps.conftest import ALL, LEGEND, UTM, make_map, read, smooth_picture
from tests.maps.stand_in import StandInModel


def test_map_lies_where_the_scene_does_and_has_no_seams(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out', ALL)
    whole = make_map(scene, tmp_path / 'whole', MapOptions(block_side=4096))
    assert (read(files.classes) == read(whole.classes)).mean() >= 0.9999
    with rasterio.open(files.classes) as result, rasterio.open(scene) as original:
        assert (result.crs, result.transform, result.shape) == (original.crs, original.transform, original.shape)
        assert result.dtypes == ('uint8',) and result.nodata == 255
        assert ((result.read(1) == 255) == (original.dataset_mask() == 0)).all()
        assert result.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
        assert [result.colormap(1)[index][:3] for index in range(3)] == list(LEGEND.palette)
        assert result.tags(1)['class_1'] == 'green' and result.tags()['CLASS_NAMES'] == 'red; green; blue'
    with rasterio.open(files.scores) as scores:
        values = scores.read(1)
    assert (np.isnan(values) == (read(files.classes) == 255)).all()
    assert np.nanmin(values) >= 1 / 3 and np.nanmax(values) <= 1


def test_gdal_finds_the_class_names(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out')
    rasterio.shutil.copy(files.classes, tmp_path / 'copy.vrt', driver='VRT')
    text = (tmp_path / 'copy.vrt').read_text()
    assert [f'<Category>{name}</Category>' in text for name in LEGEND.class_names] == [True] * 3


def test_the_legend_has_the_classes_and_no_other_entries(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out')
    with rasterio.open(files.classes) as result:
        assert result.colormap(1) == {index: (*colour, 255) for index, colour in enumerate(LEGEND.palette)}
    alone = shutil.copy(files.classes, tmp_path / 'alone.tif')  # without the file beside it the colours stay
    with rasterio.open(alone) as result:
        assert [result.colormap(1)[index][:3] for index in range(3)] == list(LEGEND.palette)


def geodesic_hectares(frame) -> float:
    """Of polygons, by the geodesics between their corners."""
    geod = pyproj.CRS(frame.crs).get_geod()
    ellipsoidal = frame.to_crs(frame.crs.geodetic_crs).geometry
    return sum(abs(geod.geometry_area_perimeter(orient(polygon))[0]) for polygon in ellipsoidal) / 1e4


def test_areas_polygons_and_map_agree(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out', ALL)
    labels, frame = read(files.classes), geopandas.read_file(files.polygons)
    rows = {row['class']: row for row in csv.DictReader(files.areas.read_text().splitlines())}
    for index, name in enumerate(LEGEND.class_names):
        pixels = int((labels == index).sum())
        of_class = frame[frame['class'] == name]
        assert int(rows[name]['pixels']) == of_class.pixels.sum() == pixels
        assert float(rows[name]['hectares']) == pytest.approx(pixels * 0.25 / 1e4, rel=1e-3)
        assert float(rows[name]['hectares']) == pytest.approx(geodesic_hectares(of_class), abs=1e-4)
        assert of_class.hectares.sum() == pytest.approx(geodesic_hectares(of_class))
        expected = np.nansum(np.where(labels == index, read(files.scores), np.nan)) / max(pixels, 1)
        weighted = (of_class.mean_score * of_class.pixels).sum() / max(pixels, 1)
        assert weighted == pytest.approx(expected, rel=1e-5)
    assert frame.crs.to_epsg() == 25832
    assert not list((tmp_path / 'out').glob('.*'))


def test_geographic_and_rotated_scenes(write_scene, tmp_path):
    geographic = write_scene(
        smooth_picture(60, 60), 'geo.tif', crs='EPSG:4326', transform=Affine(1e-4, 0, 10, 0, -1e-4, 60)
    )
    files = make_map(geographic, tmp_path / 'out', ALL)
    hectares = sum(float(row['hectares']) for row in csv.DictReader(files.areas.read_text().splitlines()))
    assert hectares == pytest.approx(60 * 60 * 5.58 * 11.141 / 1e4, rel=1e-3)
    assert geopandas.read_file(files.polygons).hectares.sum() == pytest.approx(hectares, abs=1e-3)
    turned = Affine.translation(346000, 5648000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    files = make_map(
        write_scene(smooth_picture(60, 60), 'turned.tif', crs='EPSG:25832', transform=turned), tmp_path / 'out', ALL
    )
    with rasterio.open(files.classes) as result:
        assert result.transform.almost_equals(turned)
    frame = geopandas.read_file(files.polygons)
    assert geodesic_hectares(frame) == pytest.approx(frame.hectares.sum())


@pytest.mark.parametrize(
    'name, layer, profile',
    [
        ('north (2021); "a"', 'north_2021_a_', UTM), ('layer_styles', 'map_layer_styles', {}),
        ('-118_34', 'map_-118_34', {}), ('...', 'map_...', {}),
    ],
)
def test_polygons_carry_scene_and_words_and_a_style(write_scene, tmp_path, name, layer, profile):
    names = ('a "quoted"', "it's <&>", 'größe 道路')
    legend = MapLegend(names, LEGEND.palette, ('a "quoted", b', "it's <&>", 'größe 道路'))
    path = write_scene(smooth_picture(40, 50), f'{name}.tif', **profile)
    files = predict_to_files(SceneSource(str(path)), StandInModel(), legend, tmp_path / 'out', ALL)
    plain = files.polygons.rename(tmp_path / 'plain.gpkg')  # pyogrio cuts names at a semicolon
    assert list(geopandas.list_layers(plain).name) == [layer, 'layer_styles']
    frame = geopandas.read_file(plain, layer=layer)
    assert set(frame.scene) == {name} and set(zip(frame['class'], frame.words, strict=True)) == set(
        zip(names, legend.class_words, strict=True)
    )
    with closing(sqlite3.connect(plain)) as database:
        version, (style,) = database.execute('PRAGMA user_version').fetchone(), database.execute(
            'SELECT styleQML FROM layer_styles WHERE f_table_name = ? AND useAsDefault', [layer]
        ).fetchone()
    assert version == (10200,)  # GeoPackage 1.2, of GDAL 3.4
    assert style == files.styles['polygons'].read_text(encoding='utf-8')
    assert [entry.get('value') for entry in ElementTree.fromstring(style).iter('category')] == list(names)
    classes = ElementTree.parse(files.styles['classes'])
    assert [entry.get('label') for entry in classes.iter('paletteEntry')] == list(names)
    with rasterio.open(files.scores) as scores:
        assert scores.descriptions == ('probability of the class',)
    ramp = [float(item.get('value')) for item in ElementTree.parse(files.styles['scores']).iter('item')]
    assert (ramp[0], ramp[-1]) == (0, 1)


def test_picture_without_georeference(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(smooth_picture(60, 90).transpose(1, 2, 0)).save(path)
    files = make_map(path, tmp_path / 'out', ALL)
    with rasterio.open(files.classes) as result:
        assert result.crs is None and result.shape == (60, 90)
    assert all(row['hectares'] == '' for row in csv.DictReader(files.areas.read_text().splitlines()))
    assert 'hectares' not in geopandas.read_file(files.polygons)
    assert Image.open(files.overview).width > 2 * 90


def test_resolution_gives_a_map_of_that_resolution(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out', source=SceneSource(str(scene), resolution=1.0))
    with rasterio.open(files.classes) as result:
        assert result.shape == (65, 75) and result.res == (1.0, 1.0)
        assert (result.read(1)[:10, :15] == 255).all()


def test_min_area_merges_small_regions_and_keeps_no_data(scene, tmp_path):
    plain = make_map(scene, tmp_path / 'plain', ALL)
    merged = make_map(scene, tmp_path / 'merged', MapOptions(polygons=True, min_area=25, block_side=48))
    assert geopandas.read_file(plain.polygons).pixels.min() < 100
    assert geopandas.read_file(merged.polygons).pixels.min() >= 100  # 25 square metres of 0.25 each
    assert ((read(plain.classes) == 255) == (read(merged.classes) == 255)).all()


def test_results_never_replace_an_input(write_scene, tmp_path):
    scene = write_scene(smooth_picture(20, 20), 'a_classes.tif', **UTM)
    write_scene(smooth_picture(20, 20), 'a.tif', **UTM)
    before = scene.read_bytes()
    with pytest.raises(ResultsError, match='results exist already'):
        make_map(tmp_path / 'a.tif', tmp_path)
    inputs = {str(tmp_path / f'{name}.tif'): MapFiles.of(tmp_path, name).paths for name in ('a', 'a_classes')}
    with pytest.raises(ResultsError, match='would replace the input'):
        check_results(inputs)
    assert scene.read_bytes() == before


def test_names_that_some_file_systems_take_for_one(tmp_path):
    for one, other in (('a', 'A'), ('\u00fc', 'u\u0308'), ('stra\u00dfe', 'STRASSE')):
        with pytest.raises(ResultsError, match='would both write'):
            check_results({f'{name}.tif': MapFiles.of(tmp_path, name).paths for name in (one, other)})
    check_results({f'{name}.tif': MapFiles.of(tmp_path, name).paths for name in ('a', 'a_classes', 'b')})
    with pytest.raises(ResultsError, match='too long; rename'):
        check_results({'x.tif': MapFiles.of(tmp_path, 'x' * 245).paths})


def test_refuses_what_cannot_be_a_map(scene, tmp_path):
    many = MapLegend(tuple(map(str, range(256))), ((0, 0, 0),) * 256)
    with pytest.raises(ConfigError, match='256 classes; a map of 8 bits has room for 255'):
        predict_to_files(SceneSource(str(scene)), StandInModel(), many, tmp_path / 'out')
    for options, message in [
        ({'min_area': -1}, '--min-area is -1'),
        ({'min_area': '5'}, "--min-area is '5'"),
        ({'stretch': (0, 3000)}, r'--stretch is \(0, 3000\)'),
        ({'block_side': 2.5}, 'block size is 2.5'),
    ]:
        with pytest.raises(ConfigError, match=message):
            make_map(scene, tmp_path / 'out', MapOptions(**options))
    with pytest.raises(ConfigError, match="resolution is '0.5'"):
        make_map(scene, tmp_path / 'out', source=SceneSource(str(scene), resolution='0.5'))
    with pytest.raises(DataError, match='more than the whole scene'):
        make_map(scene, tmp_path / 'out', MapOptions(min_area=1e9))
    assert not (tmp_path / 'out').exists()  # all of that is said before anything is computed
    (tmp_path / 'file').write_text('')
    with pytest.raises(ResultsError, match='cannot be the folder'):
        make_map(scene, tmp_path / 'file')


def test_scene_without_any_data(write_scene, tmp_path, caplog):
    files = make_map(write_scene(np.zeros((3, 40, 40), np.uint16), nodata=0, **UTM), tmp_path / 'out', ALL)
    assert (read(files.classes) == 255).all() and 'no valid pixel' in caplog.text
    assert len(geopandas.read_file(files.polygons)) == 0


def test_settings_are_kept_in_the_map(scene, tmp_path):
    with rasterio.open(make_map(scene, tmp_path / 'out').classes) as result:
        settings = json.loads(result.tags()['SEGEARTH_SETTINGS'])
    assert settings['classes'] == ['red', 'green', 'blue'] and settings['bands'] == [1, 2, 3]
