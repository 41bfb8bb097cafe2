"""Registers the segmentor, the data sets, the loading steps and the metric with mmseg, by importing them.

Configs name this module in ``custom_imports``, so that any mmseg tool can run them.
"""

import segearth.datasets
import segearth.evaluation.metric
import segearth.models.segmentor  # noqa: F401
