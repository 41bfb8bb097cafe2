"""Registers the segmentor, the data sets and the loading steps with mmseg, by importing them.

Configs name this module in ``custom_imports``, so that any mmseg tool can run them.
"""

import warnings
from contextlib import redirect_stdout
from io import StringIO

# mmcv and mmseg say on import which optional parts are missing, none of which is used here
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``', category=UserWarning)
with redirect_stdout(StringIO()):
    import mmseg.datasets  # noqa: F401

import segearth.datasets  # noqa: E402
import segearth.models.segmentor  # noqa: E402, F401
