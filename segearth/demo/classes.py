"""The seven classes of the generated world, in the order of their label ids, and what its scenes are made of."""

import json
from pathlib import Path

from segearth.io.panels import FAMILIAR

CLASSES = ('building', 'road', 'water', 'tree', 'grass', 'cropland', 'bareland')
PALETTE = tuple(FAMILIAR[name] for name in CLASSES)
BUILDING, ROAD, WATER, TREE, GRASS, CROPLAND, BARELAND = range(len(CLASSES))
WORLD = json.loads(Path(__file__).with_name('world.json').read_text(encoding='utf-8'))
