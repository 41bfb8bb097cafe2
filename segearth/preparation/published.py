"""How many images each data set has in the published evaluations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCount:
    """Number of images, and how it is known."""

    count: int
    source: str


PAPER = 'as published for the evaluation'
RULE = 'follows from the split and the cutting rule'
AUTHORS = "the data set's authors"

# By config. Configs that are not named: no count is known for certain.
PUBLISHED_COUNTS: dict[str, PublishedCount] = {
    'cfg_loveda.py': PublishedCount(1669, AUTHORS),
    'cfg_potsdam.py': PublishedCount(2016, RULE),  # 14 tiles of 6000 x 6000: 12 x 12 crops each
    'cfg_vaihingen.py': PublishedCount(398, RULE),
    'cfg_iSAID.py': PublishedCount(11644, RULE),
    'cfg_uavid.py': PublishedCount(1020, RULE),  # 90 images of 3840 x 2160, 2 x 3 tiles each; 60 of 4096 x 2160, 2 x 4
    'cfg_udd5.py': PublishedCount(40, AUTHORS),
    'cfg_vdd.py': PublishedCount(40, AUTHORS),
    'cfg_whu_aerial.py': PublishedCount(1036, AUTHORS),
    'cfg_whu_sat_II.py': PublishedCount(3726, AUTHORS),
    'cfg_inria.py': PublishedCount(675, RULE),  # 27 images of 5000 x 5000: 5 x 5 tiles each
    'cfg_xBD.py': PublishedCount(933, AUTHORS),
    'cfg_chn6-cug.py': PublishedCount(903, AUTHORS),
    'cfg_deepglobe_road.py': PublishedCount(1530, PAPER),
    'cfg_massachusetts_road.py': PublishedCount(49, PAPER),
    'cfg_spacenet_road.py': PublishedCount(567, PAPER),
    'cfg_wbs-si.py': PublishedCount(499, PAPER),
}
