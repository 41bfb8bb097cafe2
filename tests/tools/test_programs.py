"""Every program of the checkout starts from any folder where only the requirements are installed, not the package."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from segearth.paths import PROJECT_ROOT

PROGRAMS = sorted(
    path.relative_to(PROJECT_ROOT).as_posix()
    for path in (*PROJECT_ROOT.glob('eval*.py'), *(PROJECT_ROOT / 'tools').rglob('*.py'))
)
# Starts the programs in forks of one process that has imported what they share, and takes a second instead of minutes.
# The finders that `pip install -e .` leaves are taken out, and so is everything that leads to a checkout.
START = """
import os, runpy, sys
root, *programs = sys.argv[1:]
sys.meta_path[:] = [finder for finder in sys.meta_path if '__editable__' not in getattr(finder, '__module__', '')]
def others():
    return [path for path in sys.path if path and not os.path.isdir(os.path.join(path, 'segearth'))]
sys.path[:] = others()
import cv2, matplotlib.pyplot, mmengine, mmseg.models, open_clip, pandas, rasterio, torch, transformers
try:
    import segearth
    sys.exit('test is broken: segearth is found without a checkout')
except ModuleNotFoundError:
    pass
for program in programs:
    sys.stdout.flush()
    if os.fork() == 0:
        sys.path.insert(0, os.path.dirname(os.path.join(root, program)))
        sys.argv = [program, '--help']
        os.dup2(1, 2)
        runpy.run_path(os.path.join(root, program), run_name='__main__')
        os._exit(0)
    _, status = os.wait()
    print('ENDED', program, os.waitstatus_to_exitcode(status), flush=True)
"""
