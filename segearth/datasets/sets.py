"""The public data sets: base class, and a class of each that sets.json describes.

Its fact sheets say what was taken from where and the label rule, and give the classes in the order of their ids, each
with its colour in RGB. LoveDA, Potsdam, Vaihingen (ISPRSDataset) and iSAID are mmseg's own classes. Published masks of
one class are black and white (0, 255); the labels here are 0 and 1, as tools/dataset_converters writes them. Radar
images load through ``LoadSARImage``; OpenEarthMap-SAR is :class:`OpenEarthMapDataset`.
"""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from segearth.datasets.checks import bind_label_checks, check_folders, check_not_empty


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
        """Lists the samples: ``img_path``, ``seg_map_path`` and what the label loader needs.

        In place of a JPEG label that is missing, whose numbers would not be exact, a PNG of its name is taken.
        """
        check_folders(None, self.data_prefix, self.ann_file, type(self).__name__)
        samples = super().load_data_list()
        check_not_empty(self, len(samples))
        for sample in samples:
            base, suffix = os.path.splitext(sample.get('seg_map_path') or '')
            if suffix == '.jpg' and not os.path.isfile(base + suffix) and os.path.isfile(base + '.png'):
                sample['seg_map_path'] = base + '.png'
        return samples


_FACTS = json.loads(Path(__file__).with_name('sets.json').read_text(encoding='utf-8'))


def _register(name: str) -> type[RemoteSensingDataset]:
    """Makes and registers the class of a data set of sets.json."""
    summary, *details = _FACTS[name]['about']
    classes = _FACTS[name]['classes']
    content = {
        '__module__': __name__,
        '__doc__': '\n'.join([summary, '', *details]),
        'METAINFO': {'classes': tuple(classes), 'palette': list(classes.values())},
        'DEFAULTS': _FACTS[name].get('defaults', {}),
    }
    return DATASETS.register_module(module=type(name, (RemoteSensingDataset,), content))


OpenEarthMapDataset = _register('OpenEarthMapDataset')
UAVidDataset = _register('UAVidDataset')
UDD5Dataset = _register('UDD5Dataset')
VDDDataset = _register('VDDDataset')
WHUDataset = _register('WHUDataset')
InriaDataset = _register('InriaDataset')
xBDDataset = _register('xBDDataset')
CHN6_CUGDataset = _register('CHN6_CUGDataset')
RoadValDataset = _register('RoadValDataset')
WaterDataset = _register('WaterDataset')
WHUSARDataset = _register('WHUSARDataset')
PIESARDataset = _register('PIESARDataset')
DDHR_Korea_SARDataset = _register('DDHR_Korea_SARDataset')
DDHR_Shandong_SARDataset = _register('DDHR_Shandong_SARDataset')
DDHR_Xian_SARDataset = _register('DDHR_Xian_SARDataset')
FUSARDataset = _register('FUSARDataset')
YESegSARDataset = _register('YESegSARDataset')
HRSID_SARDataset = _register('HRSID_SARDataset')
