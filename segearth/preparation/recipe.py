"""What a data set looks like when downloaded, and what becomes of it: one record a set, read from recipes.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segearth.errors import ConfigError
from segearth.preparation.label_rules import Colours, Ids, LabelRule, Polygons, Threshold

Box = tuple[int, int, int, int]  # (y1, x1, y2, x2) in pixels, y2 and x2 exclusive


@dataclass(frozen=True)
class Tiling:
    """How large images are cut: windows on a grid, the last one of a row or column moved back to the edge.

    Source: mmsegmentation's converters of Potsdam, Vaihingen and iSAID, whose windows these are (where theirs visit a
    window twice, it is here once; where that of the first two asks for a stride of 256, it takes 512).
    """

    window: tuple[int, int]  # (height, width) in pixels
    stride: tuple[int, int]  # (height, width) between windows
    tile_name: str = '{name}_{x1}_{y1}_{x2}_{y2}'  # without suffix; as the original names the tiles of a set
    is_padded: bool = False  # smaller images are filled up at the bottom and on the right; else windows are as small

    def __post_init__(self) -> None:
        for side, step in zip(self.window, self.stride, strict=True):
            if not 0 < step <= side:
                raise ConfigError(f'a window of {side} pixels with stride {step}: allowed are 1 to {side}')

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Windows that cover an image of a size (height, width), in row-major order, each once."""
        height, width = (max(pair) if self.is_padded else pair[0] for pair in zip(size, self.window, strict=True))
        window_height, window_width = min(self.window[0], height), min(self.window[1], width)
        return [
            (y, x, y + window_height, x + window_width)
            for y in [*range(0, height - window_height, self.stride[0]), height - window_height]
            for x in [*range(0, width - window_width, self.stride[1]), width - window_width]
        ]

    def names(self, name: str, size: tuple[int, int]) -> dict[str, Box]:
        """Names of the pieces of one image, with their boxes."""
        return {
            self.tile_name.format(name=name, y1=y1, x1=x1, y2=y2, x2=x2): (y1, x1, y2, x2)
            for y1, x1, y2, x2 in self.boxes(size)
        }


@dataclass(frozen=True)
class Recipe:
    """Preparation of one data set.

    `image` and `label` are regular expressions for paths, small and capital letters alike. They are tried at the end of
    a path, from the beginning of a folder's or file's name on, and their named groups make the name of the image. For
    :class:`~segearth.preparation.label_rules.Polygons`, `label` is for the one file of all labels.
    """

    title: str  # in messages
    source: str  # what to give to the program, for the help and for messages
    image: str
    label: str
    data_folder: str  # below the folder of all data sets
    image_folder: str  # below data_folder, as the next
    label_folder: str
    rule: LabelRule
    config: str  # file below configs/ that reads the result
    image_suffix: str = '.png'  # of the images written; images with this ending are copied, others encoded anew
    label_suffix: str = '.png'  # of the labels written
    pair_name: str = '{key}'  # template over the named groups; image and label of the same name are a pair
    tiling: Tiling | None = None  # None leaves images whole
    names: tuple[str, ...] | None = None  # images of the split that is evaluated; None for all
    list_name: str | None = None  # file in the source that lists the names
    is_list_required: bool = False  # without a list (from the source or by --list) nothing is converted
    written_list: str | None = None  # file below data_folder that gets the names, for the config
    is_benchmark: bool = True  # the published figures are of the result; False for variants
    note: str = ''  # what the user has to know besides


def _of_json(facts: dict[str, Any]) -> Any:
    """What an object of the file is: one of the kind that it names, else a dictionary; lists become tuples."""
    kinds = {kind.__name__: kind for kind in (Threshold, Colours, Ids, Polygons, Tiling)}
    values = {key: _frozen(value) for key, value in facts.items()}
    return kinds.get(values.pop('kind', ''), dict)(**values)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


_CONTENT = json.loads(Path(__file__).with_name('recipes.json').read_text(encoding='utf-8'), object_hook=_of_json)
PROGRAMS: dict[str, dict[str, Recipe]] = {
    program: {name: Recipe(**facts | {'rule': _CONTENT['rules'][facts['rule']]}) for name, facts in sets.items()}
    for program, sets in _CONTENT['programs'].items()
}
"""Program in tools/dataset_converters -> what it prepares; a program of one data set is called without its name."""


def preparation_command(config: str) -> str | None:
    """The command that prepares the data set of a config (``cfg_loveda.py``); None for sets used as downloaded."""
    for program, recipes in PROGRAMS.items():
        for name, recipe in recipes.items():
            if recipe.config == config and recipe.is_benchmark:
                words = [name] if len(recipes) > 1 else []
                return ' '.join(['python', f'tools/dataset_converters/{program}.py', *words, 'SOURCE'])
    return None
