"""Colours of classes by their names: water is blue and trees are green, whatever the order of the classes."""

from __future__ import annotations

from collections.abc import Sequence

from segearth.io.panels import default_palette

BUILDING, WATER, TREE = (220, 50, 47), (38, 110, 235), (0, 100, 0)
FAMILIAR: dict[str, tuple[int, int, int]] = {
    'building': BUILDING,
    'house': BUILDING,
    'road': (128, 128, 128),
    'water': WATER,
    'river': WATER,
    'tree': TREE,
    'forest': TREE,
    'grass': (120, 215, 90),
    'cropland': (245, 215, 60),
    'bareland': (165, 110, 65),
    'background': (60, 60, 60),
}
"""Class name -> colour."""

LEAST_DISTANCE = 60  # in RGB, between colours that can be told apart


def palette_of(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
    """Colours for classes: the familiar one of a known name, else one that no other class has.

    Args:
        class_names: K names.

    Returns:
        K RGB colours.
    """
    colours: list[tuple[int, int, int] | None] = [None] * len(class_names)
    for index, name in enumerate(class_names):
        familiar = FAMILIAR.get(name.casefold())
        if familiar not in colours:
            colours[index] = familiar
    used = [colour for colour in colours if colour is not None]
    spare = default_palette(2 * len(class_names))
    free = [colour for colour in spare if all(_distance(colour, other) >= LEAST_DISTANCE for other in used)]
    others = iter([*free, *(colour for colour in spare if colour not in free)])
    return [next(others) if colour is None else colour for colour in colours]


def _distance(first: Sequence[int], second: Sequence[int]) -> float:
    return sum((one - other) ** 2 for one, other in zip(first, second, strict=True)) ** 0.5
