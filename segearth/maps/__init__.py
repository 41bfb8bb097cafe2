"""Maps of scenes of any size: windowed reading, blocks without seams, georeferenced results.

The way of a scene: opened and read box by box (scene.py), cut into windows and blocks, the windows of a block scored
and its pixels labelled (labelling.py), block by block here (run.py) or on a Dask cluster (cluster.py), kept on disk
until all are done (workspace.py), and made into Cloud Optimized GeoTIFFs, polygons, a quick look (results.py) and a
table of areas (areas.py). predict.py joins them; configuration.py reads a data set's config.
"""

from segearth.paths import require

require('maps', 'pyproj')  # in words, instead of an ImportError
