"""Open-vocabulary segmentation for Earth observation: name classes in words, get a map.

A faithful reimplementation of SegEarth-OV-2, "Annotation-Free Open-Vocabulary Segmentation for Remote-Sensing
Images" (arXiv 2508.18067). Importing the package loads nothing heavy: what is asked of it brings what it needs.
:mod:`segearth.register` registers its segmentor, data sets and transforms with mmseg, as the configs say.

    segmenter = segearth.Segmenter(classes=['building', 'road', 'tree', 'water'])
    segmenter('scene.png').picture.save('map.png')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segearth import errors

if TYPE_CHECKING:
    from segearth.segmenter import Segmentation, Segmenter, predict

__version__ = '0.1.0'
__all__ = ['Segmentation', 'Segmenter', '__version__', 'errors', 'predict']
_PLACES = dict.fromkeys(('Segmentation', 'Segmenter', 'predict'), 'segearth.segmenter')


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
