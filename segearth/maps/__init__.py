"""Maps of scenes of any size: windowed reading, blocks without seams, georeferenced results.

In the order of the calls: a scene on disk (scene.py), one stretch for all of it (stretch.py), its windows and blocks
(grid.py), labels of one block (labelling.py), blocks kept on disk until all are done (workspace.py), by one process or
a Dask cluster (run.py, cluster.py), and what is made of them: Cloud Optimized GeoTIFFs (geotiff.py), areas (area.py),
polygons (polygons.py), a quick look (quicklook.py). predict.py joins them.
"""
