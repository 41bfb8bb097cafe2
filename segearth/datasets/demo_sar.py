"""The generated radar benchmark of the embedded demonstration model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from segearth.datasets.base import RemoteSensingDataset
from segearth.datasets.demo import DemoDataset
from segearth.errors import ConfigError


@DATASETS.register_module()
class DemoSARDataset(RemoteSensingDataset):
    """Simulated radar images of 448 x 448 with exact labels; drawn into ``data_root`` when first used.

    They show that the program works, not how well it does on the Earth.

    Raises:
        ConfigError: No ``data_root``.
    """

    METAINFO = DemoDataset.METAINFO
    DEFAULTS = DemoDataset.DEFAULTS

    def __init__(self, **settings: Any) -> None:
        if not settings.get('data_root'):
            raise ConfigError('DemoSARDataset needs data_root, the folder to draw into: data_root=data/demo_sar')
        from segearth.demo.benchmark import ensure_sar_benchmark  # late, as in DemoDataset

        ensure_sar_benchmark(Path(settings['data_root']))
        super().__init__(**settings)
