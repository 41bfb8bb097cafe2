"""What a data set looks like when downloaded, and what becomes of it: one record a set."""

from __future__ import annotations

from dataclasses import dataclass

from segearth.preparation.label_rules import LabelRule, Threshold
from segearth.preparation.tiling import Tiling


@dataclass(frozen=True)
class Recipe:
    """Preparation of one data set.

    Attributes:
        name: Name of the set on the command line.
        title: Name of the set in messages.
        source: What to give to the program, for the help and for messages.
        image: Regular expression for the paths of the images, small and capital letters alike. It is tried at the
            end of the path, from the beginning of a folder's or file's name on, and its named groups make the name.
        label: Regular expression for the paths of the labels; for :class:`Polygons`, for the one file of all labels.
        data_folder: Folder of the set, below the folder of all data sets.
        image_folder: Folder of the images, below `data_folder`.
        label_folder: Folder of the labels, below `data_folder`.
        rule: What makes class ids of the published mask; by default that is of one class, black and white.
        config: Config that reads the result, below configs/; ``cfg_NAME.py`` if empty.
        image_suffix: Ending of the images written; images with this ending are copied, others encoded anew.
        label_suffix: Ending of the labels written.
        pair_name: Template over the named groups; image and label of the same name are a pair.
        tiling: How images are cut; None to leave them whole.
        names: The images of the split that is evaluated; None for all.
        list_name: File in the source that lists the names.
        is_list_required: Without a list (from the source or by --list) nothing is converted.
        written_list: File below `data_folder` that gets the names, for the config.
        is_benchmark: The result is what the published figures are of; False for variants.
        note: What the user has to know besides.
    """

    name: str
    title: str
    source: str
    image: str
    label: str
    data_folder: str
    image_folder: str
    label_folder: str
    rule: LabelRule = Threshold(128)
    config: str = ''
    image_suffix: str = '.png'
    label_suffix: str = '.png'
    pair_name: str = '{key}'
    tiling: Tiling | None = None
    names: frozenset[str] | None = None
    list_name: str | None = None
    is_list_required: bool = False
    written_list: str | None = None
    is_benchmark: bool = True
    note: str = ''

    def __post_init__(self) -> None:
        object.__setattr__(self, 'config', self.config or f'cfg_{self.name}.py')
