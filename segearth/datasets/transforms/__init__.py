"""Loading steps for mmseg pipelines, each a thin layer over the functions that hold the rules."""

from segearth.datasets.transforms.images import LoadOpticalImage, LoadSARImage, Resize
from segearth.datasets.transforms.labels import LoadSegLabel

__all__ = ['LoadOpticalImage', 'LoadSARImage', 'LoadSegLabel', 'Resize']
