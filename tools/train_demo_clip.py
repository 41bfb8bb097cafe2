"""Trains the demo CLIP on generated scenes with captions: ``python tools/train_demo_clip.py``.

From scratch, or from the weights of ``--start-from`` with a schedule of its own. Writes OUT/demo_clip.safetensors
(fp16) when it is done; progress, scenes and a checkpoint to go on from lie in the work folder. The same seed and
settings give the same samples; weights agree up to the machine's arithmetic. Each process computes its own part of a
batch on one core (losses within the part), and gradients are averaged.

Captions are the only supervision. One is made from nothing but the area fractions of the classes in its crop. Buildings
and roads cover little, so most plain crops hardly show them: each crop looks for one class drawn evenly, and the best
of some random places is taken.

A step is plain CLIP (Radford et al., arXiv 2103.00020) on an unmodified open_clip model, with three departures, all of
them inputs or read-outs and none of them weights:

- Crops of three sizes. Small crops take a random part of the position table, cost a fifth to a twelfth of a full one
  and are mostly of one class, so that words meet few patches.
- Patch dropout on the full crops (FLIP, arXiv 2212.00794).
- For a share of each batch, the image feature is the last block's attention output for [CLS] alone, through ln_post
  and the projection, without residual and MLP: the branch that dense read-outs use (SegEarth-OV-2, arXiv 2508.18067;
  ClearCLIP, arXiv 2407.12442). This trains the model towards that branch, which public CLIPs were not.
"""

import argparse
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import open_clip
import torch
import torch.distributed as dist
from numpy.random import Generator
from open_clip import OPENAI_IMAGENET_TEMPLATES
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from segearth.cli import build_parser, run_cli
from segearth.demo.classes import CLASSES
from segearth.demo.files import image_and_labels, store_scenes
from segearth.errors import CheckpointError
from segearth.models.checkpoints import load_state_dict, read_state_dict
from segearth.paths import PROJECT_ROOT
from segearth.training.checkpoints import read_checkpoint, save_checkpoint, save_weights
from segearth.training.data import normalise

logger = logging.getLogger('train_demo_clip')

MODEL_CONFIG = PROJECT_ROOT / 'weights' / 'demo' / 'demo_clip.json'
FULL_SIZE, SMALL_SIZE, TINY_SIZE = 224, 96, 64  # sides of the crops in pixels
READOUT_SHARE = 0.55  # of the images take the attention-only read-out
PATCH_DROPOUT, FINAL_SHARE = 0.6, 0.15  # patch dropout, and the share of the steps at the end that go without
NUM_WARMUP = 100
LOG_FORMAT = '%(asctime)s %(message)s'
WORDS = json.loads((Path(__file__).parent / 'studies' / 'captions.json').read_text(encoding='utf-8'))
SYNONYMS, TEMPLATES = WORDS['synonyms'], WORDS['templates']
JOINTS = (' and ', ' with ', ' next to ', ' near ', ', ')
IMAGENET_TEMPLATE_SHARE = 0.35  # of the captions wear one of the 80 templates that evaluation uses
SMALLEST_AREA = (0.02, 0.06)  # a class is named above a threshold drawn from this range
LARGE_AREA = 0.55
ONLY_FIRST_AREA = 0.75  # a crop covered this much by one class may be named after it alone
NUM_PLACES = 5  # compared for each crop
DROP_CHANCE, ONLY_FIRST_CHANCE, ADJECTIVE_CHANCE = 0.12, 0.25, 0.2
JITTER = 0.15  # of gain and offset of a training image
WEIGHT_DECAY, MAX_NORM = 0.1, 1.0
MAX_LOGIT_SCALE = math.log(100)  # CLIP, section 2.5


def main() -> None:
    """Trains, or goes on with a training that was cut off."""
    parser = build_parser(__doc__)
    parser.add_argument('--out', type=Path, default=MODEL_CONFIG.parent, help='folder of the weights')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo_clip'), help='scenes and checkpoint')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-scenes', type=int, default=320)
    parser.add_argument('--num-steps', type=int, default=2400)
    parser.add_argument('--num-processes', type=int, default=2, help='each with one core and its part of the batch')
    parser.add_argument('--num-full', type=int, default=16, help='full crops in the part of a process')
    parser.add_argument('--num-small', type=int, default=32, help='small crops in the part of a process')
    parser.add_argument('--num-tiny', type=int, default=0, help='crops of 64 px in the part of a process')
    parser.add_argument('--start-from', type=Path, metavar='FILE', help='weights (.safetensors) to start from')
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--save-every', type=int, default=200, help='steps between checkpoints')
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    if arguments.start_from is not None:
        read_state_dict(arguments.start_from)  # a wrong file is said here, before any process starts
    seeds, processes = range(arguments.num_scenes), arguments.num_processes
    files = store_scenes(arguments.work_dir / 'scenes', seeds, image_and_labels, num_workers=processes)
    # Where the processes find each other; that of an earlier run would mislead them
    (arguments.work_dir / 'meeting_point').unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (arguments, files), nprocs=processes)


def train(rank: int, arguments: argparse.Namespace, files: list[Path]) -> None:
    """One process of the training, of number ``rank``; the first one writes."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{(arguments.work_dir / "meeting_point").resolve()}', rank=rank,
        world_size=arguments.num_processes,
    )  # fmt: skip
    scenes = [np.load(path, mmap_mode='r') for path in files]
    config = json.loads(MODEL_CONFIG.read_text())
    torch.manual_seed(arguments.seed)
    model = CLIP(**config).train()
    if arguments.start_from is not None:
        load_state_dict(model, read_state_dict(arguments.start_from), arguments.start_from, 'demo CLIP')
    optimizer = build_optimizer(model, arguments.learning_rate)
    tokenizer = open_clip.SimpleTokenizer(context_length=config['text_cfg']['context_length'])
    checkpoint = arguments.work_dir / 'checkpoint.pt'
    settings = {key: value for key, value in vars(arguments).items() if isinstance(value, int | float)}
    settings['start_from'] = str(arguments.start_from)
    first = 0
    if checkpoint.is_file():
        state = read_checkpoint(checkpoint)
        known = state.get('settings')
        if known != settings:
            raise CheckpointError(f'{checkpoint} belongs to a run with {known}: choose another --work-dir')
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        first = state['step']
    steps = range(first, arguments.num_steps)
    for step in track(steps, console=Console(stderr=True), disable=rank > 0):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate_at(step, arguments.num_steps, arguments.learning_rate, NUM_WARMUP)
        rng = np.random.default_rng([arguments.seed, step, rank])
        dropout = PATCH_DROPOUT if step < (1 - FINAL_SHARE) * arguments.num_steps else 0.0
        groups = [
            (arguments.num_full, FULL_SIZE, dropout),
            (arguments.num_small, SMALL_SIZE, 0.0),
            (arguments.num_tiny, TINY_SIZE, 0.0),
        ]
        features, captions = [], []
        for num_crops, size, drop in (group for group in groups if group[0]):
            crops, words = draw_crops(scenes, rng, num_crops, size)
            images = normalise_images(torch.from_numpy(crops), rng)
            features.append(encode_crops(model.visual, images, rng, drop, round(READOUT_SHARE * num_crops)))
            captions += words
        loss = contrastive_loss(torch.cat(features), model.encode_text(tokenizer(captions)), model.logit_scale)
        take_step(model, optimizer, loss)
        if rank == 0 and ((step + 1) % arguments.save_every == 0 or step + 1 == arguments.num_steps):
            logger.info('step %d of %d, loss %.3f', step + 1, arguments.num_steps, loss.item())
            state = {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'step': step + 1}
            save_checkpoint(checkpoint, {**state, 'settings': settings})
    if rank == 0:
        weights = {name: value.half() for name, value in model.state_dict().items()}
        save_weights(arguments.out, ('demo_clip.safetensors',), weights)
    dist.destroy_process_group()


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

    The scenes are layers (H, W, 4) of :func:`segearth.demo.files.image_and_labels`, all of one size.
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


def normalise_images(crops: Tensor, rng: Generator | None = None) -> Tensor:
    """Crops (B, H, W, 3) uint8, RGB -> (B, 3, H, W) float32 as the encoder wants them.

    With `rng`, gain and offset are shaken by :data:`JITTER` (of 1, and of a standard deviation), and half of it for
    each channel.
    """
    images = normalise(crops.permute(0, 3, 1, 2))
    if rng is not None:
        batch = len(images)
        gain = 1 + rng.uniform(-JITTER, JITTER, (batch, 1, 1, 1)) + rng.uniform(-JITTER, JITTER, (batch, 3, 1, 1)) / 2
        offset = rng.uniform(-JITTER, JITTER, (batch, 1, 1, 1)) + rng.uniform(-JITTER, JITTER, (batch, 3, 1, 1)) / 2
        images = images * torch.from_numpy(gain).float() + torch.from_numpy(offset).float()
    return images


def encode_crops(
    visual: VisionTransformer, images: Tensor, rng: Generator, patch_dropout: float, num_readout: int
) -> Tensor:
    """Image features (B, C) for training, not normalised, of normalised images (B, 3, H, W).

    H and W are multiples of the patch, at most the trained size; `rng` chooses the part of the position table and the
    patches that are kept, all but a share of `patch_dropout`. The first `num_readout` images take the attention-only
    read-out, the others the ordinary path.
    """
    x = visual.conv1(images)
    rows, columns = x.shape[-2:]
    grid_rows, grid_columns = visual.grid_size
    top, left = rng.integers(grid_rows - rows + 1), rng.integers(grid_columns - columns + 1)
    table = visual.positional_embedding[1:].unflatten(0, (grid_rows, grid_columns))
    x = x.flatten(2).transpose(1, 2)  # (B, N, D)
    x = x + table[top : top + rows, left : left + columns].reshape(1, rows * columns, -1)
    if patch_dropout:
        num_kept = max(1, round(x.shape[1] * (1 - patch_dropout)))
        kept = torch.from_numpy(rng.random(x.shape[:2]).argsort(1)[:, :num_kept].copy())
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    cls_token = visual.class_embedding + visual.positional_embedding[0]
    x = visual.ln_pre(torch.cat([cls_token.expand(len(x), 1, -1), x], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    tokens, cls_token = last.ln_1(x), x[:, :1]
    attended = last.attn(tokens[:, :1], tokens, tokens, need_weights=False)[0]  # only [CLS] asks: the rest is not read
    ordinary = cls_token[num_readout:] + attended[num_readout:]
    ordinary = ordinary + last.mlp(last.ln_2(ordinary))
    features = torch.cat([attended[:num_readout], ordinary])[:, 0]
    return visual.ln_post(features) @ visual.proj


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy over all pairs of a batch (CLIP, figure 3); features (B, C), not normalised."""
    logits = logit_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def build_optimizer(model: CLIP, learning_rate: float) -> torch.optim.AdamW:
    """AdamW; weights of linear layers and the token table decay; norms, biases, positions and the scale do not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and 'positional_embedding' not in name
        (decayed if is_matrix else others).append(parameter)
    groups = [{'params': decayed, 'weight_decay': WEIGHT_DECAY}, {'params': others, 'weight_decay': 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate_at(step: int, num_steps: int, peak: float, num_warmup: int) -> float:
    """Linear warm-up, then a cosine down to 0 at `num_steps`."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def take_step(model: CLIP, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One clipped update of the weights, by the average of the gradients where there are several processes."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if dist.is_initialized():
        gradients = [parameter.grad for parameter in model.parameters()]
        flat = nn.utils.parameters_to_vector(gradients)
        dist.all_reduce(flat)
        nn.utils.vector_to_parameters(flat / dist.get_world_size(), gradients)
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


if __name__ == '__main__':
    run_cli(main)
