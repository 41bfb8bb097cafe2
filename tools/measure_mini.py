"""Measures Mini and MiniSAR on images that they did not learn from.

python tools/measure_mini.py scenes --images AID --captions RSICD      # names of scenes, retrieval by caption
python tools/measure_mini.py radar --pairs data/mini_pairs/test.csv    # agreement of radar and optical maps
python tools/measure_mini.py radar-scenes --sen12 SEN12                # scene names of radar images
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import torch
from studies.ablation_measures import class_ious
from studies.mini_data import open_aid
from studies.mini_training import PROMPTS
from torch import Tensor
from torch.nn import functional as F

from segearth.alignearth.pairs import read_list
from segearth.cli import build_parser, run_cli
from segearth.device import choose_device
from segearth.errors import DataError
from segearth.freed_memory import keep_freed_memory
from segearth.io.pictures import fit_image, read_optical, read_sar
from segearth.models.build import Encoder, build_encoder
from segearth.progress import progress_bar
from segearth.segmenter import Segmenter
from segearth.text.bank import TEMPLATES, embed_queries
from segearth.training.data import normalise

GROUND = {
    'water': ('river', 'lake', 'sea'), 'forest': (), 'farmland': ('field',), 'meadow': ('grassland',),
    'bare land': ('desert',), 'residential area': ('buildings',), 'industrial area': (),
}  # fmt: skip
SEN12_SCENES = {
    'agriculture': 'farmland', 'forest': 'forest', 'gorge': 'mountain', 'resident': 'residential area',
    'river': 'river',
}  # fmt: skip
"""Folder of SEN1-2 -> scene in words."""
RANKS = (1, 5, 10)
BATCH = 64


def embed_images(encoder: Encoder, pictures: Iterable[np.ndarray], side: int) -> tuple[Tensor, Tensor]:
    """CLIP's embedding and the mean patch token of pictures (H, W, 3), resized to squares: (N, C), L2-normalised."""
    device = next(encoder.visual.parameters()).device
    found: list[tuple[Tensor, Tensor]] = []
    stacked = torch.from_numpy(np.stack([fit_image(picture, (side, side)) for picture in pictures]))
    with progress_bar('images', 'images') as report, torch.inference_mode():
        for start in range(0, len(stacked), BATCH):
            images = normalise(stacked[start : start + BATCH].permute(0, 3, 1, 2).to(device))
            cls_token = encoder.visual.visual(images)  # as CLIP has it, not as SegEarth reads it out
            tokens = encoder.visual(images)[1]
            found.append((F.normalize(cls_token.float(), dim=-1), F.normalize(tokens.float().mean(1), dim=-1)))
            report(min(start + BATCH, len(stacked)), len(stacked))
    first, second = zip(*found, strict=True)
    return torch.cat(first).cpu(), torch.cat(second).cpu()


def name_scenes(images: tuple[Tensor, Tensor], encoder: Encoder, phrases: Sequence[str], labels: np.ndarray) -> str:
    """Zero-shot accuracy by [CLS], by the mean of the patches, and by their sum."""
    texts = embed_queries(encoder, phrases, (*TEMPLATES, *PROMPTS))
    cls_token, dense = images
    ways = {'[CLS]': cls_token, 'mean of the patches': dense, 'both': cls_token + dense}
    shares = {way: ((part @ texts.T).argmax(1).numpy() == labels).mean() for way, part in ways.items()}
    return ', '.join(f'{way} {share:.1%}' for way, share in shares.items())


def measure_scenes(options: argparse.Namespace) -> None:
    """Scene names and retrieval on the held-out images of AID with RSICD's captions."""
    encoder = build_encoder('Mini', clip_path=options.optical_path, device=options.device)
    source, phrases = open_aid(options.images, options.captions, options.work_dir / 'cache')
    held_out = np.flatnonzero(source.held_out)
    images = embed_images(encoder, (source.pixels[place] for place in held_out), options.side)
    labels = source.scenes[held_out].argmax(axis=1)
    accuracies = name_scenes(images, encoder, phrases, labels)
    print(f'{len(held_out)} held-out images, {len(phrases)} scene names: {accuracies}')
    captions = [caption for place in held_out for caption in source.captions[place]]
    owner = np.repeat(np.arange(len(held_out)), [len(source.captions[place]) for place in held_out])
    with torch.inference_mode():
        texts = torch.cat([encoder.text(captions[start : start + 512]).cpu() for start in range(0, len(captions), 512)])
    scores = (F.normalize(sum(images), dim=-1) @ F.normalize(texts.float(), dim=-1).T).numpy()
    right = owner[None] == np.arange(len(held_out))[:, None]
    to_image = (scores > np.where(right, scores, -np.inf).max(axis=0)).sum(axis=0)  # images before the caption's own
    to_text = (scores > np.where(right, scores, -np.inf).max(axis=1)[:, None]).sum(axis=1)
    for what, places in (('image of a caption', to_image), ('caption of an image', to_text)):
        print(f'{what} among the first {", ".join(f"{rank}: {(places < rank).mean():.1%}" for rank in RANKS)}')


def measure_radar(options: argparse.Namespace) -> None:
    """Agreement of maps of radar images with the optical encoder's map of the same place."""
    pairs = list(dict.fromkeys(read_list(options.pairs)))
    if options.smallest:
        pairs = [pair for pair in pairs if min(read_optical(pair[0]).shape[:2]) >= options.smallest]
    optical = {'resize': None, 'device': options.device, 'clip_path': options.optical_path}
    teacher = Segmenter(GROUND, 'Mini', **optical)
    ways = {
        'MiniSAR on radar': Segmenter(GROUND, 'MiniSAR', sensor='sar', **optical | {'clip_path': options.clip_path}),
        'Mini on radar (floor)': Segmenter(GROUND, 'Mini', sensor='sar', **optical),
    }
    count = len(GROUND)
    confusions = {way: np.zeros((count, count), np.int64) for way in ways}
    with progress_bar('pairs', 'pairs') as report:
        for number, (image, radar) in enumerate(pairs, 1):
            wanted = teacher(image).labels.astype(np.int64).ravel()
            for way, segmenter in ways.items():
                pairs_of_ids = wanted * count + segmenter(radar).labels.ravel()
                confusions[way] += np.bincount(pairs_of_ids, minlength=count**2).reshape(count, count)
            report(number, len(pairs))
    total = next(iter(confusions.values())).sum(axis=1)
    print(f'{len(pairs)} pairs; the optical map has', ', '.join(
        f'{name} {share:.1%}' for name, share in zip(GROUND, total / total.sum(), strict=True)
    ))  # fmt: skip
    for way, counts in confusions.items():
        ious = class_ious(counts)
        each = ', '.join(f'{name} {100 * iou:.1f}' for name, iou in zip(GROUND, ious, strict=True))
        print(f'{way}: same class {np.trace(counts) / counts.sum():.1%}, mIoU {100 * np.nanmean(ious):.1f} ({each})')


def measure_radar_scenes(options: argparse.Namespace) -> None:
    """Scene names of SEN1-2's test images: by MiniSAR, by Mini on radar, and by Mini on the grey optical partner."""
    files: dict[str, list[Path]] = {
        part: [file for scene in SEN12_SCENES for file in sorted(options.sen12.rglob(f'{scene}/test_{part}/*'))]
        for part in 'AB'
    }
    if not files['A']:
        raise DataError(f'{options.sen12} holds no folders such as river/test_A: give the folder of the scenes')
    for way, clip_type, part, read in (
        ('MiniSAR on radar', 'MiniSAR', 'A', read_sar),
        ('Mini on radar (floor)', 'Mini', 'A', read_sar),
        ('Mini on the optical partner in grey', 'Mini', 'B', read_optical),
    ):
        path = options.clip_path if clip_type == 'MiniSAR' else options.optical_path
        encoder = build_encoder(clip_type, clip_path=path, device=options.device)
        labels = np.array([list(SEN12_SCENES).index(file.parent.parent.name) for file in files[part]])
        images = embed_images(encoder, (read(file) for file in files[part]), options.side)
        print(f'{way}, {len(labels)} images: {name_scenes(images, encoder, list(SEN12_SCENES.values()), labels)}')


MEASURES = {'scenes': measure_scenes, 'radar': measure_radar, 'radar-scenes': measure_radar_scenes}
NEEDED = {'scenes': ('images', 'captions'), 'radar': ('pairs',), 'radar-scenes': ('sen12',)}


def main() -> None:
    """Measures."""
    parser = build_parser(__doc__)
    parser.add_argument('what', choices=tuple(MEASURES))
    parser.add_argument('--images', type=Path, metavar='AID', help='a folder a scene class')
    parser.add_argument('--captions', type=Path, metavar='RSICD', help='folder of the captions')
    parser.add_argument('--pairs', type=Path, help='list of tools/list_mini_pairs.py')
    parser.add_argument('--smallest', type=int, default=0, help='leave out pairs with a shorter side, in pixels')
    parser.add_argument('--sen12', type=Path, help='folder of the scenes of SEN1-2')
    parser.add_argument('--clip-path', help='weights of MiniSAR instead of its own')
    parser.add_argument('--optical-path', help='weights of Mini instead of its own')
    parser.add_argument('--side', type=int, default=128, help='pixels that whole images are resized to')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/mini'), help='folder of decoded images')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ...')
    options = parser.parse_args()
    missing = [f'--{name}' for name in NEEDED[options.what] if getattr(options, name) is None]
    if missing:
        parser.error(f'{options.what} needs {" and ".join(missing)}')
    options.device = choose_device(options.device)
    keep_freed_memory(limited=True)
    MEASURES[options.what](options)


if __name__ == '__main__':
    run_cli(main)
