"""Benchmark results as a table, as JSON and as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

STAGES = ('decode', 'ViT', 'kernels', 'apply', 'score', 'post-process')
COLOURS = ('#999999', '#0072b2', '#e69f00', '#d55e00', '#009e73', '#cc79a7')  # told apart without colour vision too
GIBIBYTE = 2**30


def build_table(results: Sequence[Mapping]) -> Table:
    """Rows: seconds and share of each stage, images a second, peak memory, one column a variant."""
    table = Table(title='Seconds an image (median; share of the image in brackets)')
    table.add_column('')
    for result in results:
        table.add_column(result['name'], justify='right')
    for stage in STAGES:
        if any(stage in result['stages'] for result in results):
            table.add_row(stage, *(_stage_cell(result, stage) for result in results))
    table.add_row('whole image', *(f'{result["image_seconds"]:.3f}' for result in results))
    table.add_row('images a second', *(f'{1 / result["image_seconds"]:.2f}' for result in results))
    table.add_row('peak memory (GiB)', *(f'{result["peak_bytes"] / GIBIBYTE:.2f}' for result in results))
    return table


def upsampling_share(result: Mapping) -> float | None:
    """Time of upsampling and scoring over the encoder's; None where it was not measured."""
    stages = result['stages']
    if 'ViT' not in stages:
        return None
    return sum(stages.get(stage, 0.0) for stage in ('kernels', 'apply', 'score')) / stages['ViT']


def save_chart(results: Sequence[Mapping], path: Path) -> None:
    """Stacked bars of the stages; variants without stages (the plain path) as one bar."""
    figure = Figure(figsize=(9, 0.6 * len(results) + 1.6), layout='constrained')
    axes = figure.subplots()
    is_labelled = False
    for row, result in enumerate(reversed(results)):
        end = result['image_seconds']
        measured = {stage: result['stages'].get(stage, 0.0) for stage in STAGES}
        if 'ViT' not in result['stages']:
            axes.barh(row, result['image_seconds'], color='#555555')
        else:
            left = 0.0
            for stage, colour in zip(STAGES, COLOURS, strict=True):
                axes.barh(row, measured[stage], left=left, color=colour, label=None if is_labelled else stage)
                left += measured[stage]
            is_labelled, end = True, max(left, end)
        axes.annotate(f' {result["image_seconds"]:.2f} s', (end, row), va='center', annotation_clip=False)
    axes.set_yticks(range(len(results)), [result['name'] for result in reversed(results)])
    axes.set_xlabel('seconds an image')
    axes.margins(x=0.15)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=len(STAGES), fontsize='small')
    figure.savefig(path, dpi=110)


def _stage_cell(result: Mapping, stage: str) -> str:
    if stage not in result['stages']:
        return '-'
    seconds = result['stages'][stage]
    return f'{seconds:.3f} ({seconds / result["image_seconds"]:.0%})'
