from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.errors import DataError, MissingFileError
from segearth.io.raster import read_raster
from segearth.preparation.label_rules import Threshold, read_picture
from segearth.preparation.sources import Pair, close_archives, list_members


def test_folders_archives_and_archives_in_folders_look_alike(tmp_path: Path, save, pack) -> None:
    save('set/val/image/1.png', (4, 5))
    save('set/val/.hidden.png', (1, 1))
    save('set/__MACOSX/val/1.png', (1, 1))
    paths = [member.path for member in list_members([tmp_path / 'raw' / 'set'])]
    assert paths == ['set/val/image/1.png']
    archive = pack('set', 'set.zip')
    members = list_members([archive])
    assert [member.path for member in members] == ['set/set/val/image/1.png']
    assert members[0].image_size() == (4, 5)
    assert read_picture(members[0].content()).shape == (4, 5, 3)
    assert [member.path for member in list_members([tmp_path / 'raw'])][-1] == 'raw/set/set/val/image/1.png'


def test_archives_are_opened_anew_after_a_fork(save, pack) -> None:
    save('set/1.png', (4, 5))
    member = list_members([pack('set', 'set.zip')])[0]
    with member.stream() as before:
        close_archives()
        with member.stream() as after:
            assert before._fileobj._file is not after._fileobj._file  # one position each


def test_missing_source() -> None:
    with pytest.raises(MissingFileError, match='nowhere'):
        list_members(['nowhere'])


def test_broken_and_foreign_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / 'cut.zip').write_bytes(b'PK\x03\x04 the rest is missing')
    with pytest.raises(DataError, match='cut.zip is no complete zip'):
        list_members([tmp_path / 'cut.zip'])
    (tmp_path / 'set.7z').write_bytes(b'7z')
    with pytest.raises(DataError, match='set.7z is no zip archive: unpack it'):
        list_members([tmp_path / 'set.7z'])


def test_damaged_member_is_named(tmp_path: Path) -> None:
    archive = tmp_path / 'set.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('a.png', b'0123456789')
    archive.write_bytes(archive.read_bytes().replace(b'0123456789', b'0123456780'))
    with pytest.raises(DataError, match=r'set.zip/a.png.*Download it again'):
        list_members([archive])[0].content()


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
def test_truncated_images_are_named(tmp_path: Path, save, suffix: str) -> None:
    path = save(f'cut{suffix}', (40, 50))
    path.write_bytes(path.read_bytes()[:-600])
    member = list_members([path])[0]
    with pytest.raises(DataError, match=f'cannot read .*cut{suffix}'):
        read_picture(member.content())


def test_palettes_one_bit_and_alpha(save, mask) -> None:
    member = list_members([save('p.png', mask // 255, palette=[0, 0, 0, 9, 9, 9])])[0]
    assert np.array_equal(read_picture(member.content())[..., 0], np.where(mask == 255, 9, 0))
    for suffix in ('.png', '.tif'):
        path = save(f'one{suffix}', mask)
        Image.fromarray(mask >= 128).save(path)
        member = list_members([path])[0]
        assert np.array_equal(read_picture(member.content())[..., 0], np.where(mask >= 128, 255, 0))
        assert np.array_equal(Threshold()(Pair('one', member, member)), mask >= 128)
        Image.fromarray(mask).convert('RGBA').save(path)
        assert read_raster(member.content()).bands.shape == (3, 6, 8)
