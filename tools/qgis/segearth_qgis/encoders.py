"""The field for the encoder: a list that anything else may be written into. Loaded where QGIS has windows only."""

from processing.gui.wrappers import WidgetWrapper
from qgis.PyQt.QtWidgets import QComboBox

NAMES = (
    'Mini', 'MiniSAR', 'CLIP', 'OpenCLIP', 'MetaCLIP', 'CLIPSelf', 'RemoteCLIP', 'GeoRSCLIP', 'SkyCLIP', 'ALIP', 'BLIP',
    'AlignEarth', 'Demo', 'DemoSAR',
)  # fmt: skip


class EncoderWidget(WidgetWrapper):
    """An editable list of the encoders."""

    def createWidget(self):
        """Makes the list; empty is what suits the sensor."""
        box = QComboBox()
        box.setEditable(True)
        box.addItems(['', *NAMES])
        box.lineEdit().setPlaceholderText('Mini (radar: MiniSAR)')
        return box

    def setValue(self, value):
        self.widget.setEditText(value or '')

    def value(self):
        return self.widget.currentText().strip()
