from __future__ import annotations

import functools
from pathlib import Path

import openpyxl
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image

from segearth.evaluation import comparison
from segearth.evaluation.comparison import PAPER_SHEET, average_groups, compare, save_chart, write_paper_sheet
from segearth.evaluation.configuration import load_config
from segearth.evaluation.results import append_row
from segearth.evaluation.row import ResultRow, build_row
from segearth.paths import PROJECT_ROOT
from segearth.published import FOREGROUND_IOU, PUBLISHED, group_configs, published_images
from simfeatup.upsamplers.jbu import JBUOne


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.upsampler = JBUOne(1)


@functools.cache
def load(name: str):
    return load_config(str(PROJECT_ROOT / 'configs' / f'{name}.py'))


@pytest.fixture(autouse=True)
def each_config_loaded_once(monkeypatch):
    monkeypatch.setattr(comparison, 'load_config', lambda path: load(Path(path).stem))


def make_run(name: str, miou: float, ious=(50.0,), overrides=None, **measured) -> ResultRow:
    """The row that a run of a shipped config leaves."""
    config = load_config(str(PROJECT_ROOT / 'configs' / f'{name}.py'), overrides) if overrides else load(name)
    counted = published_images(name)
    images = {'Images': counted.count if counted else 7, 'Limit': None, 'Skipped': 0}
    scores = [(f'class {index}', iou / 100, 1.0) for index, iou in enumerate(ious)]
    run = f'{name} {miou}'
    return build_row(run, config, Model(), {'mIoU': miou}, scores, {**images, **measured})


def comparisons_of(*runs: ResultRow):
    rows = [{**run.summary, 'Run': run.run} for run in runs]
    return compare(rows, [{'Run': run.run, 'Class': name, 'IoU': iou} for run in runs for name, iou, _ in run.classes])


def test_the_published_settings_are_those_of_the_shipped_configs():
    """So a run of any config as it is counts as published."""
    assert set(PUBLISHED) == {path.stem for path in group_configs()}
    entries = comparisons_of(*(make_run(name, 40.0) for name in PUBLISHED))
    assert [entry.differences for entry in entries] == [()] * 26


def test_one_class_sets_are_reported_by_their_foreground():
    one_class = {'building', 'road', 'water'}
    for path in group_configs():
        kind = load(path.stem).test_dataloader.dataset.type
        classes = DATASETS.get(kind).METAINFO['classes']
        record = PUBLISHED[path.stem]
        assert (record.measure == FOREGROUND_IOU) == (len(classes) == 2)
        if record.measure == FOREGROUND_IOU:
            assert classes[0] == 'background'
    groups = {entry.record.group for entry in comparisons_of() if entry.record.measure == FOREGROUND_IOU}
    assert one_class < groups
    (entry,) = (entry for entry in comparisons_of(make_run('cfg_wbs-si', 75.0, (90.0, 61.5))) if entry.row)
    assert (entry.measured, entry.record.figure, entry.gain) == (61.5, 60.2, 1.3)


def test_published_figures():
    """The sums that the table of the paper prints, and the marks."""
    optical = [PUBLISHED[path.stem].figure for path in group_configs('optical')]
    assert optical == [40.3, 36.9, 21.7, 47.1, 29.1, 42.5, 50.6, 45.3]
    assert round(sum(optical) / 8, 1) == 39.2
    unverified = [name for name, record in PUBLISHED.items() if record.figure and not record.is_verified]
    assert unverified == ['cfg_inria', 'cfg_xBD', 'cfg_chn6-cug', 'cfg_deepglobe_road', 'cfg_spacenet_road']
    assert all(PUBLISHED[path.stem].figure is None for path in group_configs('sar'))


@pytest.mark.parametrize(
    ('overrides', 'measured', 'difference'),
    [
        ({'model.prob_thd': 0.5}, {}, 'Threshold 0.5, published 0.3'),
        ({'model.clip_type': 'OpenCLIP'}, {}, 'CLIP OpenCLIP, published CLIP'),
        ({'model.clip_path': 'a/mine.pt'}, {}, 'Weights mine.pt'),
        ({}, {'Limit': 20, 'Images': 20}, 'Limit 20'),
        ({'model.refine': 'propagation'}, {}, 'Refinement propagation'),
        ({'model.fast': True}, {}, 'Fast True'),
        ({'model.refine': 'context', 'test_dataloader.batch_size': 8}, {}, 'Refinement context of 8 images at once'),
        ({}, {'Skipped': 2, 'Images': 1667}, 'Skipped 2'),
        ({}, {'Images': 3}, '3 of 1669 images'),
        ({'model.ignore_residual': False}, {}, 'other settings than configs/cfg_loveda.py'),
    ],
)  # fmt: skip
def test_runs_that_differ_are_marked_and_do_not_count(overrides, measured, difference):
    entries = comparisons_of(make_run('cfg_loveda', 35.0, overrides=overrides, **measured), make_run('cfg_vdd', 46.3))
    loveda, vdd = (entry for entry in entries if entry.row)
    assert difference in '; '.join(loveda.differences)
    assert loveda.gain == -1.9
    assert not loveda.is_comparable
    optical = average_groups(entries)[0]
    assert (optical.num_sets, optical.num_configs, optical.measured, optical.reported) == (1, 8, 46.3, 45.3)


def test_rows_of_the_original_have_no_settings(make_row):
    row = {**make_row().summary, 'Config': 'cfg_loveda'}
    (entry,) = (entry for entry in compare([row], []) if entry.row)
    assert entry.differences == ('settings not recorded',)


def test_of_equal_settings_the_last_run_counts_and_others_have_their_line():
    runs = [make_run('cfg_loveda', 30.0), make_run('cfg_loveda', 31.0), make_run('cfg_loveda', 32.0, Limit=5)]
    assert [entry.measured for entry in comparisons_of(*runs) if entry.row] == [31.0, 32.0]


def test_sheet_and_chart(tmp_path, make_row):
    path = tmp_path / 'results.xlsx'
    for row in (make_row(), make_run('cfg_loveda', 36.5), make_run('cfg_xBD', 60.0, (90.0, 36.0), Limit=9)):
        append_row(row, path)
    for _ in range(2):  # written anew, not added to
        comparisons = write_paper_sheet(path)
    workbook = openpyxl.load_workbook(path)
    assert workbook.sheetnames == ['results', 'classes', PAPER_SHEET]
    header, *lines = workbook[PAPER_SHEET].iter_rows(values_only=True)
    table = {line[1]: dict(zip(header, line, strict=True)) for line in lines if line[1]}
    assert len([name for name in table if name.startswith('cfg_')]) == 26
    assert table['cfg_loveda']['Difference'] == -0.4
    assert table['cfg_loveda']['Settings'] == 'as published'
    assert (table['cfg_xBD']['Measured'], table['cfg_xBD']['Reported is']) == (36.0, 'unverified')
    assert table['cfg_xBD']['Settings'].startswith('differ: Limit 9')
    assert (table['average of 1 of 8 sets']['Measured'], table['average of 1 of 8 sets']['Reported']) == (36.5, 36.9)
    assert table['average of 0 of 4 sets']['Measured'] is None
    save_chart(comparisons, tmp_path / 'chart.png')
    assert Image.open(tmp_path / 'chart.png').size[0] > 500
    append_row(make_row('later'), path)  # rows go on below a paper sheet
    assert openpyxl.load_workbook(path).sheetnames[-1] == PAPER_SHEET
