"""Registers the segmentor, the data sets and the loading steps with mmseg, by importing them.

Configs name this module in ``custom_imports``, so that any mmseg tool can run them.
"""

import segearth.datasets
import segearth.models.segmentor  # noqa: F401
