"""Data sets and loading steps, registered with mmseg under the original's names."""

from contextlib import redirect_stdout
from io import StringIO

with redirect_stdout(StringIO()):  # mmseg prints on import which optional parts are missing, none of which is used here
    import mmseg.datasets  # noqa: F401

from segearth.datasets.base import RemoteSensingDataset
from segearth.datasets.binary import (
    CHN6_CUGDataset,
    InriaDataset,
    RoadValDataset,
    WaterDataset,
    WHUDataset,
    xBDDataset,
)
from segearth.datasets.demo import DemoDataset
from segearth.datasets.demo_sar import DemoSARDataset
from segearth.datasets.optical import OpenEarthMapDataset
from segearth.datasets.sar import (
    DDHR_Korea_SARDataset,
    DDHR_Shandong_SARDataset,
    DDHR_Xian_SARDataset,
    FUSARDataset,
    HRSID_SARDataset,
    PIESARDataset,
    WHUSARDataset,
    YESegSARDataset,
)
from segearth.datasets.transforms import LoadOpticalImage, LoadSARImage, LoadSegLabel
from segearth.datasets.uav import UAVidDataset, UDD5Dataset, VDDDataset

__all__ = [
    'CHN6_CUGDataset',
    'DDHR_Korea_SARDataset',
    'DDHR_Shandong_SARDataset',
    'DDHR_Xian_SARDataset',
    'DemoDataset',
    'DemoSARDataset',
    'FUSARDataset',
    'HRSID_SARDataset',
    'InriaDataset',
    'LoadOpticalImage',
    'LoadSARImage',
    'LoadSegLabel',
    'OpenEarthMapDataset',
    'PIESARDataset',
    'RemoteSensingDataset',
    'RoadValDataset',
    'UAVidDataset',
    'UDD5Dataset',
    'VDDDataset',
    'WHUDataset',
    'WHUSARDataset',
    'WaterDataset',
    'YESegSARDataset',
    'xBDDataset',
]
