"""Training of an upsampler: the objective's step, its terms, and a start as the colour filter."""

from simfeatup.training.step import Recipe, SimFeatUp
from simfeatup.training.warm_start import start_as_filter

__all__ = ['Recipe', 'SimFeatUp', 'start_as_filter']
