from segearth.demo.classes import CLASSES, PALETTE
from segearth.io.colours import palette_of


def test_known_names_have_familiar_colours_and_all_differ():
    names = ['Water', 'quarry', 'tree', 'forest', 'solar panel', *(f'class {index}' for index in range(60))]
    colours = palette_of(names)
    assert colours[0] == PALETTE[CLASSES.index('water')] and colours[2] == PALETTE[CLASSES.index('tree')]
    assert len(set(colours)) == len(names)
    assert palette_of(CLASSES) == list(PALETTE)
