import io
import logging
import re
import sys
from dataclasses import replace

import pytest

from segearth.maps.run import compute_block, run_blocks
from segearth.maps.speed import rounded, spoken, timed
from segearth.progress import MessageHandler, message_format
from tests.maps.conftest import ALL, UTM, make_map, read, smooth_picture
from tests.maps.stand_in import StandInModel


class Clock:
    """A second a window that is scored."""

    def __init__(self, model: StandInModel, seconds: float = 1.0) -> None:
        self._model, self._seconds = model, seconds

    def __call__(self) -> float:
        return 100 + self._model.num_scored * self._seconds


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == 'segearth.maps.speed']


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO, 'segearth')


def test_an_estimate_after_the_first_windows_and_the_time_at_the_end(write_scene, tmp_path, model, caplog):
    told, picture = [], smooth_picture(130, 150)
    picture[:, :60] = 0  # windows without data take no time, and say nothing about the others
    scene = write_scene(picture, nodata=0, **UTM)
    make_map(scene, tmp_path / 'a', model=model, runner=timed(run_blocks, Clock(model)),
             progress=lambda *counts: told.append((counts, len(messages(caplog)))))  # fmt: skip
    estimate, end = messages(caplog)
    windows = told[-1][0][1]
    left = windows - [done for (done, _), count in told if not count][-1]
    assert estimate == (
        f'scene: {left} windows are left of 0.0195 million pixels, 1 windows or {rounded(130 * 150 / windows)} '
        f'pixels a second: about {spoken(left)}'
    )
    seconds = model.num_scored
    assert end == f'scene: 0.0195 million pixels in {spoken(seconds)}, {rounded(130 * 150 / seconds)} pixels a second'
    assert seconds < windows - 20


def test_the_map_is_the_same(scene, tmp_path, model):
    alone = make_map(scene, tmp_path / 'a', ALL)
    watched = make_map(scene, tmp_path / 'b', ALL, model, runner=timed(run_blocks, Clock(model)))
    assert (read(alone.classes) == read(watched.classes)).all()
    assert read(alone.scores).tobytes() == read(watched.scores).tobytes()
    whole = StandInModel()
    make_map(scene, tmp_path / 'c', ALL, whole)
    assert whole.num_scored == model.num_scored  # nothing is computed for the estimate alone


def test_short_runs_are_not_estimated(scene, tmp_path, model, caplog):
    make_map(scene, tmp_path / 'a', model=model, runner=timed(run_blocks, Clock(model, 0.05)))
    (end,) = messages(caplog)
    assert ' million pixels in ' in end


def test_a_resumed_run_counts_what_is_missing(scene, tmp_path, model, caplog):
    def stop(run):
        run_blocks(replace(run, missing=run.missing[:5]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_map(scene, tmp_path / 'a', model=model, runner=stop)
    assert messages(caplog) == []
    kept = {}

    def run(map_run):
        kept['windows'] = map_run.plan.grid.num_windows([map_run.plan.blocks[index] for index in map_run.missing])
        kept['pixels'] = sum((y2 - y1) * (x2 - x1) for y1, x1, y2, x2 in map(map_run.plan.place, map_run.missing))
        timed(run_blocks, Clock(model))(map_run)

    make_map(scene, tmp_path / 'a', model=model, runner=run, resume=True)
    estimate, end = messages(caplog)
    amount = f'{kept["pixels"] / 1e6:.3g} million pixels'
    assert 0 < kept['pixels'] < 130 * 150 - 5 * 40**2
    counted = re.match(r'scene: (\d+) windows are left of ', estimate)
    assert counted and 0 < kept['windows'] - int(counted[1]) < 10 and f' of {amount}, ' in estimate and amount in end


def test_who_computes_elsewhere_gets_no_estimate(scene, tmp_path, model, caplog):
    def elsewhere(run):  # as a cluster, which tells of whole blocks
        for index in run.missing:
            run.workspace.save_block(index, compute_block(run.plan, index, run.model, run.scene))
            run.advance(run.plan.grid.num_windows([run.plan.blocks[index]]))

    make_map(scene, tmp_path / 'a', model=model, runner=timed(elsewhere, Clock(model)))
    (end,) = messages(caplog)
    assert 'pixels a second' in end and 'about' not in end


@pytest.mark.parametrize(('seconds', 'expected'), [
    (0.012, '0.012 seconds'), (9.94, '9.9 seconds'), (61, '61 seconds'), (89, '89 seconds'), (90, '1.5 minutes'),
    (740, '12 minutes'), (5000, '83 minutes'), (5400, '1.5 hours'), (86400, '24 hours'), (3 * 86400, '3 days'),
])  # fmt: skip
def test_times_in_words(seconds, expected):
    assert spoken(seconds) == expected


def test_numbers_to_two_digits():
    assert [rounded(number) for number in (0, 7.4, 12_345, 1_950_000)] == ['0', '7', '12,000', '2,000,000']


def test_messages_go_where_the_error_stream_is(monkeypatch, capsys):
    monkeypatch.setenv('SEGEARTH_PROGRESS', 'lines')
    logger = logging.Logger('here', logging.INFO)
    handler = MessageHandler()
    handler.setFormatter(logging.Formatter(message_format()))
    logger.addHandler(handler)

    with monkeypatch.context() as taken_over:
        taken_over.setattr(sys, 'stderr', io.StringIO())
        logger.info('scene: about %s', '12 minutes')
        assert sys.stderr.getvalue() == 'INFO: scene: about 12 minutes\n'
    logger.info('later')
    assert capsys.readouterr().err == 'INFO: later\n'
