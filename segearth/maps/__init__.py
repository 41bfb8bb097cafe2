"""Maps of scenes of any size: windowed reading, blocks without seams, georeferenced results; predict.py joins them."""

from segearth.paths import require

require('maps', 'pyproj')  # in words, instead of an ImportError
