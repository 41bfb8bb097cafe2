"""Registers the segmentor, the data sets and the loading steps with mmseg, by importing them.

Configs name this module in ``custom_imports``, so that any mmseg tool can run them.
"""

import warnings

# mmcv without compiled operators says on import that one is missing, which nothing here uses
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``', category=UserWarning)

import segearth.datasets  # noqa: E402
import segearth.models.segmentor  # noqa: E402, F401
