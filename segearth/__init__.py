"""Open-vocabulary segmentation for Earth observation: name classes in words, get a map.

A faithful reimplementation of SegEarth-OV-2, "Annotation-Free Open-Vocabulary Segmentation for Remote-Sensing
Images" (arXiv 2508.18067). Importing the package registers its segmentor, data sets and transforms with mmseg.

    segmenter = segearth.Segmenter(classes=['building', 'road', 'tree', 'water'])
    segmenter('scene.png').picture.save('map.png')
"""

from typing import Any

import simfeatup  # noqa: F401 - first, because it has to come before torch
from segearth import register as _register  # noqa: F401 - registration with mmseg
from segearth.segmenter import Segmentation, Segmenter

__version__ = '0.1.0'
__all__ = ['Segmentation', 'Segmenter', '__version__', 'predict']


def __getattr__(name: str) -> Any:
    if name == 'predict':  # late: maps need more packages than everything else
        from segearth.maps.optional import require

        require('maps', 'pyproj')
        from segearth.maps.api import predict

        return predict
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
