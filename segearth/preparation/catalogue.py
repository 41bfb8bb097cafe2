"""Which program prepares which data sets."""

from __future__ import annotations

from collections.abc import Mapping

from segearth.preparation.binary_sets import BINARY_SETS
from segearth.preparation.colour_sets import COLOUR_SETS
from segearth.preparation.hrsid import CONFIG as HRSID_CONFIG
from segearth.preparation.id_sets import LOVEDA, OPEN_EARTH_MAP, YESEG
from segearth.preparation.recipes import Recipe

# Program in tools/dataset_converters -> what it prepares; a program of one data set is called without its name.
PROGRAMS: dict[str, Mapping[str, Recipe]] = {
    'binary_masks': BINARY_SETS,
    'colour_tiles': COLOUR_SETS,
    'openearthmap': {'openearthmap': OPEN_EARTH_MAP},
    'loveda': {'loveda': LOVEDA},
    'yeseg': {'yeseg': YESEG},
}


def preparation_command(config: str) -> str | None:
    """The command that prepares the data set of a config; None for sets that are used as downloaded.

    Args:
        config: File name, such as ``cfg_loveda.py``.
    """
    if config == HRSID_CONFIG:
        return 'python tools/dataset_converters/hrsid.py SOURCE'
    for program, recipes in PROGRAMS.items():
        for name, recipe in recipes.items():
            if recipe.config == config and recipe.is_benchmark:
                words = [name] if len(recipes) > 1 else []
                return ' '.join(['python', f'tools/dataset_converters/{program}.py', *words, 'SOURCE'])
    return None
