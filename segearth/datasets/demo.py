"""The generated benchmark of the embedded demonstration model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset
from segearth.demo.classes import CLASSES, PALETTE
from segearth.errors import ConfigError


@DATASETS.register_module()
class DemoDataset(RemoteSensingDataset):
    """Generated aerial scenes of 448 x 448 with exact labels; drawn into ``data_root`` when first used.

    They show that the program works, not how well it does on the Earth.

    Raises:
        ConfigError: No ``data_root``.
    """

    METAINFO = {'classes': CLASSES, 'palette': [list(colour) for colour in PALETTE]}
    DEFAULTS = {
        'img_suffix': '.png',
        'seg_map_suffix': '.png',
        'data_prefix': {'img_path': 'img_dir', 'seg_map_path': 'ann_dir'},
    }

    def __init__(self, **settings: Any) -> None:
        if not settings.get('data_root'):
            raise ConfigError('DemoDataset needs data_root, the folder to draw the benchmark into: data_root=data/demo')
        from segearth.demo.benchmark import ensure_benchmark  # late: drawing scenes needs what evaluation does not

        ensure_benchmark(Path(settings['data_root']))
        super().__init__(**settings)
