"""What QGIS makes of the files of a map, as JSON. Run by a Python that has PyQGIS: open_outputs.py FILE ...

Nothing else of this repository is imported. Names of vector files may end in ``|layername=NAME``.
"""

import json
import os
import sys

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransformContext,
    QgsDistanceArea,
    QgsLayerTreeLayer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRasterSymbolLegendNode,
    QgsSymbolLegendNode,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def describe_raster(path: str) -> dict:
    layer = QgsRasterLayer(path, 'layer')
    renderer = layer.renderer()
    told = {'renderer': renderer.type(), 'band': layer.bandName(1)}
    if renderer.type() == 'paletted':
        told['classes'] = [[entry.value, entry.label, entry.color.name()] for entry in renderer.classes()]
    elif renderer.type() == 'singlebandpseudocolor':
        items = renderer.shader().rasterShaderFunction().colorRampItemList()
        told['ramp'] = [[item.value, item.color.name()] for item in items]
    return told | {'picture': picture(layer, layer.width(), layer.height())} | common(layer)


def describe_polygons(path: str) -> dict:
    layer = QgsVectorLayer(path, 'layer', 'ogr')
    renderer = layer.renderer()
    told = {'renderer': renderer.type(), 'fields': [field.name() for field in layer.fields()]}
    if renderer.type() == 'categorizedSymbol':
        told['attribute'] = renderer.classAttribute()
        told['classes'] = [[entry.value(), entry.label(), entry.symbol().color().name()]
                           for entry in renderer.categories()]  # fmt: skip
    measure = QgsDistanceArea()
    if layer.crs().isValid():
        measure.setSourceCrs(layer.crs(), QgsCoordinateTransformContext())
        measure.setEllipsoid(layer.crs().ellipsoidAcronym())
    told['features'] = [feature.attributes() for feature in layer.getFeatures()]
    told['square_metres'] = [measure.measureArea(feature.geometry()) for feature in layer.getFeatures()]
    sublayers = QgsProviderRegistry.instance().providerMetadata('ogr').querySublayers(path)
    told['layers'] = [sublayer.name() for sublayer in sublayers]  # that QGIS offers
    return told | common(layer)


def common(layer) -> dict:
    """Validity, system and the legend's entries."""
    nodes = layer.legend().createLayerTreeModelLegendNodes(QgsLayerTreeLayer(layer))
    entries = [node.data(0) for node in nodes if isinstance(node, (QgsSymbolLegendNode, QgsRasterSymbolLegendNode))]
    return {'is_valid': layer.isValid(), 'crs': layer.crs().authid(), 'legend': entries}


def picture(layer, width: int, height: int) -> list:
    """Red, green, blue and alpha of each pixel, row by row, drawn on nothing."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    settings.setOutputSize(QSize(width, height))
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    colours = ((image.pixelColor(x, y) for x in range(width)) for y in range(height))
    return [[list(colour.getRgb()) for colour in row] for row in colours]


application = QgsApplication([], False)
application.initQgis()
print(json.dumps([(describe_raster if '.tif' in name else describe_polygons)(name) for name in sys.argv[1:]]))
sys.stdout.flush()
os._exit(0)  # QGIS may crash when Python takes its objects apart
