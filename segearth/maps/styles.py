"""Styles of QGIS: text that makes rasters and polygons open in the colours of their classes, with these alone in the
legend.

QGIS applies a file ``X.qml`` beside ``X.tif`` or ``X.gpkg`` by itself, and what the table ``layer_styles`` of a
GeoPackage calls a default. Nothing here needs QGIS.

Source: the format as QGIS 3.22 writes and reads it.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from segearth.io.panels import Palette

VERSION = '3.22.0'  # of QGIS: the oldest that these styles were tried with
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
RAMP = 'viridis'  # of matplotlib: its lightness rises evenly
RAMP_STEPS = 10  # between whose colours QGIS goes in straight lines
OUTLINE_MM = '0.1'  # in the colour of the polygon: hides the gaps that smooth drawing leaves between neighbours
LAYER_STYLES = """
CREATE TABLE IF NOT EXISTS layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30),
    ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


def raster_classes_style(names: Sequence[str], palette: Palette) -> str:
    """The style of a raster whose values 0 to K-1 are classes: K names and colours, every other value transparent."""
    root, renderer = _raster('paletted')
    entries = ElementTree.SubElement(renderer, 'colorPalette')
    for index, (name, colour) in enumerate(zip(names, palette, strict=True)):
        entry = {'value': str(index), 'label': name, 'color': _hexadecimal(colour), 'alpha': '255'}
        ElementTree.SubElement(entries, 'paletteEntry', entry)
    return _text(root)


def ramp_style(low: float, high: float) -> str:
    """The style of a raster of numbers: colours from dark (``low``) to bright (``high``), perceptually in order."""
    import matplotlib  # late: nothing else of a map needs it

    colour_of = matplotlib.colormaps[RAMP]
    shares = [step / RAMP_STEPS for step in range(RAMP_STEPS + 1)]
    colours = [tuple(map(int, colour_of(share, bytes=True)[:3])) for share in shares]
    steps = list(zip(shares, colours, strict=True))
    limits = {'classificationMin': f'{low:g}', 'classificationMax': f'{high:g}'}
    root, renderer = _raster('singlebandpseudocolor', **limits)
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, 'rastershader'), 'colorrampshader', colorRampType='INTERPOLATED',
        classificationMode='1', clip='0', minimumValue=f'{low:g}', maximumValue=f'{high:g}',
    )  # fmt: skip
    ramp = ElementTree.SubElement(shader, 'colorramp', type='gradient', name='[source]')
    _options(ramp, {
        'color1': _numbers(colours[0]), 'color2': _numbers(colours[-1]), 'discrete': '0', 'rampType': 'gradient',
        'stops': ':'.join(f'{share:g};{_numbers(colour)}' for share, colour in steps[1:-1]),
    })  # fmt: skip
    for share, colour in steps:
        value = f'{low + share * (high - low):g}'
        entry = {'value': value, 'label': value, 'color': _hexadecimal(colour), 'alpha': '255'}
        ElementTree.SubElement(shader, 'item', entry)
    return _text(root)


def polygon_classes_style(attribute: str, names: Sequence[str], palette: Palette) -> str:
    """The style of polygons whose text ``attribute`` is one of K names, each in its colour."""
    root = ElementTree.Element('qgis', version=VERSION, styleCategories='Symbology')
    renderer = ElementTree.SubElement(
        root, 'renderer-v2', type='categorizedSymbol', attr=attribute, symbollevels='0', forceraster='0',
        enableorderby='0',
    )  # fmt: skip
    categories, symbols = (ElementTree.SubElement(renderer, tag) for tag in ('categories', 'symbols'))
    for index, (name, colour) in enumerate(zip(names, palette, strict=True)):
        category = {'value': name, 'label': name, 'symbol': str(index), 'render': 'true', 'type': 'string'}
        ElementTree.SubElement(categories, 'category', category)
        symbol = ElementTree.SubElement(symbols, 'symbol', type='fill', name=str(index), alpha='1')
        attributes = {'class': 'SimpleFill', 'enabled': '1', 'locked': '0', 'pass': '0'}
        _options(ElementTree.SubElement(symbol, 'layer', attributes), {
            'color': _numbers(colour), 'style': 'solid', 'outline_color': _numbers(colour), 'outline_style': 'solid',
            'outline_width': OUTLINE_MM, 'outline_width_unit': 'MM', 'joinstyle': 'bevel',
        })  # fmt: skip
    ElementTree.SubElement(root, 'layerGeometryType').text = '2'  # polygons
    return _text(root)


def add_layer_style(geopackage: Path, layer: str, qml: str) -> None:
    """Makes a style the default of a layer of a GeoPackage, as QGIS stores it; an earlier one is replaced.

    An OSError says that the file cannot be written, or has no such layer of geometries.
    """
    try:
        with closing(sqlite3.connect(geopackage)) as database, database:
            found = database.execute('SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?', [layer])
            column = found.fetchone()
            if column is None:
                raise OSError(f'{geopackage} has no layer {layer!r} of geometries')
            database.execute(LAYER_STYLES)
            database.execute("INSERT OR IGNORE INTO gpkg_contents (table_name, data_type) "
                             "VALUES ('layer_styles', 'attributes')")  # fmt: skip
            database.execute('DELETE FROM layer_styles WHERE f_table_name = ?', [layer])
            database.execute(
                'INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, '
                "styleName, styleQML, styleSLD, useAsDefault, description, owner) "
                "VALUES ('', '', ?, ?, ?, ?, '', 1, 'colours of the classes', '')",
                [layer, *column, layer, qml],
            )
    except sqlite3.Error as error:
        raise OSError(f'{geopackage}: {error}') from error


def _raster(kind: str, **limits: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    """The root of a raster's style, and its renderer of band 1."""
    root = ElementTree.Element('qgis', version=VERSION, styleCategories='Symbology')
    pipe = ElementTree.SubElement(root, 'pipe')
    attributes = {'type': kind, 'band': '1', 'opacity': '1', 'alphaBand': '-1', 'nodataColor': ''}
    renderer = ElementTree.SubElement(pipe, 'rasterrenderer', attributes | limits)
    ElementTree.SubElement(renderer, 'rasterTransparency')
    return root, renderer


def _options(parent: ElementTree.Element, values: dict[str, Any]) -> None:
    options = ElementTree.SubElement(parent, 'Option', type='Map')
    for name, value in values.items():
        ElementTree.SubElement(options, 'Option', name=name, type='QString', value=value)


def _hexadecimal(colour: Sequence[int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*map(int, colour))


def _numbers(colour: Sequence[int]) -> str:
    red, green, blue = map(int, colour)
    return f'{red},{green},{blue},255'


def _text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return f'{DOCTYPE}{ElementTree.tostring(root, encoding="unicode")}\n'
