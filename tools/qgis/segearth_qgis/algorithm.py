"""The algorithm "Map classes in words": parameters of Processing in, a command line of ``segearth predict`` out."""

import os
import re
import shlex

from processing.core.ProcessingConfig import ProcessingConfig
from qgis import core
from qgis.PyQt.QtGui import QIcon

from .program import IS_WINDOWS, SETTING, ProgramError, find_python, predict

ICON = os.path.join(os.path.dirname(__file__), 'icon.svg')
ENDINGS = {  # output -> how the file ends that the program names after the scene
    'MAP': '_classes.tif',
    'SCORES': '_scores.tif',
    'POLYGONS': '_polygons.gpkg',
    'AREAS': '_areas.csv',
    'OVERVIEW': '_overview.png',
}
HINT = core.QgsProcessingUtils.LayerHint
LABELS = {  # options that messages of the program name -> what they are called here
    '--classes': '"Classes"',
    '--encoder': '"Encoder"',
    '--sar': '"Sensor": radar',
    '--bands': '"Bands"',
    '--resolution': '"Resolution"',
    '--threshold': '"Threshold"',
    '--extent': '"Extent"',
    '--scores': '"Scores"',
    '--polygons': '"Polygons"',
    '--overwrite': '"Replace existing results"',
    '--resume': 'the next run',
    '--out': '"Folder of results"',
}
HELP = """Finds what you name in words, in an aerial, satellite or radar image, without training.

<b>Classes</b>: one a line, or with semicolons between them; commas separate synonyms, as in <i>water, river, lake</i>.
Name all that is to be seen, not only what you look for: every pixel gets the class that fits best.
<b>Encoder</b>: the model. Empty: Mini, or MiniSAR for radar, which come with the program. Larger ones are better and \
have to be fetched first: <i>segearth download-weights</i>.
<b>Bands</b>: red, green and blue, as in <i>4,3,2</i>; empty: the first three, or the only one.
<b>Resolution</b>: metres a pixel; <i>auto</i>: one that the encoder knows; <i>native</i>: the scene's.
<b>Threshold</b>: less probable pixels become the first class (see <i>--background</i>).
<b>Other options</b>: of <i>segearth predict</i>, as in <i>--min-area 50 --weights "my file.pt"</i>.

A run that was cancelled goes on when it is run again with the same settings.

The program runs in a Python environment of its own: name its Python in Settings > Options > Processing > Providers > \
SegEarth."""


class MapClasses(core.QgsProcessingAlgorithm):
    """Map classes in words."""

    def createInstance(self):
        return MapClasses()

    def name(self):
        return 'mapclasses'

    def displayName(self):
        return 'Map classes in words'

    def icon(self):
        return QIcon(ICON)

    def tags(self):
        return ['segmentation', 'land cover', 'classification', 'words', 'text', 'CLIP', 'SAR', 'radar']

    def shortHelpString(self):
        return HELP.replace('\n', '<br>')

    def initAlgorithm(self, config=None):
        """Declares parameters and outputs."""
        advanced = core.QgsProcessingParameterDefinition.FlagAdvanced
        encoder = core.QgsProcessingParameterString('ENCODER', 'Encoder', optional=True)
        encoder.setMetadata({'widget_wrapper': {'class': f'{__package__}.encoders.EncoderWidget'}})
        options = core.QgsProcessingParameterString('OPTIONS', 'Other options of segearth predict', optional=True)
        options.setFlags(options.flags() | advanced)
        for parameter in (
            core.QgsProcessingParameterRasterLayer('INPUT', 'Scene'),
            core.QgsProcessingParameterString('CLASSES', 'Classes, one a line; commas between synonyms', None, True),
            encoder,
            core.QgsProcessingParameterEnum('SENSOR', 'Sensor', ['optical', 'radar'], False, 'optical', False, True),
            core.QgsProcessingParameterString('BANDS', 'Bands, as in 4,3,2', optional=True),
            core.QgsProcessingParameterString('RESOLUTION', 'Resolution: auto, native, or metres', 'auto'),
            core.QgsProcessingParameterNumber(
                'THRESHOLD', 'Threshold of probability', core.QgsProcessingParameterNumber.Double, None, True, 0, 1
            ),
            core.QgsProcessingParameterExtent('EXTENT', 'Extent', optional=True),
            core.QgsProcessingParameterBoolean('WITH_SCORES', 'Scores: also the probability of each pixel', False),
            core.QgsProcessingParameterBoolean('WITH_POLYGONS', 'Polygons, too', False),
            core.QgsProcessingParameterBoolean('OVERWRITE', 'Replace existing results', False),
            core.QgsProcessingParameterBoolean('OPEN', 'Open the results', True),
            options,
            core.QgsProcessingParameterFolderDestination('OUTPUT', 'Folder of results'),
        ):
            self.addParameter(parameter)
        self.addOutput(core.QgsProcessingOutputRasterLayer('MAP', 'Classes'))
        self.addOutput(core.QgsProcessingOutputRasterLayer('SCORES', 'Scores'))
        self.addOutput(core.QgsProcessingOutputVectorLayer('POLYGONS', 'Polygons'))
        self.addOutput(core.QgsProcessingOutputFile('AREAS', 'Areas (CSV)'))
        self.addOutput(core.QgsProcessingOutputFile('OVERVIEW', 'Overview (PNG)'))

    def prepareAlgorithm(self, parameters, context, feedback):
        """Makes the command line: here, since layers may be touched in QGIS's main thread only."""
        layer = self.parameterAsRasterLayer(parameters, 'INPUT', context)
        if layer is None:
            raise core.QgsProcessingException(self.invalidRasterError(parameters, 'INPUT'))
        system = layer.dataProvider().crs()
        if layer.crs() != system:
            feedback.pushWarning(
                f'The layer {layer.name()} has {layer.crs().authid() or "no system"} in this project, but its file has '
                f'{system.authid() or "none"}, and the map gets what the file has. "Assign projection" changes the file'
            )

        def text(name):
            return self.parameterAsString(parameters, name, context).strip()

        def is_set(name):
            return self.parameterAsBool(parameters, name, context)

        self.folder = self.parameterAsFileOutput(parameters, 'OUTPUT', context)
        self.is_opening = is_set('OPEN')
        classes = '; '.join(line.strip(' \t;') for line in text('CLASSES').splitlines() if line.strip(' \t;'))
        if not classes:
            raise core.QgsProcessingException('"Classes" is empty: write one a line, as in building, road, water')
        self.arguments = [_path_of(layer), f'--classes={classes}', f'--out={self.folder}']
        for name in ('ENCODER', 'BANDS', 'RESOLUTION'):
            self.arguments += [f'--{name.lower()}={text(name)}'] if text(name) else []
        if parameters.get('THRESHOLD') is not None:
            self.arguments.append(f'--threshold={self.parameterAsDouble(parameters, "THRESHOLD", context)!r}')
        extent = self.parameterAsExtent(parameters, 'EXTENT', context, system)
        if not extent.isNull():
            bounds = extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()
            self.arguments.append(f'--extent={",".join(map(repr, bounds))}')
        self.arguments += ['--sar'] if text('SENSOR') == 'radar' else []
        self.arguments += ['--scores'] if is_set('WITH_SCORES') else []
        self.arguments += ['--polygons'] if is_set('WITH_POLYGONS') else []
        self.arguments += ['--overwrite' if is_set('OVERWRITE') else '--resume']  # finished ones are taken as they are
        try:
            self.arguments += [part.strip('"') for part in shlex.split(text('OPTIONS'), posix=not IS_WINDOWS)]
        except ValueError as error:
            raise core.QgsProcessingException(f'"Other options" cannot be read ({error}): {text("OPTIONS")}') from error
        return True

    def processAlgorithm(self, parameters, context, feedback):
        """Runs the program, in a thread of its own."""
        try:
            python = find_python(ProcessingConfig.getSetting(SETTING))
            feedback.pushCommandInfo(' '.join(map(shlex.quote, ['segearth', 'predict', *self.arguments])))
            paths = predict(python, self.arguments, feedback)
        except ProgramError as error:
            message = re.sub('--[a-z-]+', lambda option: LABELS.get(option[0], option[0]), str(error))
            raise core.QgsProcessingException(message) from error
        results = {'OUTPUT': self.folder}
        for name, ending in ENDINGS.items():
            for path in [path for path in paths or () if path.endswith(ending)]:
                results[name] = path
                if self.is_opening and name in ('MAP', 'SCORES', 'POLYGONS'):
                    title = f'{os.path.basename(path)[: -len(ending)]} {name.lower()}'
                    kind = HINT.Vector if name == 'POLYGONS' else HINT.Raster
                    details = core.QgsProcessingContext.LayerDetails(title, context.project(), name, kind)
                    details.forceName = True
                    style = StyleLoader()
                    KEPT.add(style)
                    details.setPostProcessor(style)
                    context.addLayerToLoadOnCompletion(path, details)
        return results


KEPT = set()  # style loaders to come: QGIS keeps only what lies below Python


class StyleLoader(core.QgsProcessingLayerPostProcessorInterface):
    """Gives results the style that lies beside them, which Processing does not look for."""

    def postProcessLayer(self, layer, context, feedback):
        """Called when the layer is in the project, in the main thread."""
        layer.loadDefaultStyle()
        layer.triggerRepaint()
        KEPT.discard(self)
        node = context.project().layerTreeRoot().findLayer(layer.id())
        if node is not None:
            node.setItemVisibilityChecked(not layer.source().endswith(ENDINGS['SCORES']))  # they hide the classes


def _path_of(layer):
    """What the program opens: the file of a layer, or a name of GDAL's; else an exception says why there is none."""
    provider, source = layer.dataProvider().name(), layer.source()
    parts = core.QgsProviderRegistry.instance().decodeUri('gdal', source) if provider == 'gdal' else {}
    reason = (
        f'it comes from "{provider}"' if provider != 'gdal'
        else 'it is in the memory of QGIS' if source.startswith('/vsimem/')
        else 'it is opened with options' if parts.get('openOptions') or parts.get('credentialOptions')
        else ''
    )  # fmt: skip
    if reason:
        raise core.QgsProcessingException(
            f'The layer {layer.name()} is no raster file that another program can open: {reason}. Save it as a GeoTIFF '
            '(Export > Save As) and map that'
        )
    return source
