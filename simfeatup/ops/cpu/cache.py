"""Where compiled loops are kept between processes, under a name that changes with all that they are made from.

numba's own cache notices changes of the file that a loop is written in, but not of the other files whose functions
it inlines. So each state of this package's sources has a folder of its own, named by a hash of them, of the versions
of what compiles them and of the processor. What was written by another state is never read, and of old folders only
a few are left.
"""

import hashlib
import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
from llvmlite import binding

PREFIX = 'simfeatup-loops-'
KEPT = 4  # folders beside the one in use, those used last: of other branches, environments, processors of a cluster
PACKAGES = 'numba', 'llvmlite', 'numpy'
SETTINGS = 'OPT', 'BOUNDSCHECK', 'LOOP_VECTORIZE', 'SLP_VECTORIZE', 'CPU_NAME', 'CPU_FEATURES'  # of numba

logger = logging.getLogger(__name__)
_numba_setting = threading.Lock()


def cached(compile_it: Callable[..., Callable], function: Callable) -> Callable:
    """Has numba (its decorator, which takes ``cache=True``) keep what it compiles, where there is a place for it."""
    folder = cache_folder()
    if folder is None or not os.path.exists(function.__code__.co_filename):
        return compile_it()(function)
    with _numba_setting:  # read where a function is decorated, and other users of numba may have their own
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            loop = compile_it(cache=True)(function)
        finally:
            numba.config.CACHE_DIR = before
    _tolerate_failures(loop._cache)
    return loop


@cache
def cache_folder() -> Path | None:
    """Folder of the compiled loops of this state of the package; None where none can be written."""
    name = PREFIX + digest(Path(__file__).parent)
    for place in places():
        folder = place / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
        except OSError:
            continue
        _remove_old(place, folder)
        return folder
    logger.info('No place to keep compiled loops (%s); every process compiles anew.', ', '.join(map(str, places())))
    return None


def places() -> list[Path]:
    """Folders that are tried, in order: $NUMBA_CACHE_DIR, __pycache__ of this package, the user's cache."""
    named = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    users = Path(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')) / 'simfeatup'
    return [*named, Path(__file__).parent / '__pycache__', *([users] if users.is_absolute() else [])]


def digest(folder: Path) -> str:
    """Hash of all that compiled loops depend on: the sources in a folder, versions, processor, numba's settings."""
    sources = [(path.name, path.read_bytes()) for path in sorted(folder.glob('*.py'))]
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    versions = [sys.version, *map(importlib.metadata.version, PACKAGES)]
    settings = [getattr(numba.config, name) for name in SETTINGS]
    return hashlib.sha256(repr((sources, versions, processor, settings)).encode()).hexdigest()[:20]


def _remove_old(place: Path, current: Path) -> None:
    def last_used(folder: Path) -> float:
        try:
            return folder.stat().st_mtime
        except OSError:  # another process was quicker
            return 0

    others = sorted((path for path in place.glob(f'{PREFIX}*') if path != current), key=last_used)
    for folder in others[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _tolerate_failures(loop_cache) -> None:
    """A full disk, a damaged file or a folder that another process removed costs the time to compile, no more."""
    for name in ('load_overload', 'save_overload'):
        method = getattr(loop_cache, name)

        def tolerant(*arguments, method: Callable = method):
            try:
                return method(*arguments)
            except Exception as error:  # a damaged pickle may raise anything
                logger.info('The compiled loops in %s are of no use: %s', loop_cache.cache_path, error)
                return None

        setattr(loop_cache, name, tolerant)
