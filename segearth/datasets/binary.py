"""Data sets of one class against the background: buildings, roads, water.

Their published masks are black and white (0, 255); the labels here are 0 and 1, as tools/dataset_converters writes.
"""

from __future__ import annotations

import os

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset

BUILDING_METAINFO = {'classes': ('background', 'building'), 'palette': [[0, 0, 0], [255, 255, 255]]}
ROAD_METAINFO = {'classes': ('background', 'road'), 'palette': [[0, 0, 0], [255, 255, 255]]}
WATER_METAINFO = {'classes': ('background', 'water'), 'palette': [[0, 0, 0], [0, 235, 255]]}


@DATASETS.register_module()
class WHUDataset(RemoteSensingDataset):
    """WHU building: aerial images of Christchurch (0.3 m) and satellite images of East Asia (set II, 0.45 m).

    512 x 512 tiles, of set II in TIFF (said by its config). Label rule: mask >= 128 is building.
    Ji, Wei and Lu, TGRS 2019; http://gpcv.whu.edu.cn/data/building_dataset.html
    """

    METAINFO = BUILDING_METAINFO
    DEFAULTS = {'img_suffix': '.png', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class InriaDataset(WHUDataset):
    """Inria aerial image labelling: 0.3 m, five cities, 1000 x 1000 tiles of the 5000 x 5000 images.

    Label rule: mask >= 128 is building. Maggiori et al., IGARSS 2017; https://project.inria.fr/aerialimagelabeling
    """


@DATASETS.register_module()
class xBDDataset(WHUDataset):  # noqa: N801 - the original's registered name
    """xBD: satellite images before and after disasters; only those before are used.

    1024 x 1024. Label rule: target >= 1 is building. Gupta et al., arXiv 1911.09296; https://xview2.org
    """


@DATASETS.register_module()
class CHN6_CUGDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """CHN6-CUG roads: six Chinese cities, 0.5 m, 512 x 512, 903 validation images.

    Label rule: mask >= 128 is road. Zhu et al., ISPRS Journal 2021
    """

    METAINFO = ROAD_METAINFO
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}


@DATASETS.register_module()
class RoadValDataset(CHN6_CUGDataset):
    """Validation sets of the global road set: DeepGlobe (1530 images), Massachusetts (49) and SpaceNet (567).

    Label rule: mask >= 128 is road.
    """


@DATASETS.register_module()
class WaterDataset(RemoteSensingDataset):
    """WBS-SI, water bodies in Sentinel-2 images, with its own list of 499 validation names.

    Label rule: mask >= 128 is water. The published masks are JPEG, whose numbers are not exact; converted labels
    are PNG, and where a label is missing under its JPEG name the PNG of that name is taken.
    """

    METAINFO = WATER_METAINFO
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.jpg'}

    def load_data_list(self) -> list[dict]:
        """Lists the samples, with PNG labels in place of missing JPEG ones."""
        samples = super().load_data_list()
        for sample in samples:
            base, suffix = os.path.splitext(sample.get('seg_map_path') or '')
            if suffix == '.jpg' and not os.path.isfile(base + suffix) and os.path.isfile(base + '.png'):
                sample['seg_map_path'] = base + '.png'
        return samples
