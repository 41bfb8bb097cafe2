"""Registers the segmentor, the data sets and the loading steps with mmseg, by importing them.

Configs name this module in ``custom_imports``, so that any mmseg tool can run them.
"""

from contextlib import redirect_stdout
from io import StringIO

with redirect_stdout(StringIO()):  # mmseg prints on import which optional parts are missing, none of which is used here
    import segearth.datasets
import segearth.models.segmentor  # noqa: F401
