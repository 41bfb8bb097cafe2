from __future__ import annotations

import numpy as np
import pytest
import torch

from segearth.alignearth.pair_data import Augmentation, PairDataset, build_augmentation
from segearth.alignearth.pairs import Pair, match_folders, read_list, read_pair
from segearth.errors import ConfigError, DataError, MissingFileError


def test_folders_are_matched_by_stem(pictures):
    pairs = match_folders(pictures / 'optical', pictures / 'sar')
    assert [(one.name, other.name) for one, other in pairs] == [('a.png', 'a.png'), ('b.png', 'b.png')]
    (pictures / 'sar' / 'b.png').rename(pictures / 'sar' / 'c.png')
    with pytest.raises(DataError, match=r'2 images have no partner.*b\.png.*c\.png'):
        match_folders(pictures / 'optical', pictures / 'sar')
    with pytest.raises(DataError, match="ends with '_x'"):
        match_folders(pictures / 'optical', pictures / 'sar', '_x', '_y')


def test_the_real_pair(shared):
    folder = shared / 'samples' / 'sen1floods11'
    ((optical, sar),) = match_folders(folder, folder, '_S2Hand', '_S1Hand')
    pair = read_pair(optical, sar, (4, 3, 2))
    assert pair.optical.shape == pair.sar.shape == (512, 512, 3)
    assert pair.valid.mean() > 0.9
    assert 20 < pair.optical.mean() < 200
    assert 20 < pair.sar.mean() < 230
    with pytest.raises(DataError, match=r'S2Hand.tif has 13 bands.*optical_bands'):
        read_pair(optical, sar)


def test_lists(pictures):
    path = pictures / 'pairs.csv'
    path.write_text('# optical,sar\noptical/a.png,sar/a.png\n\noptical/b.png\tsar/a.png\n')
    assert [pair[1].name for pair in read_list(path)] == ['a.png', 'a.png']
    for text, error, message in (
        ('optical/a.png\n', DataError, 'line 1'),
        ('optical/a.png,sar/none.png', MissingFileError, 'none.png'),
        ('', DataError, 'lists no pairs'),
    ):
        path.write_text(text)
        with pytest.raises(error, match=message):
            read_list(path)
    with pytest.raises(MissingFileError, match='not found'):
        read_list(pictures / 'none.csv')


def test_tiffs_are_cut_to_the_common_footprint(tmp_path, write_tiff):
    ramp = np.tile(np.arange(1, 21, dtype=np.uint8) * 10, (20, 1))
    optical = write_tiff(tmp_path / 'o.tif', np.stack([ramp] * 3), left=0, top=200)
    decibels = np.full((1, 30, 30), -10, np.float32)  # pixels of 5, from x = 100
    decibels[:, :4] = np.nan
    sar = write_tiff(tmp_path / 's.tif', decibels, left=100, top=200, pixel=5.0, nodata=np.nan)
    pair = read_pair(optical, sar)
    assert pair.optical.shape == (15, 10, 3)
    assert pair.optical[0, :, 0].tolist() == [10 * n for n in range(11, 21)]
    assert not pair.valid[:2].any()
    assert pair.valid[3:].all()
    assert np.unique(pair.sar[3:]).tolist() == [153]


def test_other_coordinate_systems_meet(tmp_path, write_tiff):
    optical = write_tiff(tmp_path / 'o.tif', np.full((3, 30, 30), 90, np.uint8), 500_000, 4_500_000, 10)
    sar = write_tiff(tmp_path / 's.tif', np.full((1, 60, 60), -12, np.float32), -3.001, 40.651, 1e-4, 'EPSG:4326')
    pair = read_pair(optical, sar)
    assert pair.valid.mean() > 0.8
    assert np.unique(pair.optical[pair.valid]).tolist() == [90]


def test_bad_pairs_are_named(tmp_path, write_tiff, pictures):
    optical = write_tiff(tmp_path / 'o.tif', np.ones((3, 8, 8), np.uint8))
    far = write_tiff(tmp_path / 'far.tif', np.ones((1, 8, 8), np.float32), left=9000)
    empty = write_tiff(tmp_path / 'empty.tif', np.full((1, 8, 8), np.nan, np.float32))
    with pytest.raises(DataError, match=r'o\.tif and .*far\.tif do not overlap'):
        read_pair(optical, far)
    with pytest.raises(DataError, match=r'o\.tif and .*empty\.tif have no pixel'):
        read_pair(optical, empty)
    with pytest.raises(DataError, match=r'o\.tif is 8 x 8 pixels and .*a\.png 40 x 48'):
        read_pair(optical, pictures / 'sar' / 'a.png')
    with pytest.raises(MissingFileError, match='none.tif'):
        read_pair(optical, tmp_path / 'none.tif')
    (tmp_path / 'broken.tif').write_bytes(b'II*\0')
    with pytest.raises(DataError, match='broken.tif'):
        read_pair(optical, tmp_path / 'broken.tif')


def test_samples_are_the_same_again_and_share_their_geometry(pictures):
    settings = dict(optical=str(pictures / 'optical'), sar=str(pictures / 'sar'), size=32)
    one, other = PairDataset(**settings), PairDataset(**settings)
    for number in (0, 7):
        for name, value in one[number].items():
            assert torch.equal(value, other[number][name])
    assert one[0]['optical'].shape == one[0]['sar'].shape == (3, 32, 32)
    assert one[0]['valid'].all()
    ramp = np.arange(1, 40 * 40 + 1).reshape(40, 40) % 251 + 1
    same = np.repeat(ramp[..., None], 3, 2).astype(np.uint8)
    plain = Augmentation(looks=None, gain_db=0)
    for seed in range(5):
        crop = plain(Pair(same, same, same[..., 0] > 20), 16, np.random.default_rng(seed))
        assert np.array_equal(crop.optical, crop.sar)
        assert np.array_equal(crop.valid, crop.optical[..., 0] > 20)


def test_speckle_keeps_the_mean_and_no_data():
    sar = np.full((200, 200, 3), 150, np.uint8)
    sar[:10] = 0
    varied = Augmentation(looks=(4, 4), gain_db=0, speckle_chance=1).vary_sar(sar, np.random.default_rng(0))
    assert not varied[:10].any()
    intensity = 10 ** ((varied[10:, :, 0] - 150.0) / 102)
    assert intensity.mean() == pytest.approx(1, abs=0.02)
    assert intensity.var() == pytest.approx(1 / 4, abs=0.03)


def test_misregistration_is_simulated():
    rows = np.repeat(np.arange(60, dtype=np.uint8)[:, None, None], 60, 1).repeat(3, 2) + 1
    augment = Augmentation(looks=None, gain_db=0, turns=False, max_shift=5)
    shifts = set()
    for seed in range(30):
        crop = augment(Pair(rows, rows, np.ones((60, 60), bool)), 32, np.random.default_rng(seed))
        shifts.add(int(crop.sar[0, 0, 0]) - int(crop.optical[0, 0, 0]))
    assert min(shifts) < 0 < max(shifts)
    assert max(map(abs, shifts)) <= 5


def test_settings_that_cannot_be(pictures):
    with pytest.raises(ConfigError, match='known: turns'):
        build_augmentation({'flip': True})
    with pytest.raises(ConfigError, match='above 0'):
        build_augmentation({'looks': (0, 4)})
    with pytest.raises(ConfigError, match='max_shift.* -1; allowed: 0 or more'):
        build_augmentation({'max_shift': -1})
    with pytest.raises(ConfigError, match='size of PairDataset is 0'):
        PairDataset(optical=str(pictures / 'optical'), sar=str(pictures / 'sar'), size=0)
    with pytest.raises(ConfigError, match='either optical and sar'):
        PairDataset(optical='x')
