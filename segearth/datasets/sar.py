"""Radar data sets; images load through ``LoadSARImage``. OpenEarthMap-SAR is :class:`OpenEarthMapDataset`."""

from __future__ import annotations

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset

BACKGROUND, BUILDING, ROAD, WATER = [0, 0, 0], [222, 31, 7], [255, 255, 255], [0, 69, 255]
FOREST, CROPLAND, GRASS, VILLAGE = [34, 97, 38], [75, 181, 73], [0, 255, 36], [126, 0, 30]
SHIP = [255, 165, 0]


@DATASETS.register_module()
class WHUSARDataset(RemoteSensingDataset):
    """WHU-OPT-SAR: Gaofen-3 and optical images of Hubei, 5 m, cut into 512 x 512; label 0 is ignored.

    Li et al., JAG 2022; https://github.com/AmberHen/WHU-OPT-SAR-dataset
    """

    METAINFO = {
        'classes': ('farmland', 'city', 'village', 'water', 'forest', 'road', 'background'),
        'palette': [CROPLAND, BUILDING, VILLAGE, WATER, FOREST, ROAD, BACKGROUND],
    }
    DEFAULTS = {'img_suffix': '.tif', 'seg_map_suffix': '.tif', 'reduce_zero_label': True}


@DATASETS.register_module()
class PIESARDataset(RemoteSensingDataset):
    """PIE-RGB-SAR: paired optical and radar tiles of 256 x 256."""

    METAINFO = {
        'classes': ('background', 'city', 'road', 'water', 'forest', 'farmland'),
        'palette': [BACKGROUND, BUILDING, ROAD, WATER, FOREST, CROPLAND],
    }
    DEFAULTS = {'img_suffix': '.tif', 'seg_map_suffix': '.tif'}


@DATASETS.register_module()
class DDHR_Korea_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Korea: paired Gaofen-2 and Gaofen-3 tiles of 256 x 256; the regions number their classes differently.

    Ren et al., JAG 2022; https://github.com/XD-MG/DDHRNet
    """

    METAINFO = {
        'classes': ('building', 'road', 'greenery', 'water', 'farmland'),
        'palette': [BUILDING, ROAD, FOREST, WATER, CROPLAND],
    }
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class DDHR_Shandong_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Shandong: see :class:`DDHR_Korea_SARDataset`."""

    METAINFO = {
        'classes': ('farmland', 'greenery', 'road', 'building', 'water'),
        'palette': [CROPLAND, FOREST, ROAD, BUILDING, WATER],
    }
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class DDHR_Xian_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Xi'an: see :class:`DDHR_Korea_SARDataset`."""

    METAINFO = {
        'classes': ('building', 'road', 'farmland', 'greenery', 'water'),
        'palette': [BUILDING, ROAD, CROPLAND, FOREST, WATER],
    }
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class FUSARDataset(RemoteSensingDataset):
    """FUSAR-Map: Gaofen-3 images of Chinese cities, 1024 x 1024.

    Shi et al., JSTARS 2021
    """

    METAINFO = {
        'classes': ('background', 'water', 'road', 'building', 'vegetation'),
        'palette': [BACKGROUND, WATER, ROAD, BUILDING, GRASS],
    }
    DEFAULTS = {'img_suffix': '.tif', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class YESegSARDataset(RemoteSensingDataset):
    """YESeg-OPT-SAR: paired optical and radar tiles, 0.5 m, 256 x 256.

    Label rule: six classes made of the eight published ids. https://github.com/yeyuanxin110/YESeg-OPT-SAR
    """

    METAINFO = {
        'classes': ('bareground', 'grass', 'tree', 'house', 'water', 'road'),
        'palette': [BACKGROUND, GRASS, FOREST, BUILDING, WATER, ROAD],
    }
    DEFAULTS = {'img_suffix': '.png', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class HRSID_SARDataset(RemoteSensingDataset):  # noqa: N801 - named as in the original's config
    """HRSID: ships in Sentinel-1, TerraSAR-X and TanDEM-X images of 800 x 800, 0.5 to 3 m.

    The original has a config for it but forgot the class; classes and palette are this project's.
    Wei et al., IEEE Access 2020; https://github.com/chaozhong2010/HRSID
    """

    METAINFO = {'classes': ('background', 'ship'), 'palette': [BACKGROUND, SHIP]}
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}
