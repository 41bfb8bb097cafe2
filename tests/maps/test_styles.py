"""Styles of QGIS as text; tests/qgis opens them in QGIS itself."""

import sqlite3
from contextlib import closing
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import shapely

from segearth.maps.styles import add_layer_style, polygon_classes_style, ramp_style, raster_classes_style

NAMES = ['a "quoted", \'b\'', 'c <&> d', 'größe 道路']
PALETTE = [(255, 0, 0), np.array([0, 200, 16], np.uint8), (1, 2, 3)]


def test_rasters_have_the_classes_and_nothing_else():
    root = ElementTree.fromstring(raster_classes_style(NAMES, PALETTE))
    entries = [(entry.get('value'), entry.get('label'), entry.get('color')) for entry in root.iter('paletteEntry')]
    assert entries == [('0', NAMES[0], '#ff0000'), ('1', NAMES[1], '#00c810'), ('2', NAMES[2], '#010203')]
    assert root.find('pipe/rasterrenderer').get('type') == 'paletted'


def test_a_ramp_runs_from_dark_to_bright_in_even_steps():
    root = ElementTree.fromstring(ramp_style(-1, 3))
    items = [(float(item.get('value')), item.get('color')) for item in root.iter('item')]
    values, colours = zip(*items, strict=True)
    assert np.allclose(np.diff(values), np.diff(values)[0]) and (values[0], values[-1]) == (-1, 3)
    linear = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours]) ** 2.2
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # L* of CIELAB
    assert np.diff(lightness).min() > 0.5 * np.diff(lightness).mean()


def test_polygons_have_a_symbol_of_its_colour_for_each_class():
    root = ElementTree.fromstring(polygon_classes_style('class', NAMES, PALETTE))
    assert root.find('renderer-v2').get('attr') == 'class'
    symbols = {
        symbol.get('name'): symbol.find(".//Option[@name='color']").get('value') for symbol in root.iter('symbol')
    }
    found = {entry.get('value'): symbols[entry.get('symbol')] for entry in root.iter('category')}
    assert found == dict(zip(NAMES, ('255,0,0,255', '0,200,16,255', '1,2,3,255'), strict=True))


def test_a_geopackage_keeps_one_default_style_a_layer(tmp_path):
    path = tmp_path / "it's; odd.gpkg"
    frame = geopandas.GeoDataFrame({'class': ['a']}, geometry=[shapely.box(0, 0, 1, 1)], crs='EPSG:25832')
    plain = tmp_path / 'x.gpkg'  # pyogrio cuts names at a semicolon
    for layer in ("it's", 'other'):
        frame.to_file(plain, layer=layer)
    plain.rename(path)
    for layer, text in (("it's", '<qgis/>'), ('other', '<qgis/>'), ("it's", '<qgis version="2"/>')):
        add_layer_style(path, layer, text)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            'SELECT f_table_name, styleQML, useAsDefault FROM layer_styles JOIN gpkg_geometry_columns '
            'ON f_table_name = table_name AND f_geometry_column = column_name ORDER BY f_table_name'
        ).fetchall()
        assert rows == [("it's", '<qgis version="2"/>', 1), ('other', '<qgis/>', 1)]
        assert database.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    path.rename(plain)
    assert set(geopandas.list_layers(plain).name) == {"it's", 'other', 'layer_styles'}


def test_a_style_needs_its_layer_and_a_geopackage(tmp_path):
    frame = geopandas.GeoDataFrame({'class': ['a']}, geometry=[shapely.box(0, 0, 1, 1)], crs='EPSG:25832')
    frame.to_file(tmp_path / 'x.gpkg', layer='x')
    with pytest.raises(OSError, match="no layer 'y'"):
        add_layer_style(tmp_path / 'x.gpkg', 'y', '<qgis/>')
    (tmp_path / 'text.gpkg').write_text('no database ' * 100)
    with pytest.raises(OSError, match='not a database'):
        add_layer_style(tmp_path / 'text.gpkg', 'x', '<qgis/>')
