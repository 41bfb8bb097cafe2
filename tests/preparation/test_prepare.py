"""Stopping and going on, and everything that may be wrong with a source."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from segearth.errors import DataError, ResultsError
from segearth.preparation import prepare as preparing
from segearth.preparation.prepare import LOCK_NAME, MAX_FAILURES, Outcome, prepare
from segearth.preparation.recipe import PROGRAMS
from segearth.preparation.sources import Pair

COLOUR_SETS = PROGRAMS['colour_tiles']
WHU = PROGRAMS['binary_masks']['whu_aerial']
FOLDER = Path('WHU-BD', 'val')


@pytest.fixture
def source(tmp_path: Path, save, mask) -> Path:
    for number in range(4):
        save(f'val/image/{number}.png', (6, 8))
        save(f'val/label/{number}.png', mask)
    return tmp_path / 'raw'


def states(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob('*') if path.is_file() and path.name != LOCK_NAME)
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_second_run_writes_nothing(tmp_path: Path, source: Path) -> None:
    prepare(WHU, [source], tmp_path / 'data')
    before = states(tmp_path / 'data')
    outcome = prepare(WHU, [source], tmp_path / 'data').outcome
    assert (outcome.written, outcome.present) == (0, 4)
    assert states(tmp_path / 'data') == before


def test_goes_on_after_it_was_killed(tmp_path: Path, source: Path) -> None:
    prepare(WHU, [source], tmp_path / 'data')
    whole = states(tmp_path / 'data')
    labels = tmp_path / 'data' / FOLDER / 'label_cvt'
    (labels / '2.png').unlink()
    (labels / '.2.png.123-0a1b2c3d.tmp').write_bytes(b'half')  # what a kill in the middle of writing leaves
    (labels / '3.png').write_bytes(b'')  # what a power cut may leave
    outcome = prepare(WHU, [source], tmp_path / 'data').outcome
    assert (outcome.written, outcome.present) == (2, 2)
    now = states(tmp_path / 'data')
    assert now.keys() == whole.keys()
    assert all(now[name][1] == whole[name][1] for name in whole)
    assert now['WHU-BD/val/label_cvt/1.png'] == whole['WHU-BD/val/label_cvt/1.png']


def test_single_crops_are_made_up_for(tmp_path: Path, save) -> None:
    recipe = COLOUR_SETS['uavid']
    save('test/seq1/Images/0.png', (1100, 100))
    save('test/seq1/Labels/0.png', np.zeros((1100, 100, 3)))
    prepare(recipe, [tmp_path / 'raw'], tmp_path)
    before = states(tmp_path / 'UAVid')
    (tmp_path / 'UAVid/ann_dir/test/seq1_0_20_1100_0_100.png').unlink()
    outcome = prepare(recipe, [tmp_path / 'raw'], tmp_path).outcome
    assert (outcome.written, outcome.present) == (1, 1)
    after = states(tmp_path / 'UAVid')
    assert after.keys() == before.keys()
    assert after['ann_dir/test/seq1_0_0_1080_0_100.png'] == before['ann_dir/test/seq1_0_0_1080_0_100.png']


def test_several_processes_give_the_same_files(tmp_path: Path, source: Path) -> None:
    steps = []
    prepare(WHU, [source], tmp_path / 'one')
    prepare(WHU, [source], tmp_path / 'two', num_jobs=2, report=lambda *step: steps.append(step))
    one, two = states(tmp_path / 'one'), states(tmp_path / 'two')
    assert {name: data for name, (_, data) in one.items()} == {name: data for name, (_, data) in two.items()}
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_several_processes_read_one_archive(tmp_path: Path, save, pack) -> None:
    for number in range(12):
        save(f'val/image/{number}.png', (200, 200))
        save(f'val/label/{number}.png', np.zeros((200, 200)))
    assert prepare(WHU, [pack('val', 'val.zip')], tmp_path / 'data', num_jobs=3).outcome.written == 12


def test_killed_process_is_told(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, 'convert_pair', _die)
    with pytest.raises(DataError, match='fewer --jobs'):
        prepare(WHU, [source], tmp_path / 'data', num_jobs=2)


def _die(*_: object, **__: object) -> None:
    os._exit(9)


def test_interruption_ends_the_processes_at_once(tmp_path: Path, source: Path, monkeypatch) -> None:
    monkeypatch.setattr(preparing, 'convert_pair', _sleep_but_first)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        prepare(WHU, [source], tmp_path / 'data', num_jobs=2, report=interrupt)
    assert time.monotonic() - start < 30


def _sleep_but_first(_, pair: Pair, **__: object) -> Outcome:
    time.sleep(0 if pair.name == '0' else 60)
    return Outcome(written=1)


def test_in_place_only_labels_are_added(tmp_path: Path, save, mask) -> None:
    image = save('WHU-BD/val/image/1.png', (6, 8))
    save('WHU-BD/val/label/1.png', mask)
    before = image.stat().st_mtime_ns
    prepare(WHU, [tmp_path / 'raw' / 'WHU-BD'], tmp_path / 'raw')
    assert image.stat().st_mtime_ns == before
    assert (tmp_path / 'raw' / FOLDER / 'label_cvt' / '1.png').is_file()


def test_in_place_with_images_of_another_format_twice(tmp_path: Path, save, mask) -> None:
    save('WHU-BD/val/image/1.tif', (6, 8))
    save('WHU-BD/val/label/1.tif', mask)
    for _ in range(2):  # the second time, 1.tif and the 1.png made of it are there
        assert prepare(WHU, [tmp_path / 'raw' / 'WHU-BD'], tmp_path / 'raw').num_results == 1


def test_links_in_place_of_copies(tmp_path: Path, source: Path) -> None:
    prepare(WHU, [source], tmp_path / 'data', link_images=True)
    assert (tmp_path / 'data' / FOLDER / 'image' / '1.png').readlink() == source / 'val/image/1.png'


def test_full_disk(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        path.open('wb').close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(ResultsError, match='No space left on device.*run again'):
        prepare(WHU, [source], tmp_path / 'data')
    monkeypatch.undo()
    assert states(tmp_path / 'data') == {}
    assert prepare(WHU, [source], tmp_path / 'data').outcome.written == 4


def test_two_runs_at_once(tmp_path: Path, source: Path) -> None:
    (tmp_path / 'data' / 'WHU-BD').mkdir(parents=True)
    with FileLock(tmp_path / 'data' / 'WHU-BD' / LOCK_NAME), pytest.raises(DataError, match='another process'):
        prepare(WHU, [source], tmp_path / 'data')


def test_damaged_files_are_named_and_the_rest_is_done(tmp_path: Path, source: Path) -> None:
    image, label = source / 'val/image/1.png', source / 'val/label/2.png'
    for path in (image, label):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError) as caught:
        prepare(WHU, [source], tmp_path / 'data')
    for part in ('2 of 4 pairs', str(image), str(label), 'goes on with the rest'):
        assert part in str(caught.value)
    assert {path.name for path in (tmp_path / 'data' / FOLDER / 'label_cvt').iterdir()} == {'0.png', '3.png'}


@pytest.mark.parametrize('num_jobs', [1, 2])
def test_gives_up_when_everything_is_wrong(tmp_path: Path, save, num_jobs: int) -> None:
    for number in range(MAX_FAILURES + 5):
        save(f'val/image/{number}.png', (6, 8))
        save(f'val/label/{number}.png', (6, 7))
    with pytest.raises(DataError, match=f'{MAX_FAILURES} of {MAX_FAILURES + 5} pairs .* given up') as caught:
        prepare(WHU, [tmp_path / 'raw'], tmp_path / 'data', num_jobs=num_jobs)
    assert '6 x 7 pixels (height x width)' in str(caught.value)


def test_wrong_folder_says_what_was_expected_and_seen(tmp_path: Path, save) -> None:
    save('somewhere/1.png', (6, 8))
    with pytest.raises(DataError) as caught:
        prepare(WHU, [tmp_path / 'raw'], tmp_path / 'data')
    for part in ('0 images and 0 labels', 'val/image, val/label', 'raw/somewhere/1.png'):
        assert part in str(caught.value)


def test_archive_inside_an_archive(tmp_path: Path, save, pack) -> None:
    save('val/image/1.png', (6, 8))
    pack('val', 'outer/val.zip')
    archive = pack('outer', 'outer.zip')
    with pytest.raises(DataError, match='val.zip is an archive that is not looked into: unpack it first'):
        prepare(WHU, [archive], tmp_path / 'data')


def test_image_without_label(tmp_path: Path, source: Path) -> None:
    (source / 'val/label/2.png').unlink()
    with pytest.raises(DataError, match='1 images have no label: 2. .*--allow-missing'):
        prepare(WHU, [source], tmp_path / 'data')
    assert prepare(WHU, [source], tmp_path / 'data', allow_missing=True).num_results == 3


def test_label_without_image(tmp_path: Path, source: Path) -> None:
    (source / 'val/image/2.png').unlink()
    with pytest.raises(DataError, match='1 labels have no image: 2'):
        prepare(WHU, [source], tmp_path / 'data')


def test_missing_images_of_the_split(tmp_path: Path, save) -> None:
    save('top_potsdam_5_15_RGB.tif', (9, 9))
    save('top_potsdam_5_15_label_noBoundary.tif', np.zeros((9, 9, 3)))
    with pytest.raises(DataError, match='13 images that belong to the part evaluated are not there: 2_13, 2_14'):
        prepare(COLOUR_SETS['potsdam'], [tmp_path / 'raw'], tmp_path / 'data')


def test_same_name_twice(tmp_path: Path, save) -> None:
    for area in ('Rural', 'Urban'):
        save(f'Val/{area}/images_png/1.png', (2, 2))
        save(f'Val/{area}/masks_png/1.png', np.zeros((2, 2)))
    with pytest.raises(DataError, match='1 is there twice.*Rural.*Urban'):
        prepare(PROGRAMS['loveda']['loveda'], [tmp_path / 'raw'], tmp_path / 'data')


def test_archive_beside_its_content_is_no_trouble(tmp_path: Path, source: Path, save, pack, mask) -> None:
    save('val/image/0.png', (6, 8))
    pack('val', 'val.zip')
    for number in range(4):
        save(f'val/image/{number}.png', (6, 8))
        save(f'val/label/{number}.png', mask)
    assert prepare(WHU, [source], tmp_path / 'data').num_results == 4


def test_files_of_another_origin_are_not_left_unsaid(tmp_path: Path, source: Path, save) -> None:
    prepare(WHU, [source], tmp_path / 'data')
    (tmp_path / 'data' / FOLDER / 'image' / 'other.png').write_bytes(b'other')
    with pytest.raises(DataError, match='5 files ending in .png, of which 4'):
        prepare(WHU, [source], tmp_path / 'data')


@pytest.mark.parametrize(('text', 'message'), [('', 'names no images'), ('7\n', '1 images that belong .*: 7')])
def test_lists(tmp_path: Path, source: Path, text: str, message: str) -> None:
    path = tmp_path / 'list.txt'
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(WHU, [source], tmp_path / 'data', list_file=path)
    with pytest.raises(FileNotFoundError, match='list of images not found'):
        prepare(WHU, [source], tmp_path / 'data', list_file='nowhere.txt')
