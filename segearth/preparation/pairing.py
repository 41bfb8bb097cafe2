"""Which image belongs to which label, and which of them are wanted."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from segearth.errors import DataError, MissingFileError, shorten
from segearth.preparation.label_rules import Polygons, read_polygons
from segearth.preparation.recipe import Recipe
from segearth.preparation.sources import ARCHIVES, Member, Pair

MAX_SHOWN = 5  # names in a message
PICTURE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.tif', '.tiff'})  # endings that lists of names may carry


def find_pairs(
    recipe: Recipe, members: Sequence[Member], names: Sequence[str] | None = None, allow_missing: bool = False
) -> list[Pair]:
    """Finds the images wanted and their labels among the files of the source, sorted by name.

    Without `names` the recipe says which are wanted. A wanted image that is not there or has no label is a DataError,
    unless `allow_missing` leaves it out.
    """
    images = _by_name(recipe, recipe.image, recipe.image_suffix, members)
    outlines = _find_outlines(recipe, members)
    if outlines is None:
        labels = _by_name(recipe, recipe.label, recipe.label_suffix, members)
    else:
        labels = dict.fromkeys(read_polygons(outlines), outlines)
    if not images or not labels:
        raise DataError(_tell_nothing_found(recipe, members, len(images), len(labels)))
    names = recipe.names if names is None else names
    wanted = None if names is None else set(names)
    absent = sorted((wanted or set()) - images.keys())
    _check_none(recipe, absent, 'images that belong to the part evaluated are not there', allow_missing)
    chosen = sorted(images.keys() & wanted if wanted is not None else images.keys(), key=_natural)
    _check_none(recipe, [name for name in chosen if name not in labels], 'images have no label', allow_missing)
    if wanted is None:
        _check_none(recipe, sorted(labels.keys() - images.keys()), 'labels have no image', allow_missing)
    pairs = [Pair(name, images[name], labels[name]) for name in chosen if name in labels]
    if not pairs:
        raise DataError(f'{recipe.title}: none of the images wanted is in the source. Expected: {recipe.source}')
    return pairs


def find_names(recipe: Recipe, members: Iterable[Member], list_file: str | os.PathLike[str] | None) -> list[str] | None:
    """Names of the wanted images without folder and suffix, from the user's list, else the source's; None without."""
    if list_file is not None:
        path = Path(list_file)
        if not path.is_file():
            raise MissingFileError(f'list of images not found: {path}')
        return _read_names(path.read_bytes(), str(path))
    outlines = _find_outlines(recipe, members)
    if outlines is not None:
        return list(read_polygons(outlines))
    if recipe.list_name is None:
        return None
    lists = [member for member in members if PurePosixPath(member.path).name == recipe.list_name]
    if len(lists) > 1:
        raise DataError(
            f'{recipe.title}: several lists {recipe.list_name} ({shorten(lists, MAX_SHOWN)}): choose one with '
            '--list FILE'
        )
    if not lists and recipe.is_list_required:
        raise MissingFileError(
            f'{recipe.title}: {recipe.list_name} is not in the source, so it is not known which images belong to the '
            f'part evaluated. Expected: {recipe.source}. Or pass the list with --list FILE'
        )
    return _read_names(lists[0].content().getvalue(), str(lists[0])) if lists else None


def _find_outlines(recipe: Recipe, members: Iterable[Member]) -> Member | None:
    """The one file that holds the labels of all images, for sets that publish outlines."""
    if not isinstance(recipe.rule, Polygons):
        return None
    return next((member for member in members if _ending(recipe.label).search(member.path)), None)


def _ending(pattern: str) -> re.Pattern[str]:
    return re.compile(rf'(?:^|/){pattern}$', re.IGNORECASE)


def _read_names(data: bytes, shown: str) -> list[str]:
    try:
        lines = data.decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'{shown} is no text file: a list has one name a line') from error
    files = [PurePosixPath(line.strip()) for line in lines if line.strip()]
    names = [file.stem if file.suffix.lower() in PICTURE_SUFFIXES else file.name for file in files]
    if not names:
        raise DataError(f'{shown} names no images: a list has one name a line')
    return list(dict.fromkeys(names))


def _by_name(recipe: Recipe, pattern: str, suffix: str, members: Iterable[Member]) -> dict[str, Member]:
    found: dict[str, Member] = {}
    matcher = _ending(pattern)
    for member in members:
        match = matcher.search(member.path)
        if match is None:
            continue
        name = recipe.pair_name.format(**match.groupdict())
        other = found.get(name)
        if other is None or _rank(member, suffix) < _rank(other, suffix):
            found[name] = member
        elif _rank(member, suffix) == _rank(other, suffix):
            raise DataError(
                f'{recipe.title}: {name} is there twice: {other} and {member}. Give a source that has it once'
            )
    return found


def _rank(member: Member, suffix: str) -> tuple[bool, bool]:
    """Plain files before those in archives (an archive beside its content), the wanted format before others."""
    return member.inner is not None, not suffix.endswith(member.suffix)


def _check_none(recipe: Recipe, names: Sequence[str], what: str, allow: bool) -> None:
    if names and not allow:
        note = f' {recipe.note}.' if recipe.note else ''
        raise DataError(
            f'{recipe.title}: {len(names)} {what}: {shorten(names, MAX_SHOWN)}. Expected: {recipe.source}.{note} To go '
            'on without these: --allow-missing'
        )


def _tell_nothing_found(recipe: Recipe, members: Sequence[Member], num_images: int, num_labels: int) -> str:
    seen = shorten([member.path for member in members], MAX_SHOWN) or 'nothing at all'
    archive = next((member for member in members if member.suffix in ARCHIVES), None)  # such as a zip inside a zip
    unpack = f'. {archive} is an archive that is not looked into: unpack it first' if archive else ''
    note = f'. {recipe.note}' if recipe.note else ''
    return (
        f'{recipe.title}: found {num_images} images and {num_labels} labels. Expected: {recipe.source}. The source '
        f'has {len(members)} files: {seen}{unpack}{note}'
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts water_body_2 before water_body_10."""
    return [(int(part), '') if part.isdigit() else (0, part) for part in re.split(r'(\d+)', name)]
