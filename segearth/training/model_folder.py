"""What a training gives to others: a folder with weights, what describes them, and a model card filled in from the run.

``local-dir:FOLDER`` loads it here, ``segearth push`` puts it on the Hugging Face Hub, where ``hf-hub:ORG/NAME`` does.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData
from mmengine.runner import Runner
from torch import Tensor

import segearth
from segearth.evaluation.agreement import settings_card
from segearth.training.checkpoints import bare_model, save_weights
from segearth.weights.model_folders import HUB
from segearth.weights.records import WeightRecord

SHOWN = ('model.', 'train_dataloader.', 'optim_wrapper.', 'param_scheduler', 'train_cfg.', 'custom_hooks')
"""Beginnings of the settings that the card lists."""
FOLDERS = re.compile(r"(?<=[':])[/~][^']*/")  # of this machine, which are nobody's business
USAGE = 'from segearth import Segmenter\n\n'
ROOM = 200  # characters of a setting

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ summary }} Trained by [segearth](https://arxiv.org/abs/2508.18067) {{ version }}, an open reimplementation of
SegEarth-OV-2.

## Licence

Not chosen yet: write it into `license` at the head of this file, then take this section out. The weights of the encoder
that it was trained with ({{ encoder }}) are under: {{ encoder_licence }}. The images have terms of their own.

## Use

```python
{{ usage }}
```

Before it is uploaded, `local-dir:FOLDER` stands in the place of `hf-hub:ORG/NAME`.

## Data

{{ number }} images (or pairs of images), as `train_dataloader.dataset` says below. (Say here where they come from.)

## Training

{{ steps }} steps of {{ batch }} samples; number of processes, each with so many: {{ processes }}.

| setting | value |
|---|---|
{% for name, value in settings.items() %}| `{{ name }}` | `{{ value }}` |
{% endfor %}
## Figures

{% for line in figures %}- {{ line }}
{% endfor %}
Losses need no labels and say little of the maps: evaluate on a labelled data set before you rely on it.
"""


@dataclass(frozen=True)
class Published:
    """What a model gives to others."""

    weights: tuple[str, Mapping[str, Tensor]]  # file name, state dict
    config: tuple[str, Mapping[str, Any]]  # file name, content
    title: str
    summary: str  # one sentence or more
    usage: str  # Python
    encoder: WeightRecord  # that it was trained with
    card: Mapping[str, Any] = field(default_factory=dict)  # of the card's head


def write_model_folder(runner: Runner) -> Path:
    """Writes WORK_DIR/model_STEP, whole or not at all, unless it is there; what users wrote into it stays."""
    folder = Path(runner.work_dir) / f'model_{runner.iter}'
    if folder.exists():
        return folder
    published: Published = bare_model(runner).published()
    part = folder.with_name(f'.{folder.name}.{os.getpid()}.tmp')
    try:
        part.mkdir(parents=True)
        name, weights = published.weights
        save_weights(part, (name,), weights)
        name, config = published.config
        (part / name).write_text(f'{json.dumps(config, indent=2)}\n', encoding='utf-8')
        _card(published, runner).save(part / 'README.md')
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _card(published: Published, runner: Runner) -> ModelCard:
    encoder, dataset = published.encoder, runner.train_dataloader.dataset
    head: dict[str, Any] = {'license': '', **published.card}
    if encoder.name.startswith(HUB):
        head['base_model'] = encoder.name.removeprefix(HUB).partition('@')[0]
    settings = {
        name: FOLDERS.sub('.../', value).replace('|', '\\|')[:ROOM]
        for name, value in settings_card(runner.cfg).items() if name.startswith(SHOWN)
    }  # fmt: skip
    return ModelCard.from_template(
        ModelCardData(**head),
        template_str=TEMPLATE,
        title=published.title,
        summary=published.summary,
        version=segearth.__version__,
        encoder=FOLDERS.sub('.../', encoder.name),
        encoder_licence=encoder.licence,
        usage=FOLDERS.sub('.../', published.usage),
        number=len(dataset),
        steps=runner.iter,
        batch=runner.train_dataloader.batch_size,
        processes=runner.world_size,
        settings=settings,
        figures=_figures(Path(runner.work_dir) / 'history.csv'),
    )


def _figures(path: Path) -> list[str]:
    """Lines on the last losses and on the validations of a history."""
    if not path.is_file():
        return ['none: the run kept no history']
    history = pd.read_csv(path, index_col='step')
    lines = [f'{name} at the end: {values.dropna().iloc[-1]:.5g}' for name, values in history.items()]
    if 'validation' in history:
        losses = history['validation'].dropna()
        lines.append(f'least validation: {losses.min():.5g}, after {losses.idxmin()} steps')
    return lines
