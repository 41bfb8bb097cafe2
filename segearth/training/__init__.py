"""Training with mmengine's Runner: what SimFeatUp and AlignEarth share, and SimFeatUp for the encoders of the table.

Importing the package registers its models, data sets, samplers and hooks with mmengine.
"""

from segearth.training.checkpoints import Checkpoints
from segearth.training.demo_scenes import DemoScenes
from segearth.training.images import ImageFolder
from segearth.training.monitor import ClipFirstSteps, Monitor, SeedSteps
from segearth.training.pictures import Pictures
from segearth.training.sampler import StepSampler
from segearth.training.simfeatup import SimFeatUpModel
from segearth.training.start import Calibration, StartAsFilter

__all__ = [
    'Calibration',
    'Checkpoints',
    'ClipFirstSteps',
    'DemoScenes',
    'ImageFolder',
    'Monitor',
    'Pictures',
    'SeedSteps',
    'SimFeatUpModel',
    'StartAsFilter',
    'StepSampler',
]
