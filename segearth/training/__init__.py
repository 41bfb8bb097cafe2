"""Training with mmengine's Runner: what SimFeatUp and AlignEarth share, and SimFeatUp for the encoders of the table.

Importing the package registers its models, data sets, samplers and hooks with mmengine.
"""

from segearth.training import checkpoints, data, monitor, upsampler  # noqa: F401 - what they register
