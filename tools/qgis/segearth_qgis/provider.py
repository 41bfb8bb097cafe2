"""The plugin and its provider of Processing, with the one setting: the Python that has segearth."""

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import ICON, MapClasses
from .program import SETTING


class SegEarthProvider(QgsProcessingProvider):
    """The provider ``segearth``."""

    def id(self):
        return 'segearth'

    def name(self):
        return 'SegEarth'

    def icon(self):
        return QIcon(ICON)

    def svgIconPath(self):
        return ICON

    def load(self):
        """Adds the setting to Options > Processing > Providers, then the algorithm."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(self.name(), SETTING, 'Python of the environment that has segearth', '', valuetype=Setting.FILE)
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self):
        """Takes the setting away; its value stays in the user's profile."""
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self):
        self.addAlgorithm(MapClasses())


class SegEarthPlugin:
    """What QGIS starts and ends."""

    def __init__(self):
        self.provider = None

    def initProcessing(self):
        """Registers the provider; qgis_process calls nothing else."""
        self.provider = SegEarthProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    initGui = initProcessing

    def unload(self):
        """Ends."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
