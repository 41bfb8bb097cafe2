"""The seven classes of the generated world, in the order of their label ids."""

from __future__ import annotations

CLASSES = ('building', 'road', 'water', 'tree', 'grass', 'cropland', 'bareland')
PALETTE = ((220, 50, 47), (128, 128, 128), (38, 110, 235), (0, 100, 0), (120, 215, 90), (245, 215, 60), (165, 110, 65))
BUILDING, ROAD, WATER, TREE, GRASS, CROPLAND, BARELAND = range(len(CLASSES))
