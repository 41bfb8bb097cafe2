"""The generated benchmarks of the embedded demonstration model, optical and radar."""

from pathlib import Path
from typing import Any, ClassVar

from mmseg.registry import DATASETS

from segearth.datasets.sets import RemoteSensingDataset
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
    DEFAULTS = {'data_prefix': {'img_path': 'img_dir', 'seg_map_path': 'ann_dir'}}
    FOLDER: ClassVar[str] = 'data/demo'
    DRAWN_BY: ClassVar[str] = 'ensure_benchmark'

    def __init__(self, **settings: Any) -> None:
        root = settings.get('data_root')
        if not root:
            raise ConfigError(
                f'{type(self).__name__} needs data_root, the folder to draw the benchmark into: data_root={self.FOLDER}'
            )
        from segearth.demo import files  # late: drawing scenes needs what evaluation does not

        getattr(files, self.DRAWN_BY)(Path(root))
        super().__init__(**settings)


@DATASETS.register_module()
class DemoSARDataset(DemoDataset):
    """Simulated radar images in place of the optical ones."""

    FOLDER = 'data/demo_sar'
    DRAWN_BY = 'ensure_sar_benchmark'
