"""Words of the training of Mini: which nouns of a caption count, their forms, and words that are broader than they.

A caption that names a noun is an image-level label for it, and for every broader word of it ("river" is "water" too):
knowledge about language, none about pixels.
"""

from __future__ import annotations

import re

import numpy as np

NOUNS: dict[str, tuple[str, ...]] = {
    'tree': ('tree', 'trees'),
    'forest': ('forest', 'forests', 'woods'),
    'bush': ('bush', 'bushes', 'shrubs'),
    'grass': ('grass', 'lawn', 'lawns'),
    'meadow': ('meadow', 'meadows', 'grassland', 'grasslands', 'pasture'),
    'farmland': ('farmland', 'farmlands', 'farm', 'crops', 'cropland'),
    'bare land': ('bare land', 'bareland', 'barelands', 'bare ground', 'bare soil'),
    'desert': ('desert', 'deserts', 'dunes'),
    'sand': ('sand', 'sands'),
    'beach': ('beach', 'beaches', 'shore'),
    'mountain': ('mountain', 'mountains', 'hills', 'ridges'),
    'rock': ('rock', 'rocks', 'stones'),
    'snow': ('snow', 'snows', 'ice'),
    'river': ('river', 'rivers', 'stream', 'canal'),
    'lake': ('lake', 'lakes', 'reservoir'),
    'pond': ('pond', 'ponds'),
    'sea': ('sea', 'ocean', 'waves'),
    'swimming pool': ('swimming pool', 'swimming pools', 'pools'),
    'boat': ('boat', 'boats', 'ship', 'ships'),
    'harbour': ('harbour', 'harbor', 'port', 'wharf', 'dock'),
    'building': ('building', 'buildings', 'blocks'),
    'house': ('house', 'houses', 'villas'),
    'roof': ('roof', 'roofs'),
    'residential area': ('residential area', 'residential', 'neighborhood'),
    'commercial area': ('commercial area', 'commercial', 'business'),
    'industrial area': ('industrial area', 'industrial', 'factory', 'factories', 'warehouses'),
    'road': ('road', 'roads', 'street', 'streets', 'crossroads'),
    'highway': ('highway', 'highways', 'overpass', 'viaduct', 'viaducts'),
    'bridge': ('bridge', 'bridges'),
    'railway': ('railway', 'railways', 'train', 'trains', 'railway station'),
    'parking lot': ('parking lot', 'parking lots', 'parking'),
    'car': ('car', 'cars', 'vehicles'),
    'airport': ('airport', 'terminal', 'terminals'),
    'runway': ('runway', 'runways'),
    'plane': ('plane', 'planes', 'airplanes', 'aircraft'),
    'playground': ('playground', 'playgrounds', 'running track', 'football field'),
    'sports court': ('basketball', 'tennis', 'badminton', 'courts', 'court'),
    'baseball field': ('baseball', 'baseball field', 'baseball fields'),
    'stadium': ('stadium', 'stadiums'),
    'square': ('square', 'plaza'),
    'park': ('park', 'garden', 'gardens'),
    'school': ('school', 'campus', 'teaching'),
    'church': ('church', 'churches'),
    'resort': ('resort', 'resorts'),
    'storage tank': ('storage tank', 'storage tanks', 'tank', 'tanks', 'oil'),
}
"""Noun -> its forms and near synonyms; a caption with one of the forms names the noun."""

BROADER: dict[str, tuple[str, tuple[str, ...]]] = {
    'water': ('water,water body,waters', ('river', 'lake', 'pond', 'sea', 'harbour', 'swimming pool')),
    'vegetation': ('vegetation,plants,low vegetation', ('grass', 'meadow', 'bush', 'tree', 'forest', 'farmland')),
    'grassland': ('grassland,rangeland,low vegetation', ('grass', 'meadow', 'bush')),
    'agricultural land': ('agricultural land,agriculture,cropland,field,fields', ('farmland',)),
    'barren': ('barren,barren land,bare soil,bare ground,soil', ('bare land', 'desert', 'sand', 'rock')),
    'woodland': ('woodland,wood,tree canopy', ('forest', 'tree')),
    'urban area': (
        'urban area,urban,town,city,built-up area',
        ('building', 'house', 'residential area', 'commercial area', 'industrial area'),
    ),
    'pavement': (
        'pavement,paved ground,impervious surface,concrete',
        ('road', 'parking lot', 'square', 'runway', 'highway'),
    ),
}
"""Broader word -> its forms, and the nouns that it covers; its own forms in a caption count too."""

WORDS = (*NOUNS, *BROADER)
FORMS: tuple[tuple[str, ...], ...] = (*NOUNS.values(), *(tuple(forms.split(',')) for forms, _ in BROADER.values()))
NOT_BY_THEMSELVES = {'field', 'fields', 'wood', 'plants', 'concrete', 'soil', 'vegetation'}
"""Forms that are prompts only: in captions they mean other things too ("football field")."""

_PATTERNS = [
    re.compile(rf'\b(?:{"|".join(sorted(set(forms) - NOT_BY_THEMSELVES, key=len, reverse=True))})\b') for forms in FORMS
]


def named_words(captions: list[str]) -> np.ndarray:
    """How much an image's captions say of each word of :data:`WORDS`.

    Args:
        captions: Of one image, lower case.

    Returns:
        (W,) float32, the share of the captions that name the word, or a narrower one; zeros without captions.
    """
    shares = np.zeros(len(WORDS), np.float32)
    for caption in captions:
        named = {word for word, pattern in zip(WORDS, _PATTERNS, strict=True) if pattern.search(caption)}
        named |= {word for word, (_, narrower) in BROADER.items() if not named.isdisjoint(narrower)}
        shares += [word in named for word in WORDS]
    return shares / max(1, len(captions))
