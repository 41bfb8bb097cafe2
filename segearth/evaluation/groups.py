"""Which configs belong together: the groups of the paper's tables, found by pattern so that none is missed."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from segearth.errors import ConfigError, MissingFileError
from segearth.paths import PROJECT_ROOT, config_folders

GROUPS: dict[str, tuple[str, ...]] = {
    'optical': (
        'cfg_openearthmap', 'cfg_loveda', 'cfg_iSAID', 'cfg_potsdam', 'cfg_vaihingen', 'cfg_uavid', 'cfg_udd5',
        'cfg_vdd',
    ),
    'building': ('cfg_whu_aerial', 'cfg_whu_sat_II', 'cfg_inria', 'cfg_xBD'),
    'road': ('cfg_chn6-cug', 'cfg_*_road'),
    'water': ('cfg_wbs-si',),
    'sar': ('cfg_*_sar', 'cfg_hrsid'),
}  # fmt: skip
"""Group -> patterns of config names, without the suffix."""
ALL = 'all'
NOT_IN_THE_PAPER = ('cfg_demo', 'cfg_demo_sar')
CONFIG_PATTERN = 'cfg_*.py'


def group_of(name: str) -> str | None:
    """Group of a config, by its name without suffix; None for one that is in no table."""
    if name in NOT_IN_THE_PAPER:
        return None
    for group, patterns in GROUPS.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return group
    return None


def group_configs(group: str = ALL, folder: Path = PROJECT_ROOT / 'configs') -> list[Path]:
    """Configs of a group in the order of the table; 'all' takes every config in the folder except the demo's.

    Configs in no group (a user's own) come last.

    Raises:
        ConfigError: Unknown group.
        MissingFileError: The folder has no such configs.
    """
    if group not in (ALL, *GROUPS):
        raise ConfigError(f'unknown group {group!r}; known: {", ".join((*GROUPS, ALL))}')
    found = [path for path in sorted(folder.glob(CONFIG_PATTERN)) if path.stem not in NOT_IN_THE_PAPER]
    chosen = [path for path in found if group in (ALL, group_of(path.stem))]
    if not chosen:
        raise MissingFileError(f'no configs of the group {group!r} in {folder}: is the checkout whole?')
    return sorted(chosen, key=lambda path: _place(path.stem))


def match_configs(patterns: list[str]) -> list[Path]:
    """Configs by paths or patterns, relative to the working directory, else to the checkout and to its configs/.

    Raises:
        ConfigError: Two configs of one name, whose work folders would be one.
        MissingFileError: A pattern that nothing matches.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = next(filter(None, (_glob(folder, pattern) for folder in config_folders())), [])
        if not found:
            raise MissingFileError(
                f"no config matches {pattern!r}, from here or in the checkout. Quote patterns: --configs 'cfg_*_sar.py'"
            )
        paths.update(dict.fromkeys(path.resolve() for path in found))
    names: dict[str, Path] = {}
    for path in paths:
        if path.stem in names:
            raise ConfigError(f'two configs are called {path.stem}: {names[path.stem]}, {path}. Rename one')
        names[path.stem] = path
    return list(paths)


def _glob(folder: Path, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_absolute():
        folder, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
    return sorted(match for match in folder.glob(str(pattern)) if match.is_file())


def _place(name: str) -> tuple[int, int, str]:
    for index, patterns in enumerate(GROUPS.values()):
        for place, pattern in enumerate(patterns):
            if fnmatchcase(name, pattern):
                return index, place, name
    return len(GROUPS), 0, name
