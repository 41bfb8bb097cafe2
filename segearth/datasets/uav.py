"""Data sets taken from drones."""

from __future__ import annotations

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset


@DATASETS.register_module()
class UAVidDataset(RemoteSensingDataset):
    """UAVid: street scenes seen obliquely, cut into tiles.

    Label rule: eight published colours, of which moving and static car are one class here.
    Lyu et al., ISPRS Journal 2020; https://uavid.nl
    """

    METAINFO = {
        'classes': ('background', 'building', 'road', 'car', 'tree', 'vegetation', 'human'),
        'palette': [
            [0, 0, 0], [128, 0, 0], [128, 64, 128], [192, 0, 192], [0, 128, 0], [128, 128, 0], [64, 64, 0],
        ],
    }  # fmt: skip
    DEFAULTS = {'img_suffix': '.png', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class UDD5Dataset(RemoteSensingDataset):
    """UDD5, urban drone data set: 40 validation images, ids as downloaded.

    Chen et al., PRCV 2018; https://github.com/MarcWong/UDD
    """

    METAINFO = {
        'classes': ('vegetation', 'building', 'road', 'vehicle', 'other'),
        'palette': [[107, 142, 35], [102, 102, 156], [128, 64, 128], [0, 0, 142], [0, 0, 0]],
    }
    DEFAULTS = {'img_suffix': '.JPG', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class VDDDataset(RemoteSensingDataset):
    """VDD, varied drone data set: 40 test images of 4000 x 3000, ids as downloaded.

    The palette is this project's. Cai et al., arXiv 2305.13608
    """

    METAINFO = {
        'classes': ('other', 'wall', 'road', 'vegetation', 'vehicle', 'roof', 'water'),
        'palette': [
            [0, 0, 0], [102, 102, 156], [128, 64, 128], [107, 142, 35], [0, 0, 142], [222, 31, 7], [0, 69, 255],
        ],
    }  # fmt: skip
    DEFAULTS = {'img_suffix': '.JPG', 'seg_map_suffix': '.png'}
