"""The row of a run: its scores, and every setting that they depend on."""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

import segearth
from segearth.errors import MissingFileError, ResultsError
from segearth.inference.refinement import REFINEMENTS
from segearth.io.atomic import write_bytes
from segearth.models.segmentor import SegEarthSegmentation
from segearth.text.vocabulary import read_class_text
from segearth.weights.encoders import get_record
from simfeatup import UPSAMPLERS

FIRST_COLUMNS = ('CLIP', 'VIT', 'MODEL', 'Dataset', 'aAcc', 'mIoU', 'mAcc')  # the original's table
PACKAGES = {'torch': 'torch', 'mmseg': 'onedl-mmsegmentation', 'open_clip': 'open_clip_torch'}
PLACES = ('data_root', 'name_path')  # keys that say where things are, not what is computed


@dataclass(frozen=True)
class ResultRow:
    """The outcome of one run."""

    run: str  # unique id
    summary: dict[str, Any]  # column -> number, text or None; scores in percent
    classes: list[tuple[str, float | None, float | None]] = field(default_factory=list)
    """One (name, IoU, accuracy) a class, in percent; None where a class does not occur."""

    def to_json(self) -> str:
        """The row as one line of text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_line(self) -> str:
        """The row as a line for people."""
        get = self.summary.get
        scores = '  '.join(f'{name} {get(name)}' for name in ('aAcc', 'mIoU', 'mAcc'))
        return (
            f'{get("Date")}  {get("Config")}  {get("CLIP")} {get("VIT")} {get("MODEL")}  {get("Dataset")}  {scores}  '
            f'{get("Images")} images  {get("Seconds")} s  run {self.run}'
        )


def write_row(row: ResultRow, path: Path) -> None:
    """Writes a row as JSON; OSError where that cannot be."""
    write_bytes(path, (row.to_json() + '\n').encode(errors='replace'))


def read_row(path: Path) -> ResultRow:
    """Reads a row that :func:`write_row` wrote; ResultsError where the file holds something else."""
    if not path.is_file():
        raise MissingFileError(f'result row not found: {path}. Each run of eval.py writes one into its work folder')
    text = path.read_text(encoding='utf-8')
    try:
        values = json.loads(text)
        return ResultRow(values['run'], dict(values['summary']), [tuple(entry) for entry in values['classes']])
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f'not a result row of eval.py: {text[:80]!r} ({error})') from error


def build_row(
    run: str,
    config: Config,
    model: nn.Module,
    metrics: Mapping[str, float],
    class_scores: Sequence[tuple[str, float, float]],
    measured: Mapping[str, Any],
) -> ResultRow:
    """The row of a run of a model: metrics in percent, (name, IoU, accuracy) in [0, 1], and further columns."""
    dataset = config.test_dataloader.dataset
    settings = (model.config_defaults() if isinstance(model, SegEarthSegmentation) else {}) | dict(config.model)
    if settings.get('fast') and isinstance(model, SegEarthSegmentation):  # what the preset made of them
        pairs = {'slide_crop': model.core.settings.crop_size, 'slide_stride': model.core.settings.stride}
        settings |= {key: pair[0] if pair[0] == pair[1] else pair for key, pair in pairs.items()}
    upsampler = getattr(getattr(model, 'core', model), 'upsampler', None)  # None: scores are interpolated
    upsamplers = {kind: name for name, kind in UPSAMPLERS.items()}
    named = str((settings.get('feature_up_cfg') or {}).get('model_name'))
    own = named if ':' in named else type(upsampler).__name__  # module:function
    scales = (step.get('scale') for step in dataset.get('pipeline') or () if step.get('type') == 'Resize')
    scale = next(filter(None, scales), None)
    threshold, weight = settings.get('prob_thd'), next(model.parameters(), None)  # the first is the encoder's
    summary = {
        'CLIP': settings.get('clip_type'),
        'VIT': encoder_size(settings),
        'MODEL': settings.get('model_type'),
        'Dataset': dataset['type'],
        **{name: _rounded(metrics.get(name)) for name in ('aAcc', 'mIoU', 'mAcc')},
        'Config': os.fsencode(Path(config.filename).stem).decode(errors='replace'),  # a name may be no text
        'Weights': Path(settings.get('clip_path') or '').name or None,
        'Classes': Path(settings.get('name_path') or '').name or None,
        'Upsampler': 'none' if upsampler is None else upsamplers.get(type(upsampler), own),
        'Lambda': settings.get('cls_token_lambda'),
        'Threshold': threshold if threshold is None or isinstance(threshold, Real) else str(threshold),
        'Logit scale': settings.get('logit_scale'),
        'Background': settings.get('bg_idx'),
        'Read-out blocks': settings.get('ssa_last_n_layers'),
        'Refinement': refinement_of(config, measured.get('Images')),
        'Window': None if settings.get('slide_crop') is None else str(settings['slide_crop']),
        'Stride': None if settings.get('slide_stride') is None else str(settings['slide_stride']),
        'Fast': bool(settings.get('fast')),
        'Precision': None if weight is None else str(weight.dtype).removeprefix('torch.'),
        'Resize': str(tuple(scale)) if isinstance(scale, Sequence) else scale,
        **measured,
        'Versions': package_versions(),
        'Date': time.strftime('%Y-%m-%d %H:%M:%S'),
        'Settings': settings_digest(config, measured.get('Limit')),
    }
    classes = [(name, _rounded(100 * iou), _rounded(100 * accuracy)) for name, iou, accuracy in class_scores]
    return ResultRow(run, summary, classes)


def refinement_of(config: Config, num_images: int | None = None) -> str:
    """The refinement of scores in words; of groups of images with their size, which figures depend on."""
    group = group_size(config)
    name = config.model.get('refine') or 'none'
    return name if group is None else f'{name} of {min(group, num_images or group)} images at once (transductive)'


def group_size(config: Config) -> int | None:
    """Number of images that are refined together, those of a batch; None where each is scored by itself."""
    name = config.model.get('refine')
    is_group = isinstance(name, str) and name in REFINEMENTS and REFINEMENTS[name].of_group is not None
    return config.test_dataloader.get('batch_size', 1) if is_group else None


def settings_digest(config: Config, limit: int | None = None) -> str:
    """Short hash of all that figures depend on by settings: two runs with the same one should give the same figures.

    Folders do not count; the words of the class-name file do, its name does not. The batch size does where images are
    refined together; that several processes make other groups of them is not known here.
    """
    model, dataset, group = config.model, config.test_dataloader.dataset, group_size(config)
    words = read_class_text(Path(model['name_path'])) if model.get('name_path') else None
    known = [{key: value for key, value in part.items() if key not in PLACES} for part in (dict(model), dict(dataset))]
    text = json.dumps([*known, words, limit, *([] if group is None else [group])], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def encoder_size(settings: Mapping[str, Any]) -> str | None:
    """Size of the encoder that a model's settings mean; the embedded ones, which take any size, name their own."""
    size = settings.get('vit_type')
    if not settings.get('clip_type'):
        return size
    record = get_record(settings['clip_type'], size)
    return Path(record.model_config).stem if record.model_config else record.vit_type


def device_name() -> str:
    """What computed: the name of the CUDA device, or the number of CPU threads."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'


def package_versions() -> str:
    """Versions of this project and of the packages that figures depend on."""
    versions = {'segearth': segearth.__version__}
    for name, package in PACKAGES.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            versions[name] = 'unknown'
    return ', '.join(f'{name} {number}' for name, number in versions.items())


def _rounded(value: float | None) -> float | None:
    """Two decimals, as the table shows; None for nan, which spreadsheets and JSON do not know."""
    return None if value is None or math.isnan(value) else round(float(value), 2)
