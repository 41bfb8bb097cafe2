"""Runs that end before their time, and go on."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import geopandas
import pyogrio
import pytest
from filelock import FileLock

from segearth.errors import ConfigError, ResultsError
from segearth.maps.predict import MapOptions
from tests.maps.conftest import ALL, UTM, Killed, make_map, read, smooth_picture
from tests.maps.stand_in import StandInModel


def killed_after(blocks):
    """A runner that dies when so many blocks are done."""
    from segearth.maps.run import run_blocks

    def end_early(run):
        run_blocks(replace(run, missing=run.missing[:blocks]))
        raise Killed

    return end_early


@pytest.mark.parametrize('blocks', [0, 1, 4])
def test_killed_and_resumed_gives_the_same_and_computes_no_block_twice(scene, tmp_path, blocks):
    expected, complete = make_map(scene, tmp_path / 'whole', ALL), StandInModel()
    make_map(scene, tmp_path / 'counted', ALL, complete)
    first, second = StandInModel(), StandInModel()
    with pytest.raises(Killed):
        make_map(scene, tmp_path / 'out', ALL, first, runner=killed_after(blocks))
    assert not [path for path in (tmp_path / 'out').iterdir() if not path.name.startswith('.')]
    with pytest.raises(ResultsError, match='unfinished run.*--resume.*--overwrite'):
        make_map(scene, tmp_path / 'out', ALL)
    told = []
    files = make_map(scene, tmp_path / 'out', ALL, second, resume=True, progress=lambda *pair: told.append(pair))
    assert first.num_scored + second.num_scored == complete.num_scored
    assert told[-1][0] == told[-1][1] and (told[0][0] > 0) == (blocks > 0)
    assert (read(files.classes) == read(expected.classes)).all()
    assert files.areas.read_text() == expected.areas.read_text()


def test_resuming_a_finished_map_leaves_it(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out')
    before, model = files.classes.stat().st_mtime_ns, StandInModel()
    make_map(scene, tmp_path / 'out', model=model, resume=True)
    assert model.num_scored == 0 and files.classes.stat().st_mtime_ns == before


def test_resume_refuses_other_settings(scene, tmp_path):
    with pytest.raises(Killed):
        make_map(scene, tmp_path / 'out', runner=killed_after(1))
    with pytest.raises(ResultsError, match=r'other settings.*options\.stretch was "auto", is "0,100".*stretch\.limits'):
        make_map(scene, tmp_path / 'out', MapOptions('0,100', block_side=48), resume=True)
    files = make_map(scene, tmp_path / 'out', overwrite=True)
    with pytest.raises(ResultsError, match=r'other settings \(windows\.stride was \[16, 16\], is \[8, 8\]\)'):
        make_map(scene, tmp_path / 'out', model=StandInModel(stride=8), resume=True)
    os.utime(scene, ns=(1, 1))
    with pytest.raises(ResultsError, match='other settings.*scene'):
        make_map(scene, tmp_path / 'out', resume=True)
    with pytest.raises(ConfigError, match='one of them'):
        make_map(scene, tmp_path / 'out', resume=True, overwrite=True)
    assert files.classes.exists()


def test_results_are_not_overwritten_silently(scene, tmp_path):
    files = make_map(scene, tmp_path / 'out', ALL)
    with pytest.raises(ResultsError, match='results exist already.*--overwrite'):
        make_map(scene, tmp_path / 'out', ALL)
    with pytest.raises(Killed):
        make_map(scene, tmp_path / 'out', ALL, runner=killed_after(1), overwrite=True)
    assert files.scores.exists()  # the old results stay until the new ones are complete
    make_map(scene, tmp_path / 'out', overwrite=True)
    assert not files.scores.exists()  # and are not mixed with them


def test_a_second_run_on_the_same_results_is_refused(scene, tmp_path):
    (tmp_path / 'out').mkdir()
    with FileLock(tmp_path / 'out' / '.scene.lock'), pytest.raises(ResultsError, match='another run is writing'):
        make_map(scene, tmp_path / 'out')
    make_map(scene, tmp_path / 'out')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork, which spares the seconds of a new interpreter')
def test_a_process_that_is_killed_leaves_nothing_half_done(scene, tmp_path):
    def kill_halfway(done, total):
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context('fork').Process(
        target=make_map, args=(scene, tmp_path / 'out'), kwargs={'progress': kill_halfway}
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not [path for path in (tmp_path / 'out').iterdir() if not path.name.startswith('.')]
    files, model = make_map(scene, tmp_path / 'whole'), StandInModel()
    resumed = make_map(scene, tmp_path / 'out', model=model, resume=True)
    assert (read(resumed.classes) == read(files.classes)).all()
    complete = StandInModel()
    make_map(scene, tmp_path / 'counted', model=complete)
    assert 0 < model.num_scored < complete.num_scored


def kill_at(monkeypatch, number):
    """Lets the process die before the n-th step that changes the disk, and leaves files half written as it does."""
    count = 0

    def steps(owner, name):
        original = getattr(owner, name)

        def step(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                for path in (argument for argument in arguments if isinstance(argument, Path)):
                    if name == 'rmtree':
                        next(iter(file for file in path.rglob('*') if file.is_file()), path / 'none').unlink(True)
                    elif name.startswith(('write', 'optimise')):
                        path.write_bytes(b'half of it')
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, step)

    from segearth.maps import results

    steps(os, 'replace')
    steps(shutil, 'rmtree')
    for name in ('write_blocks', 'describe_classes', 'draw_quicklook', 'write_areas', 'write_polygons', 'optimise',
                 'write_legend'):  # fmt: skip
        steps(results, name)


@pytest.mark.parametrize('is_overwriting', [False, True])
def test_killed_at_any_step_and_resumed_gives_the_same(write_scene, tmp_path, monkeypatch, is_overwriting):
    scene = write_scene(smooth_picture(20, 24), **UTM)
    options = MapOptions(scores=True, block_side=4096) if is_overwriting else ALL
    expected = make_map(scene, tmp_path / 'whole', options)
    names = sorted(path.name for path in (tmp_path / 'whole').iterdir())
    if is_overwriting:  # what was there before has polygons too, which the new run does not make
        make_map(scene, tmp_path / 'before', ALL)
    for number in range(1, 100):
        out = tmp_path / str(number)
        if is_overwriting:
            shutil.copytree(tmp_path / 'before', out)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            try:
                make_map(scene, out, options, overwrite=is_overwriting)
                break
            except Killed:
                pass
        is_begun = (out / '.scene.parts' / 'settings.json').exists()
        if is_begun:
            with pytest.raises(ResultsError, match='unfinished run.*--resume.*--overwrite'):
                make_map(scene, out, options)
        if is_overwriting and not is_begun and (out / 'scene_polygons.gpkg').exists():
            make_map(scene, out, options, overwrite=True)  # killed before anything was begun
        files = make_map(scene, out, options, resume=True)
        assert sorted(path.name for path in out.iterdir()) == names, number
        for path, original in zip(files.paths, expected.paths, strict=True):
            if path.suffix != '.gpkg':
                assert path.read_bytes() == original.read_bytes(), (number, path.name)
            else:
                assert geopandas.read_file(path).equals(geopandas.read_file(original)), number
    assert 12 < number < 99


def test_a_full_disk_is_named_and_the_run_goes_on(scene, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise pyogrio.errors.FeatureError('disk I/O error')

    with monkeypatch.context() as patch:
        patch.setattr(geopandas.GeoDataFrame, 'to_file', refuse)
        with pytest.raises(ResultsError, match=r'cannot be written \(disk I/O error\).*--resume'):
            make_map(scene, tmp_path / 'out', ALL)
    model = StandInModel()
    assert make_map(scene, tmp_path / 'out', ALL, model, resume=True).polygons.exists() and model.num_scored == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='the limit of a file can be set for a process of its own only')
@pytest.mark.parametrize('limit', [50, 2000, 70_000])
def test_a_system_that_refuses_to_write_ends_in_a_message(scene, tmp_path, limit):
    def limited(queue):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            make_map(scene, tmp_path / 'out', ALL)
        except ResultsError as error:
            queue.put(str(error))

    context = multiprocessing.get_context('fork')
    queue = context.SimpleQueue()
    process = context.Process(target=limited, args=(queue,))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and not queue.empty() and 'cannot be written' in queue.get()
    assert make_map(scene, tmp_path / 'out', ALL, resume=True).classes.exists()
