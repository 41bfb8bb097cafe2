"""Open-vocabulary segmentation for Earth observation: name classes in words, get a map.

A faithful reimplementation of SegEarth-OV-2, "Annotation-Free Open-Vocabulary Segmentation for Remote-Sensing
Images" (arXiv 2508.18067).
"""

__version__ = '0.1.0'
