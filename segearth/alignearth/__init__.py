"""AlignEarth: a SAR encoder distilled from an optical CLIP on image pairs, without captions or labels.

The student stays in CLIP's space, so that text embeddings, SimFeatUp and Global Bias Alleviation are reused.
Importing the package registers its model and data sets with mmengine.

Source: the idea is AlignEarth's (SegEarth-OV-2, arXiv 2508.18067, section 3.4). Its losses, schedule and data are not
public: everything here is a design of our own, and each part names what it builds on.
"""

from segearth.alignearth import model, pair_data  # noqa: F401 - what they register
