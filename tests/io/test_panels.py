import numpy as np

from segearth.demo.classes import CLASSES, PALETTE
from segearth.io.panels import IGNORED_COLOUR, colour_map, default_palette, draw_panels, overlay, palette_of


def test_colours_of_classes_and_of_pixels_without_one():
    labels = np.array([[0, 1], [2, 255], [-1, 0]])
    coloured = colour_map(labels, [(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    assert coloured.dtype == np.uint8
    assert coloured[0, 1].tolist() == [4, 5, 6]
    assert coloured[1, 1].tolist() == coloured[2, 0].tolist() == list(IGNORED_COLOUR)


def test_default_colours_are_distinct():
    assert len(set(default_palette(40))) == 40


def test_overlay_blends():
    image = np.full((1, 2, 3), 100, np.uint8)
    assert overlay(image, np.array([[0, 1]]), [(0, 0, 0), (200, 200, 200)], 0.25)[0, :, 0].tolist() == [75, 125]


def test_panels_hold_every_image_and_a_wrapped_legend():
    image = np.zeros((20, 30, 3), np.uint8)
    names = [f'class number {index}' for index in range(12)]
    few = draw_panels([('one', image)], names[:1], default_palette(1))
    many = draw_panels([('one', image), ('two', np.zeros((40, 60, 3), np.uint8))], names, default_palette(12))
    assert many.width > 60 and many.width < 100  # the larger image is scaled to the first one's height
    assert many.height > few.height
    colours = {colour for _, colour in many.getcolors(10**6)}
    assert set(default_palette(12)) <= colours


def test_known_names_have_familiar_colours_and_all_differ():
    names = ['Water', 'quarry', 'tree', 'forest', 'solar panel', *(f'class {index}' for index in range(60))]
    colours = palette_of(names)
    assert colours[0] == PALETTE[CLASSES.index('water')] and colours[2] == PALETTE[CLASSES.index('tree')]
    assert len(set(colours)) == len(names)
    assert palette_of(CLASSES) == list(PALETTE)
