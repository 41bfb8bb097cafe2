"""Packages that only maps need, asked for in words where they are missing."""

from __future__ import annotations

import importlib.util

from segearth.errors import ConfigError
from segearth.paths import IS_INSTALLED


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
        package = f"'segearth[{extra}]'" if IS_INSTALLED else f"-e '.[{extra}]'"
        raise ConfigError(f'this needs {", ".join(missing)}, not installed here: pip install {package}')
