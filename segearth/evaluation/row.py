"""What a run reports: its scores, and every setting that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

import segearth
from segearth.evaluation.results import ResultRow
from segearth.models.segmentor import SegEarthSegmentation
from segearth.text.vocabulary import read_class_text
from segearth.weights.encoders import get_record
from simfeatup import UPSAMPLERS

PACKAGES = {'torch': 'torch', 'mmseg': 'onedl-mmsegmentation', 'open_clip': 'open_clip_torch'}
PLACES = ('data_root', 'name_path')  # keys that say where things are, not what is computed


def build_row(
    run: str,
    config: Config,
    model: nn.Module,
    metrics: Mapping[str, float],
    class_scores: Sequence[tuple[str, float, float]],
    measured: Mapping[str, Any],
) -> ResultRow:
    """Builds the row of a run.

    Args:
        run: Id of the run.
        config: As :func:`segearth.evaluation.settings.load_config` gives it.
        model: The segmentor that ran.
        metrics: aAcc, mIoU, mAcc in percent.
        class_scores: (name, IoU, accuracy) in [0, 1].
        measured: Further columns: images, seconds and so on.
    """
    dataset = config.test_dataloader.dataset
    settings = (model.config_defaults() if isinstance(model, SegEarthSegmentation) else {}) | dict(config.model)
    summary = {
        'CLIP': settings.get('clip_type'),
        'VIT': encoder_size(settings),
        'MODEL': settings.get('model_type'),
        'Dataset': dataset['type'],
        **{name: _number(metrics.get(name)) for name in ('aAcc', 'mIoU', 'mAcc')},
        'Config': os.fsencode(Path(config.filename).stem).decode(errors='replace'),  # a name may be no text
        'Weights': Path(settings.get('clip_path') or '').name or None,
        'Class words': Path(settings.get('name_path') or '').name or None,
        'Upsampler': upsampler_name(model),
        'Lambda': settings.get('cls_token_lambda'),
        'Threshold': settings.get('prob_thd'),
        'Logit scale': settings.get('logit_scale'),
        'Background': settings.get('bg_idx'),
        'Read-out blocks': settings.get('ssa_last_n_layers'),
        'Window': _text(settings.get('slide_crop')),
        'Stride': _text(settings.get('slide_stride')),
        'Resize': _resize(dataset.get('pipeline') or []),
        **measured,
        'Versions': package_versions(),
        'Date': time.strftime('%Y-%m-%d %H:%M:%S'),
        'Settings': settings_digest(config.model, dataset, measured.get('Limit')),
    }
    classes = [(name, _percent(iou), _percent(accuracy)) for name, iou, accuracy in class_scores]
    return ResultRow(run, summary, classes)


def settings_digest(model: Mapping[str, Any], dataset: Mapping[str, Any], limit: int | None = None) -> str:
    """Short hash of all that figures depend on by settings: two runs with the same one should give the same figures.

    Folders do not count; the words of the class-name file do, its name does not.
    """
    words = read_class_text(Path(model['name_path'])) if model.get('name_path') else None
    known = [{key: value for key, value in part.items() if key not in PLACES} for part in (dict(model), dict(dataset))]
    text = json.dumps([*known, words, limit], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def encoder_size(settings: Mapping[str, Any]) -> str | None:
    """Size of the encoder that a model's settings mean; the embedded ones, which take any size, name their own."""
    size = settings.get('vit_type')
    if not settings.get('clip_type'):
        return size
    record = get_record(settings['clip_type'], size)
    return Path(record.model_config).stem if record.model_config else record.vit_type


def upsampler_name(model: nn.Module) -> str:
    """Name of the upsampler that ran; 'none' where scores were interpolated."""
    upsampler = getattr(getattr(model, 'core', model), 'upsampler', None)
    names = {kind: name for name, kind in UPSAMPLERS.items()}
    return 'none' if upsampler is None else names.get(type(upsampler), type(upsampler).__name__)


def device_name() -> str:
    """What computed: the name of the CUDA device, or the number of CPU threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU, {torch.get_num_threads()} threads'


def package_versions() -> str:
    """Versions of this project and of the packages that figures depend on."""
    versions = {'segearth': segearth.__version__}
    for name, package in PACKAGES.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            versions[name] = 'unknown'
    return ', '.join(f'{name} {number}' for name, number in versions.items())


def _resize(pipeline: Sequence[Mapping[str, Any]]) -> str | None:
    scales = [step['scale'] for step in pipeline if step.get('type') == 'Resize' and 'scale' in step]
    return str(tuple(scales[0])) if scales else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _percent(share: float) -> float | None:
    return _number(100 * share)


def _number(value: float | None) -> float | None:
    """Two decimals, as the table shows; None for nan, which spreadsheets and JSON do not know."""
    return None if value is None or math.isnan(value) else round(float(value), 2)
