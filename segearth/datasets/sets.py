"""The public data sets, each a fact sheet: what was taken from where, the label rule, classes and colours.

LoveDA, Potsdam, Vaihingen (ISPRSDataset) and iSAID are mmseg's own classes. Published masks of one class are black and
white (0, 255); the labels here are 0 and 1, as tools/dataset_converters writes them. Radar images load through
``LoadSARImage``; OpenEarthMap-SAR is :class:`OpenEarthMapDataset`.
"""

import os
from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from segearth.datasets.checks import bind_label_checks, check_folders, check_not_empty

BLACK, WHITE = [0, 0, 0], [255, 255, 255]
BUILDING, WATER, FOREST, CROPLAND, GRASS = [222, 31, 7], [0, 69, 255], [34, 97, 38], [75, 181, 73], [0, 255, 36]
JPEG = {'img_suffix': '.jpg'}
TIFF = {'img_suffix': '.tif', 'seg_map_suffix': '.tif'}


def _classes(**colours: list[int]) -> dict[str, Any]:
    """METAINFO of classes in the order of their ids, each with its colour in RGB."""
    return {'classes': tuple(colours), 'palette': list(colours.values())}


class RemoteSensingDataset(BaseSegDataset):
    """Base of them all: images in one folder, labels of the same names in another, both PNG unless a set says other.

    Args:
        **settings: Arguments of mmseg's BaseSegDataset, such as data_root, data_prefix, img_suffix and pipeline.

    Raises:
        DataError: No images.
        MissingFileError: A folder or the list of images does not exist.
    """

    METAINFO: ClassVar[dict[str, Any]] = {}
    DEFAULTS: ClassVar[dict[str, Any]] = {}  # settings of a set that the caller may override

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{'img_suffix': '.png', 'seg_map_suffix': '.png', **self.DEFAULTS, **settings})
        bind_label_checks(self)

    def load_data_list(self) -> list[dict]:
        """Lists the samples: ``img_path``, ``seg_map_path`` and what the label loader needs."""
        check_folders(None, self.data_prefix, self.ann_file, type(self).__name__)
        samples = super().load_data_list()
        check_not_empty(self, len(samples))
        return samples


@DATASETS.register_module()
class OpenEarthMapDataset(RemoteSensingDataset):
    """OpenEarthMap: aerial and satellite images of 44 countries, 0.25 to 0.5 m, 1024 x 1024 GeoTIFF.

    Label rule: ids as published, 0 being background. The benchmark takes the validation list without the xBD part.
    OpenEarthMap-SAR has the same classes. Xia et al., WACV 2023; https://open-earth-map.org
    """

    METAINFO = _classes(
        background=BLACK, bareland=[128, 0, 0], grass=GRASS, pavement=[148, 148, 148], road=WHITE, tree=FOREST,
        water=WATER, cropland=CROPLAND, building=BUILDING,
    )  # fmt: skip
    DEFAULTS = TIFF


@DATASETS.register_module()
class UAVidDataset(RemoteSensingDataset):
    """UAVid: street scenes seen obliquely from drones, cut into tiles.

    Label rule: eight published colours, of which moving and static car are one class here.
    Lyu et al., ISPRS Journal 2020; https://uavid.nl
    """

    METAINFO = _classes(
        background=BLACK, building=[128, 0, 0], road=[128, 64, 128], car=[192, 0, 192], tree=[0, 128, 0],
        vegetation=[128, 128, 0], human=[64, 64, 0],
    )  # fmt: skip


@DATASETS.register_module()
class UDD5Dataset(RemoteSensingDataset):
    """UDD5, urban drone data set: 40 validation images, ids as downloaded.

    Chen et al., PRCV 2018; https://github.com/MarcWong/UDD
    """

    METAINFO = _classes(
        vegetation=[107, 142, 35], building=[102, 102, 156], road=[128, 64, 128], vehicle=[0, 0, 142], other=BLACK,
    )  # fmt: skip
    DEFAULTS = {'img_suffix': '.JPG'}


@DATASETS.register_module()
class VDDDataset(RemoteSensingDataset):
    """VDD, varied drone data set: 40 test images of 4000 x 3000, ids as downloaded.

    The palette is this project's. Cai et al., arXiv 2305.13608
    """

    METAINFO = _classes(
        other=BLACK, wall=[102, 102, 156], road=[128, 64, 128], vegetation=[107, 142, 35], vehicle=[0, 0, 142],
        roof=BUILDING, water=WATER,
    )  # fmt: skip
    DEFAULTS = {'img_suffix': '.JPG'}


@DATASETS.register_module()
class WHUDataset(RemoteSensingDataset):
    """WHU building: aerial images of Christchurch (0.3 m) and satellite images of East Asia (set II, 0.45 m).

    512 x 512 tiles, of set II in TIFF (said by its config). Label rule: mask >= 128 is building.
    Ji, Wei and Lu, TGRS 2019; http://gpcv.whu.edu.cn/data/building_dataset.html
    """

    METAINFO = _classes(background=BLACK, building=WHITE)


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

    METAINFO = _classes(background=BLACK, road=WHITE)
    DEFAULTS = JPEG


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

    METAINFO = _classes(background=BLACK, water=[0, 235, 255])
    DEFAULTS = {'img_suffix': '.jpg', 'seg_map_suffix': '.jpg'}

    def load_data_list(self) -> list[dict]:
        """Lists the samples, with PNG labels in place of missing JPEG ones."""
        samples = super().load_data_list()
        for sample in samples:
            base, suffix = os.path.splitext(sample.get('seg_map_path') or '')
            if suffix == '.jpg' and not os.path.isfile(base + suffix) and os.path.isfile(base + '.png'):
                sample['seg_map_path'] = base + '.png'
        return samples


@DATASETS.register_module()
class WHUSARDataset(RemoteSensingDataset):
    """WHU-OPT-SAR: Gaofen-3 and optical images of Hubei, 5 m, cut into 512 x 512; label 0 is ignored.

    Li et al., JAG 2022; https://github.com/AmberHen/WHU-OPT-SAR-dataset
    """

    METAINFO = _classes(
        farmland=CROPLAND, city=BUILDING, village=[126, 0, 30], water=WATER, forest=FOREST, road=WHITE,
        background=BLACK,
    )  # fmt: skip
    DEFAULTS = {**TIFF, 'reduce_zero_label': True}


@DATASETS.register_module()
class PIESARDataset(RemoteSensingDataset):
    """PIE-RGB-SAR: paired optical and radar tiles of 256 x 256."""

    METAINFO = _classes(
        background=BLACK, city=BUILDING, road=WHITE, water=WATER, forest=FOREST, farmland=CROPLAND,
    )  # fmt: skip
    DEFAULTS = TIFF


@DATASETS.register_module()
class DDHR_Korea_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Korea: paired Gaofen-2 and Gaofen-3 tiles of 256 x 256; the regions number their classes differently.

    Ren et al., JAG 2022; https://github.com/XD-MG/DDHRNet
    """

    METAINFO = _classes(building=BUILDING, road=WHITE, greenery=FOREST, water=WATER, farmland=CROPLAND)
    DEFAULTS = JPEG


@DATASETS.register_module()
class DDHR_Shandong_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Shandong: tiles as of :class:`DDHR_Korea_SARDataset`."""

    METAINFO = _classes(farmland=CROPLAND, greenery=FOREST, road=WHITE, building=BUILDING, water=WATER)
    DEFAULTS = JPEG


@DATASETS.register_module()
class DDHR_Xian_SARDataset(RemoteSensingDataset):  # noqa: N801 - the original's registered name
    """DDHRNet, Xi'an: tiles as of :class:`DDHR_Korea_SARDataset`."""

    METAINFO = _classes(building=BUILDING, road=WHITE, farmland=CROPLAND, greenery=FOREST, water=WATER)
    DEFAULTS = JPEG


@DATASETS.register_module()
class FUSARDataset(RemoteSensingDataset):
    """FUSAR-Map: Gaofen-3 images of Chinese cities, 1024 x 1024. Shi et al., JSTARS 2021."""

    METAINFO = _classes(background=BLACK, water=WATER, road=WHITE, building=BUILDING, vegetation=GRASS)
    DEFAULTS = {'img_suffix': '.tif'}


@DATASETS.register_module()
class YESegSARDataset(RemoteSensingDataset):
    """YESeg-OPT-SAR: paired optical and radar tiles, 0.5 m, 256 x 256.

    Label rule: six classes made of the eight published ids. https://github.com/yeyuanxin110/YESeg-OPT-SAR
    """

    METAINFO = _classes(bareground=BLACK, grass=GRASS, tree=FOREST, house=BUILDING, water=WATER, road=WHITE)


@DATASETS.register_module()
class HRSID_SARDataset(RemoteSensingDataset):  # noqa: N801 - named as in the original's config
    """HRSID: ships in Sentinel-1, TerraSAR-X and TanDEM-X images of 800 x 800, 0.5 to 3 m.

    The original has a config for it but forgot the class; classes and palette are this project's.
    Wei et al., IEEE Access 2020; https://github.com/chaozhong2010/HRSID
    """

    METAINFO = _classes(background=BLACK, ship=[255, 165, 0])
    DEFAULTS = JPEG
