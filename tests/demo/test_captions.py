from __future__ import annotations

import re

import numpy as np
import pytest

from segearth.demo.classes import CLASSES
from tools.train_demo_clip import SYNONYMS, draw_caption


def mentioned(caption: str) -> set[str]:
    return {
        name for name, words in SYNONYMS.items()
        if any(re.search(rf'\b{re.escape(word)}\b', caption) for word in (*words, name))
    }  # fmt: skip


def test_words_belong_to_one_class_each():
    words = [word for name in CLASSES for word in SYNONYMS[name]]
    assert len(words) == len(set(words))
    assert set(SYNONYMS) == set(CLASSES)


@pytest.mark.parametrize('index', range(len(CLASSES)))
def test_a_crop_of_one_class_is_named_after_it(index):
    rng = np.random.default_rng(index)
    for _ in range(30):
        caption = draw_caption(rng, np.eye(len(CLASSES))[index])
        assert CLASSES[index] in mentioned(caption), caption


def test_only_what_covers_some_area_is_named():
    rng = np.random.default_rng(0)
    fractions = [0.5, 0.0, 0.29, 0.0, 0.2, 0.01, 0.0]
    named = [mentioned(draw_caption(rng, fractions)) for _ in range(200)]
    assert not any(names & {'road', 'bareland'} for names in named)
    assert all('building' in names or 'water' in names for names in named)
    assert sum('grass' in names for names in named) > 100


def test_the_fractions_are_all_that_matters():
    fractions = np.full(len(CLASSES), 1 / len(CLASSES))
    first, second = (draw_caption(np.random.default_rng(5), fractions) for _ in range(2))
    assert first == second
    rng = np.random.default_rng(5)
    assert len({draw_caption(rng, fractions) for _ in range(20)}) > 10
