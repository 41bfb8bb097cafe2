"""Crops of generated scenes with captions, which are the only supervision of the demo model.

A caption is made from nothing but the area fractions of the classes in its crop. Buildings and roads cover little, so
most plain crops hardly show them: each crop looks for one class drawn evenly, and the best of some random places is
taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from open_clip import OPENAI_IMAGENET_TEMPLATES

from segearth.demo.classes import CLASSES

SYNONYMS: dict[str, tuple[str, ...]] = {
    'building': ('building', 'buildings', 'house', 'houses', 'roof', 'rooftops'),
    'road': ('road', 'roads', 'street', 'highway', 'paved road', 'asphalt'),
    'water': ('water', 'river', 'lake', 'pond', 'water body'),
    'tree': ('tree', 'trees', 'forest', 'woodland', 'wood'),
    'grass': ('grass', 'lawn', 'meadow', 'grassland', 'low vegetation'),
    'cropland': ('cropland', 'farmland', 'crops', 'agricultural land', 'agriculture field', 'field'),
    'bareland': ('bareland', 'bare land', 'bare soil', 'barren', 'barren land', 'dirt'),
}
TEMPLATES = (
    '{}', 'an aerial image of {}', 'a satellite image of {}', 'a remote sensing image of {}', '{} seen from above',
    'an aerial photo showing {}', 'a top view of {}', 'there is {} in the scene', 'a scene with {}', 'land with {}',
)  # fmt: skip
JOINTS = (' and ', ' with ', ' next to ', ' near ', ', ')
IMAGENET_TEMPLATE_SHARE = 0.35  # of the captions wear one of the 80 templates that evaluation uses
SMALLEST_AREA = (0.02, 0.06)  # a class is named above a threshold drawn from this range
LARGE_AREA = 0.55
ONLY_FIRST_AREA = 0.75  # a crop covered this much by one class may be named after it alone
NUM_PLACES = 5  # compared for each crop
DROP_CHANCE, ONLY_FIRST_CHANCE, ADJECTIVE_CHANCE = 0.12, 0.25, 0.2


def draw_caption(rng: Generator, fractions: Sequence[float] | np.ndarray) -> str:
    """Draws a caption for a crop with these shares (K,) of the classes, in [0, 1]; another call draws other words.

    Classes are named by falling area (shaken by a quarter), small ones not at all.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    threshold = min(rng.uniform(*SMALLEST_AREA), fractions.max())
    order = np.argsort(-fractions * rng.uniform(0.8, 1.25, len(fractions)))
    named = [i for i in order if fractions[i] >= threshold]
    if fractions[named[0]] > ONLY_FIRST_AREA and rng.random() < ONLY_FIRST_CHANCE:
        named = named[:1]
    named = [i for rank, i in enumerate(named) if rank == 0 or rng.random() >= DROP_CHANCE]
    phrases = [_draw_phrase(rng, CLASSES[i], fractions[i]) for i in named]
    text = phrases[0]
    for phrase in phrases[1:]:
        text += JOINTS[rng.integers(len(JOINTS))] + phrase
    if rng.random() < IMAGENET_TEMPLATE_SHARE:
        return OPENAI_IMAGENET_TEMPLATES[rng.integers(len(OPENAI_IMAGENET_TEMPLATES))](text)
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(text)


def _draw_phrase(rng: Generator, name: str, fraction: float) -> str:
    words = SYNONYMS[name]
    word = name if rng.random() < 0.4 else words[rng.integers(len(words))]
    if fraction > LARGE_AREA and rng.random() < ADJECTIVE_CHANCE:
        return f'{("large", "dense", "much")[rng.integers(3)]} {word}'
    return word


def draw_crops(scenes: Sequence[np.ndarray], rng: Generator, num_crops: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Draws crops (B, size, size, 3) uint8, flipped and turned at random, and their B captions.

    The scenes are layers (H, W, 4) of :func:`segearth.demo.store.image_and_labels`, all of one size.
    """
    crops, captions = np.empty((num_crops, size, size, 3), np.uint8), []
    height, width = scenes[0].shape[:2]
    for i in range(num_crops):
        wanted = rng.integers(len(CLASSES))
        columns = [rng.integers(end, size=NUM_PLACES) for end in (len(scenes), height - size + 1, width - size + 1)]
        places = [scenes[scene][y : y + size, x : x + size] for scene, y, x in zip(*columns, strict=True)]
        layers = max(places, key=lambda place: (place[::6, ::6, 3] == wanted).mean())
        fractions = np.bincount(layers[..., 3].ravel(), minlength=len(CLASSES)) / size**2
        captions.append(draw_caption(rng, fractions))
        crop = np.rot90(layers[..., :3], int(rng.integers(4)))
        crops[i] = crop[:, ::-1] if rng.integers(2) else crop
    return crops, captions
