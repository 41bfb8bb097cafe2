"""Runs the plugin within PyQGIS, by QGIS's own Python, and prints what it did as JSON.

python in_qgis.py PLUGIN_FOLDER '{"act": "load", "setting": PYTHON, "parameters": {...}}'
"""

import json
import sys

import processing
from processing.core.Processing import Processing
from processing.core.ProcessingConfig import ProcessingConfig
from processing.gui.wrappers import WidgetWrapperFactory
from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

ALGORITHM = 'segearth:mapclasses'


class Feedback(QgsProcessingFeedback):
    """Remembers; presses the cancel button after the first window."""

    def __init__(self, is_cancelling=False):
        super().__init__(False)
        self.steps, self.infos = [], []
        self.is_cancelling = is_cancelling
        self.progressChanged.connect(self.on_progress)

    def on_progress(self, value):
        self.steps.append(value)
        if self.is_cancelling and value > 0:
            self.cancel()

    def pushInfo(self, text):
        self.infos.append(text)


def count(layer):
    """Value -> number of pixels, those without data left out."""
    provider, counts = layer.dataProvider(), {}
    block = provider.block(1, layer.extent(), layer.width(), layer.height())
    for row in range(block.height()):
        for column in range(block.width()):
            if not block.isNoData(row, column):
                value = int(block.value(row, column))
                counts[value] = counts.get(value, 0) + 1
    return counts


def describe(layer):
    extent = layer.extent()
    found = {
        'name': layer.name(),
        'system': layer.crs().authid(),
        'extent': [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        'is_visible': QgsProject.instance().layerTreeRoot().findLayer(layer.id()).isVisible(),
    }
    if isinstance(layer, QgsVectorLayer):
        found['renderer'] = layer.renderer().type()
        found['legend'] = [item.label() for item in layer.renderer().legendSymbolItems()]
        found['features'] = [feature.attributeMap() for feature in layer.getFeatures()]
        for feature in found['features']:
            feature.pop('fid', None)
    else:
        found['renderer'] = layer.renderer().type()
        found['legend'] = [label for label, _ in layer.legendSymbologyItems()]
        found['colours'] = [colour.name() for _, colour in layer.legendSymbologyItems()]
        if layer.dataProvider().dataType(1) == 1:
            found['counts'] = count(layer)
    return found


def load(parameters):
    feedback = Feedback()
    results = processing.runAndLoadResults(ALGORITHM, parameters, feedback=feedback)
    layers = {layer.name(): describe(layer) for layer in QgsProject.instance().mapLayers().values()}
    return {'results': results, 'layers': layers, 'infos': feedback.infos, 'steps': feedback.steps}


def cancel(parameters):
    feedback = Feedback(is_cancelling=True)
    results = processing.run(ALGORITHM, parameters, feedback=feedback)
    return {'results': results, 'steps': feedback.steps}


def refuse(parameters):
    """Message for a layer of the project that is none of a file: made here, since a text cannot name one."""
    layer = QgsRasterLayer('type=xyz&url=http://127.0.0.1:9/{z}/{x}/{y}.png', 'tiles', 'wms')
    QgsProject.instance().addMapLayer(layer)
    algorithm, feedback = QgsApplication.processingRegistry().createAlgorithmById(ALGORITHM), QgsProcessingFeedback()
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    _, is_done = algorithm.run({**parameters, 'INPUT': layer}, context, feedback)
    return {'is_done': is_done, 'text': feedback.textLog()}


def widget(parameters):
    """What the dialog makes of names in the field of the encoder."""
    definition = QgsApplication.processingRegistry().algorithmById(ALGORITHM).parameterDefinition('ENCODER')
    wrapper = WidgetWrapperFactory.create_wrapper(definition, None)
    names = [wrapper.widget.itemText(index) for index in range(wrapper.widget.count())]
    values = []
    for name in ('', 'CLIP', 'my own'):
        wrapper.setWidgetValue(name, QgsProcessingContext())
        values.append(wrapper.widgetValue())
    return {'names': names, 'values': values}


def main():
    request = json.loads(sys.argv[2])
    application = QgsApplication([], True)
    application.initQgis()
    Processing.initialize()
    sys.path.insert(0, sys.argv[1])
    import segearth_qgis

    plugin = segearth_qgis.classFactory(None)
    plugin.initProcessing()
    ProcessingConfig.setSettingValue('SEGEARTH_PYTHON', request['setting'])
    found = globals()[request['act']](request['parameters'])
    heavy = sorted({'torch', 'rasterio', 'segearth'} & sys.modules.keys())
    print('\n' + json.dumps({**found, 'heavy': heavy}), flush=True)
    plugin.unload()


main()
