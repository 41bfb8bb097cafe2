"""Packages that only maps need, asked for in words where they are missing."""

from __future__ import annotations

import importlib.util

from segearth.errors import ConfigError


def require(extra: str, *modules: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
        extra: Group of optional dependencies in pyproject.toml.
        *modules: Names of the modules that are about to be imported.

    Raises:
        ConfigError: Some are missing.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'this needs {", ".join(missing)}, not installed here: pip install -e ".[{extra}]"')
