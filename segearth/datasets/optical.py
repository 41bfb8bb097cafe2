"""Satellite and aerial data sets of several classes.

LoveDA, Potsdam, Vaihingen (ISPRSDataset) and iSAID are mmseg's own classes.
"""

from __future__ import annotations

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset


@DATASETS.register_module()
class OpenEarthMapDataset(RemoteSensingDataset):
    """OpenEarthMap: aerial and satellite images of 44 countries, 0.25 to 0.5 m, 1024 x 1024 GeoTIFF.

    Label rule: ids as published, 0 being background. The benchmark takes the validation list without the xBD part.
    OpenEarthMap-SAR has the same classes. Xia et al., WACV 2023; https://open-earth-map.org
    """

    METAINFO = {
        'classes': (
            'background', 'bareland', 'grass', 'pavement', 'road', 'tree', 'water', 'cropland', 'building',
        ),
        'palette': [
            [0, 0, 0], [128, 0, 0], [0, 255, 36], [148, 148, 148], [255, 255, 255], [34, 97, 38], [0, 69, 255],
            [75, 181, 73], [222, 31, 7],
        ],
    }  # fmt: skip
    DEFAULTS = {'img_suffix': '.tif', 'seg_map_suffix': '.tif'}
