"""Encoders and the segmentor."""

import warnings

# mmcv warns on import of an optional part that is missing and not used here
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``', category=UserWarning)
