"""Base of the remote-sensing data sets: each is a fact sheet, a list of classes with colours, and file endings."""

from __future__ import annotations

from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset

from segearth.datasets.checks import bind_label_checks, check_folders, check_not_empty


class RemoteSensingDataset(BaseSegDataset):
    """Images in one folder, labels of the same names in another, both PNG unless a member says otherwise.

    Args:
        **settings: Arguments of mmseg's BaseSegDataset: data_root, data_prefix (img_path, seg_map_path), ann_file,
            img_suffix, seg_map_suffix, reduce_zero_label, pipeline, indices, ...

    Attributes:
        METAINFO: ``classes`` and ``palette`` of the members.
        DEFAULTS: Settings of the members that the caller may override.

    Raises:
        DataError: No images.
        MissingFileError: A folder or the list of images does not exist.
    """

    METAINFO: ClassVar[dict[str, Any]] = {}
    DEFAULTS: ClassVar[dict[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{'img_suffix': '.png', 'seg_map_suffix': '.png', **self.DEFAULTS, **settings})
        bind_label_checks(self)

    def load_data_list(self) -> list[dict]:
        """Lists the samples: ``img_path``, ``seg_map_path`` and what the label loader needs."""
        check_folders(None, self.data_prefix, self.ann_file, type(self).__name__)
        samples = super().load_data_list()
        check_not_empty(self, len(samples))
        return samples
