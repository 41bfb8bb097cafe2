"""SegEarth in QGIS: maps of classes that are named in words, as an algorithm of Processing."""


def classFactory(iface):  # QGIS calls it so
    """Makes the plugin; ``iface`` is None where QGIS runs without windows."""
    from .provider import SegEarthPlugin

    return SegEarthPlugin()
