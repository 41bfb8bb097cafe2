"""Images and captions of the training of Mini, read from their published layouts, and the batches made of them.

Images: AID, a folder a scene class. Captions: RSICD, whose images are AID's by file name; its test part is held out
and never drawn. RSSCN7, seven folders, may be added: it has no captions, only scene names.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from segearth.errors import DataError, MissingFileError
from segearth.io.atomic import replacing
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD
from segearth.training.data import list_images
from studies.mini_words import named_words

AID_SIDE, RSSCN7_SIDE = 150, 256  # pixels that images are stored with
GREY_SHARE = 0.1  # of the crops lose their colours: some encoders of radar learn from grey pictures
RSSCN7_SCENES: dict[str, tuple[tuple[str, ...], str]] = {
    'aGrass': (('meadow',), 'a piece of grass or meadow'),
    'bField': (('farmland',), 'a piece of farmland'),
    'cIndustry': (('industrial area',), 'many buildings in an industrial area'),
    'dRiverLake': (('river', 'pond'), 'water of a river or a lake'),
    'eForest': (('forest',), 'many trees in a forest'),
    'fResident': (('dense residential area', 'medium residential area'), 'many houses in a residential area'),
    'gParking': (('parking',), 'many cars in a parking lot'),
}
"""Folder of RSSCN7 -> names that AID has for it, and a caption."""


@dataclass
class ImageSet:
    """Images of one source, with what is known about them as a whole.

    Attributes:
        pixels: (N, S, S, 3) uint8, RGB; usually mapped from a file.
        scenes: (N, K) float32, the share of each scene name, rows sum to 1.
        words: (N, W) float32, :func:`studies.mini_words.named_words`.
        captions: N lists of captions.
        held_out: (N,) bool, images that are measured on and never drawn.
    """

    pixels: np.ndarray
    scenes: np.ndarray
    words: np.ndarray
    captions: list[list[str]]
    held_out: np.ndarray


@dataclass
class Batch:
    """What a step sees: whole images of one crop, and mosaics of four.

    Attributes:
        images: (B, 3, side, side) float32, normalised; the first `num_single` are single crops.
        splits: (B, 2) int, row and column of patches at which a mosaic is split; 0 of a single crop.
        parts: (B, 4) int, index into the following of each quarter, row-major; the fourth alone of a single crop.
        scenes: (P, K) float32, of each part.
        words: (P, W) float32, of each part.
        captions: P captions, one of each part.
    """

    images: np.ndarray
    splits: np.ndarray
    parts: np.ndarray
    scenes: np.ndarray
    words: np.ndarray
    captions: list[str]


def scene_phrase(folder: str) -> str:
    """The words of a folder's name: "DenseResidential" -> "dense residential area"."""
    words = re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', folder).replace('_', ' ').lower()
    return f'{words} area' if words.split()[-1] in ('residential', 'commercial', 'industrial') else words


def read_captions(folder: Path) -> tuple[dict[str, list[str]], set[str]]:
    """Captions by file name, and the file names of the test part.

    Args:
        folder: Holds, at any depth, RSICD's dataset_rsicd.json, or train_filename.txt, train_caps.txt and the same of
            test (five captions an image; a name may be repeated a line a caption).

    Raises:
        MissingFileError: Neither is there.
        DataError: Names and captions do not fit together.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    test = set()
    for file in sorted(folder.rglob('dataset_rsicd.json')):
        for image in json.loads(file.read_text(encoding='utf-8'))['images']:
            captions[image['filename']] += [sentence['raw'].strip().lower() for sentence in image['sentences']]
            if image['split'] == 'test':
                test.add(image['filename'])
        return dict(captions), test
    files = {part: _text_files(folder, part) for part in ('train', 'test')}
    for part, (names_file, captions_file) in files.items():
        names, lines = (file.read_text(encoding='utf-8').splitlines() for file in (names_file, captions_file))
        if not names or len(lines) % len(names):
            raise DataError(f'{captions_file} has {len(lines)} captions for {len(names)} names of {names_file.name}')
        each = len(lines) // len(names)
        for index, line in enumerate(lines):
            captions[names[index // each].strip()].append(line.strip().lower())
        if part == 'test':
            test.update(name.strip() for name in names)
    return dict(captions), test


def open_aid(folder: Path, captions: Path, cache: Path) -> tuple[ImageSet, list[str]]:
    """AID with RSICD's captions, and its K scene phrases.

    Args:
        folder: A folder a scene class.
        captions: See :func:`read_captions`.
        cache: Folder where the decoded images are kept.

    Raises:
        MissingFileError: A folder or file is not there.
        DataError: No image has captions, or there is nothing to train on or to measure on.
    """
    files = list_images(folder)
    classes = sorted({file.parent.name for file in files})
    by_name, test = read_captions(captions)
    held_out = np.array([file.name in test for file in files])
    if held_out.all() or not held_out.any():
        raise DataError(f'{captions} names {held_out.sum()} of the {len(files)} images of {folder} as test images')
    labels = np.array([classes.index(file.parent.name) for file in files])
    phrases = [scene_phrase(name) for name in classes]
    texts = [by_name.get(file.name, [phrases[label]]) for file, label in zip(files, labels, strict=True)]
    words = np.stack([
        np.maximum(named_words(text), named_words([phrases[label]])) for text, label in zip(texts, labels, strict=True)
    ])  # fmt: skip
    scenes = np.eye(len(classes), dtype=np.float32)[labels]
    return ImageSet(_decoded(files, AID_SIDE, cache / 'aid.npy'), scenes, words, texts, held_out), phrases


def open_rsscn7(folder: Path, phrases: Sequence[str], cache: Path) -> ImageSet:
    """RSSCN7 in the scene phrases of AID; arguments and errors as of :func:`open_aid`."""
    files = [file for file in list_images(folder) if file.parent.name in RSSCN7_SCENES]
    if not files:
        raise DataError(f'{folder} is no RSSCN7: it has none of the folders {", ".join(RSSCN7_SCENES)}')
    known = [RSSCN7_SCENES[file.parent.name] for file in files]
    scenes = np.array([[phrase in names for phrase in phrases] for names, _ in known], np.float32)
    if not scenes.any(axis=1).all():
        raise DataError('the images of --images lack scene classes that RSSCN7 is mapped to; leave it out')
    texts = [[caption] for _, caption in known]
    return ImageSet(
        _decoded(files, RSSCN7_SIDE, cache / 'rsscn7.npy'), scenes / scenes.sum(axis=1, keepdims=True),
        np.stack([named_words(text) for text in texts]), texts, np.zeros(len(files), bool),
    )  # fmt: skip


def draw_batch(
    sets: Sequence[ImageSet],
    shares: Sequence[float],
    rng: Generator,
    num_single: int,
    num_mosaics: int,
    side: int,
    patch: int,
) -> Batch:
    """Draws a batch; everything random about it comes from `rng`.

    Args:
        sets: Sources.
        shares: Share of the parts that come from each, summing to 1.
        rng: Source of the randomness.
        num_single: Number of crops that fill an image.
        num_mosaics: Number of images of four crops from different images.
        side: Of the images in pixels, a multiple of `patch`.
        patch: Side of a patch in pixels.
    """
    num_images, num_parts = num_single + num_mosaics, num_single + 4 * num_mosaics
    source = rng.choice(len(sets), num_parts, p=np.asarray(shares))
    trainable = [np.flatnonzero(~entry.held_out) for entry in sets]
    chosen = [rng.choice(trainable[index]) for index in source]
    grid = side // patch
    splits = np.zeros((num_images, 2), int)
    splits[num_single:] = rng.integers(-(-grid // 4), grid - -(-grid // 4) + 1, (num_mosaics, 2))
    parts = np.concatenate(
        [np.repeat(np.arange(num_single)[:, None], 4, 1), np.arange(num_single, num_parts).reshape(-1, 4)]
    )
    images = np.empty((num_images, 3, side, side), np.float32)
    for image, (row, column), own in zip(images, splits * patch, parts, strict=True):
        bands = ((slice(0, row), slice(row, side)), (slice(0, column), slice(column, side)))
        for quarter, part in enumerate(own):
            rows, columns = bands[0][quarter // 2], bands[1][quarter % 2]
            size = (rows.stop - rows.start, columns.stop - columns.start)
            if all(size):
                image[:, rows, columns] = _crop(sets[source[part]].pixels[chosen[part]], size, rng)
    known = [(sets[index], place) for index, place in zip(source, chosen, strict=True)]
    return Batch(
        images, splits, parts, np.stack([entry.scenes[place] for entry, place in known]),
        np.stack([entry.words[place] for entry, place in known]),
        [rng.choice(entry.captions[place]) for entry, place in known],
    )  # fmt: skip


def normalise(pixels: np.ndarray, side: int) -> np.ndarray:
    """Whole images as the encoder wants them: (N, S, S, 3) uint8 -> (N, 3, side, side) float32."""
    resized = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in pixels]
    return ((np.stack(resized) - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)).transpose(0, 3, 1, 2)


def _crop(pixels: np.ndarray, size: tuple[int, int], rng: Generator) -> np.ndarray:
    """A random crop, turned, mirrored, in other light: (S, S, 3) uint8 -> (3, *size) float32, normalised."""
    stored = len(pixels)
    longest = stored * np.sqrt(rng.uniform(0.2, 1.0))
    height, width = (longest * length / max(size) for length in size)
    is_turned = rng.random() < 0.5
    if is_turned:
        height, width, size = width, height, size[::-1]
    top, left = rng.uniform(0, stored - height), rng.uniform(0, stored - width)
    box = (left, top, left + width, top + height)
    crop = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, box))
    crop = crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    if is_turned:
        crop = crop.transpose(1, 0, 2)
    if rng.random() < GREY_SHARE:
        crop = np.repeat(crop.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    # Darker more often than lighter, flatter, of other colours: so are satellites' scenes, of blue air and black water
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** np.exp(rng.uniform(-0.4, 0.7))
    gain = np.exp(rng.uniform(-0.8, 0.4) + rng.uniform(-0.2, 0.2, 3))
    offset = rng.uniform(-0.2, 0.1) + rng.uniform(-0.12, 0.12, 3)
    levels = ((levels - 0.5) * gain + 0.5 + offset).clip(0, 1) * 255
    table = ((levels - CLIP_MEAN) / CLIP_STD).astype(np.float32)
    return np.stack([table[:, channel][crop[..., channel]] for channel in range(3)])


def _text_files(folder: Path, part: str) -> tuple[Path, Path]:
    for names in sorted(folder.rglob(f'{part}_filename.txt')):
        captions = names.with_name(f'{part}_caps.txt')
        if captions.is_file():
            return names, captions
    raise MissingFileError(
        f'{folder} holds neither dataset_rsicd.json nor {part}_filename.txt with {part}_caps.txt: '
        'give the folder of the RSICD captions'
    )


def _decoded(files: Sequence[Path], side: int, cache: Path) -> np.ndarray:
    """(N, side, side, 3) uint8, mapped from `cache`, which is written where it is missing or of other files."""
    names = [f'{file.parent.name}/{file.name}' for file in files]
    listing = cache.with_suffix('.json')
    if not (cache.is_file() and listing.is_file() and json.loads(listing.read_text()) == names):
        with replacing(cache) as part:
            pixels = np.lib.format.open_memmap(part, 'w+', np.uint8, (len(files), side, side, 3))
            for index, file in enumerate(files):
                try:
                    image = Image.open(file).convert('RGB')
                except OSError as error:
                    raise DataError(f'{file} cannot be read as an image: {error}') from error
                pixels[index] = np.asarray(image.resize((side, side), Image.Resampling.BOX))
            pixels.flush()
        with replacing(listing) as part:
            part.write_text(json.dumps(names))
    return np.load(cache, mmap_mode='r')
