"""Training with mmengine's Runner: what SimFeatUp and AlignEarth share, and SimFeatUp for the encoders of the table.

Importing the package registers its models, data sets, samplers and hooks with mmengine.
"""

from segearth.training.checkpoints import Checkpoints
from segearth.training.data import ImageFolder, StepSampler
from segearth.training.hooks import Calibration, ClipFirstSteps, SeedSteps, StartAsFilter
from segearth.training.monitor import Monitor, Pictures
from segearth.training.upsampler import SimFeatUpModel

__all__ = [
    'Calibration',
    'Checkpoints',
    'ClipFirstSteps',
    'ImageFolder',
    'Monitor',
    'Pictures',
    'SeedSteps',
    'SimFeatUpModel',
    'StartAsFilter',
    'StepSampler',
]
