"""The seven classes of the generated world, in the order of their label ids."""

from segearth.io.panels import FAMILIAR

CLASSES = ('building', 'road', 'water', 'tree', 'grass', 'cropland', 'bareland')
PALETTE = tuple(FAMILIAR[name] for name in CLASSES)
BUILDING, ROAD, WATER, TREE, GRASS, CROPLAND, BARELAND = range(len(CLASSES))
