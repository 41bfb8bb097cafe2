import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from segearth.errors import ConfigError, DataError, MissingFileError
from segearth.io.pictures import decide_stretch, read_optical, read_sar
from segearth.maps.scene import SceneSource, choose_resolution, find_scenes, open_scene
from tests.maps.conftest import UTM, smooth_picture


def read_whole(path, stretch='auto', **source):
    with open_scene(SceneSource(str(path), **source)) as scene:
        bands, valid = scene.read((0, 0, scene.height, scene.width))
        return decide_stretch(scene, stretch)(bands, valid), valid


def test_byte_scenes_are_pictures_already(write_scene):
    picture = smooth_picture(40, 50)
    rgb, valid = read_whole(write_scene(picture, **UTM))
    assert (rgb == picture.transpose(1, 2, 0)).all() and valid.all()


@pytest.mark.parametrize('dtype', ['uint16', 'int16', 'float32'])
def test_stretch_equals_that_of_the_readers(write_scene, dtype):
    array = smooth_picture(40, 50, 4).astype(dtype) * 11
    path = write_scene(array, nodata=0, **UTM)
    rgb, _ = read_whole(path, bands=(3, 2, 1))
    assert np.abs(rgb.astype(int) - read_optical(path, (3, 2, 1))).max() <= 1


def test_radar_equals_that_of_the_readers(write_scene):
    decibels = smooth_picture(40, 50, 2).astype(np.float32) / 10 - 25
    decibels[:, :5] = np.nan
    for array in (decibels, 10 ** (decibels / 20), 10 ** (decibels / 20) * 3000):
        path = write_scene(array, nodata=np.nan, **UTM)
        rgb, valid = read_whole(path, sensor='sar')
        assert np.abs(rgb.astype(int) - read_sar(path)).max() <= 1
        assert not valid[:5].any() and valid[5:].all()


def test_explicit_stretch_and_one_for_all_boxes(write_scene):
    array = np.arange(2000, dtype=np.uint16).reshape(1, 40, 50)
    path = write_scene(array)
    rgb, _ = read_whole(path, '500,1500')
    expected = np.rint(np.clip((array[0] - 500.0) / 1000, 0, 1) * 255)
    assert (rgb == expected[..., None]).all()
    with open_scene(SceneSource(str(path))) as scene:
        stretch = decide_stretch(scene)
        whole = stretch(*scene.read((0, 0, 40, 50)))
        assert (stretch(*scene.read((7, 9, 20, 30))) == whole[7:20, 9:30]).all()


@pytest.mark.parametrize('setting', ['2', '5,1', 'a,b', 'minmax'])
def test_refuses_odd_stretches(write_scene, setting):
    with pytest.raises(ConfigError, match='allowed: percentile, none'):
        read_whole(write_scene(smooth_picture(20, 20)), setting)


def test_large_scene_without_overviews_is_sampled(write_scene, monkeypatch):
    monkeypatch.setattr('segearth.io.pictures.WHOLE_PIXELS', 100)
    array = smooth_picture(600, 700, 1).astype(np.uint16) * 20
    rgb, _ = read_whole(write_scene(array))
    low, high = np.percentile(array, (2, 98))
    expected = np.rint(np.clip((array[0] - low) / (high - low), 0, 1) * 255)
    assert np.abs(rgb[..., 0] - expected).mean() < 5


def test_what_is_no_data(write_scene):
    picture = smooth_picture(30, 30)
    picture[:, :10] = 0
    picture[0, 15] = 0  # in one band only: a colour, not a hole
    _, valid = read_whole(write_scene(picture, nodata=0, **UTM))
    assert not valid[:10].any() and valid[10:].all()
    mask = np.full((30, 30), 255, np.uint8)
    mask[:, 20:] = 0
    _, valid = read_whole(write_scene(picture, 'masked.tif', mask, **UTM))
    assert (valid == (mask > 0)).all()


def test_alpha_is_no_band_but_a_mask(write_scene):
    picture = smooth_picture(30, 30, 4)
    picture[3] = 255
    picture[3, :12] = 0
    path = write_scene(picture, photometric='RGB', alpha='YES', **UTM)
    with open_scene(SceneSource(str(path))) as scene:
        assert scene.bands == [1, 2, 3]
        assert not scene.read((0, 0, 12, 30))[1].any() and scene.read((12, 0, 30, 30))[1].all()
    with open_scene(SceneSource(str(path), resolution=1.0)) as scene:
        assert scene.bands == [1, 2, 3] and (scene.height, scene.width) == (15, 15)
        assert not scene.read((0, 0, 6, 15))[1].any() and scene.read((6, 0, 15, 15))[1].all()


def test_mask_survives_resampling(write_scene):
    mask = np.full((40, 40), 255, np.uint8)
    mask[:20] = 0
    with open_scene(SceneSource(str(write_scene(smooth_picture(40, 40), mask=mask, **UTM)), resolution=1.0)) as scene:
        assert not scene.read((0, 0, 10, 20))[1].any() and scene.read((10, 0, 20, 20))[1].all()


@pytest.mark.parametrize('resolution', [0.2, 0.35, 0.5, 1.7])
def test_resampled_boxes_fit_together_whatever_the_rotation(write_scene, resolution):
    for turn in (0, 30):
        transform = Affine.translation(346000, 5648000) @ Affine.rotation(turn) @ Affine.scale(0.5, -0.5)
        path = write_scene(smooth_picture(90, 80), crs='EPSG:25832', transform=transform)
        with open_scene(SceneSource(str(path), resolution=resolution)) as scene:
            whole, _ = scene.read((0, 0, scene.height, scene.width))
            y, x = scene.height // 3, scene.width // 4
            part, _ = scene.read((y, x, y + 9, x + 11))
            assert np.abs(part.astype(int) - whole[:, y : y + 9, x : x + 11]).max() <= 1
            assert scene.height == round(90 * 0.5 / resolution)
            extent = scene.transform @ (scene.width, scene.height)
            np.testing.assert_allclose(extent, transform @ (80, 90), atol=resolution)


RANGES = [((1.0, 10.0), 1.0), ((0.1, 0.25), 0.25), ((0.2, 2.0), 0.5), ((0.1, 0.45), 0.5)]  # of metres, and what becomes


@pytest.mark.parametrize(('known', 'side'), RANGES)
def test_what_lies_outside_of_the_known_resolutions_is_brought_to_the_nearest(write_scene, known, side):
    scene = write_scene(smooth_picture(60, 80), **UTM)  # of 0.5 m
    with open_scene(SceneSource(str(scene), resolution=known)) as scene:
        assert (scene.transform.a, scene.shape) == (side, (60 * 0.5 / side, 80 * 0.5 / side))


def test_what_is_far_coarser_than_known_stays_and_slips_are_refused(write_scene, caplog):
    place = Affine(250, 0, 5e5, 0, -250, 5e6)
    path = write_scene(smooth_picture(20, 30), 'coarse.tif', crs='EPSG:32632', transform=place)
    with open_scene(SceneSource(str(path), resolution=(1.0, 10.0))) as scene:
        assert scene.shape == (20, 30)
    assert 'coarser than the 10 m that the encoder knows' in caplog.text
    with pytest.raises(ConfigError, match='Choose a value nearer to its own, or native'):
        open_scene(SceneSource(str(path), resolution=1.0)).__enter__()


def test_known_resolutions_leave_alone_what_has_none(write_scene):
    with open_scene(SceneSource(str(write_scene(smooth_picture(60, 80))), resolution=(1.0, 2.0))) as scene:
        assert scene.shape == (60, 80)


def test_choices_of_a_resolution():
    known = (2.0, 10.0)
    chosen = [choose_resolution(given, known) for given in ('auto', 'native', None, '0.5', 3)]
    assert chosen == [known, None, None, 0.5, 3]
    assert choose_resolution('auto', None) is None
    assert choose_resolution('2px', known) == '2px'
    for given in ('fine', 'px', '1 px m'):
        with pytest.raises(ConfigError, match=f"resolution is '{given}'; give metres a pixel as in 0.5, pixels"):
            choose_resolution(given, known)


@pytest.mark.parametrize('profile', [{}, UTM, {'transform': Affine(3, 0, 5, 0, 3, 5)}], ids=['no', 'utm', 'no system'])
def test_a_resolution_in_pixels_needs_no_place_on_the_ground(write_scene, profile):
    array = smooth_picture(60, 80)
    path = write_scene(array, **profile)
    with rasterio.open(path) as native, open_scene(SceneSource(str(path), resolution='2px')) as scene:
        found, valid = scene.read((0, 0, 30, 40))
        assert scene.shape == (30, 40) and valid.all() and scene.crs == native.crs
        grown = native.transform if native.transform.is_identity else native.transform @ Affine.scale(2)
        assert scene.transform == grown
    means = array.reshape(3, 30, 2, 40, 2).mean(axis=(2, 4))
    assert np.abs(found - means).max() <= 1


def test_resolution_of_a_geographic_scene_is_in_metres(write_scene):
    path = write_scene(smooth_picture(60, 60), crs='EPSG:4326', transform=Affine(1e-4, 0, 10, 0, -1e-4, 60))
    with open_scene(SceneSource(str(path), resolution=20)) as scene:
        assert (scene.height, scene.width) == (33, 17)  # 60 x 11.14 m, 60 x 5.58 m


def test_colour_tables_are_looked_up(write_scene):
    path = write_scene(np.array([[[0, 1], [1, 0]]], np.uint8).repeat(8, 1).repeat(8, 2), photometric='palette')
    import rasterio

    with rasterio.open(path, 'r+') as dataset:
        dataset.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 0, 255)})
        assert dataset.colorinterp == (ColorInterp.palette,)
    rgb, _ = read_whole(path)
    assert rgb[0, 0].tolist() == [10, 20, 30] and rgb[0, -1].tolist() == [200, 100, 0]


def test_refuses_what_cannot_work(write_scene, tmp_path):
    thirteen = write_scene(smooth_picture(20, 20, 13).astype(np.uint16), 'thirteen.tif')
    with pytest.raises(DataError, match='13 bands.*--bands'):
        read_whole(thirteen)
    with pytest.raises(DataError, match='band 14 does not exist: choose from 1 to 13'):
        read_whole(thirteen, bands=(14, 3, 2))
    with pytest.raises(DataError, match='2 are chosen'):
        read_whole(thirteen, bands=(3, 2))
    with pytest.raises(DataError, match='co-polarised first'):
        read_whole(thirteen, bands=(3, 2, 1), sensor='sar')
    with pytest.raises(DataError, match='--sar'):
        read_whole(write_scene(np.ones((1, 9, 9), np.complex64), 'complex.tif'))
    with pytest.raises(ConfigError, match='no coordinate reference system'):
        read_whole(write_scene(smooth_picture(20, 20), 'bare.tif'), resolution=1.0)
    with pytest.raises(ConfigError, match='0 x 0 pixels'):
        read_whole(tmp_path / 'bare.tif', resolution='100px')
    for resolution in (0, -1, float('nan'), '0px', 'nanpx', 'apx', '2'):
        with pytest.raises(ConfigError, match='metres a pixel'):
            read_whole(write_scene(smooth_picture(20, 20), 'utm.tif', **UTM), resolution=resolution)
    with pytest.raises(ConfigError, match='0 x 0 pixels'):
        read_whole(tmp_path / 'utm.tif', resolution=1000)
    with pytest.raises(ConfigError, match='radar scene'):
        read_whole(write_scene(np.ones((1, 9, 9), np.float32), 'sar.tif'), 'none', sensor='sar')
    broken = tmp_path / 'broken.tif'
    broken.write_bytes((tmp_path / 'utm.tif').read_bytes()[:200])
    with pytest.raises(DataError, match='broken.tif cannot be'):
        read_whole(broken)
    cut = tmp_path / 'cut.tif'
    cut.write_bytes(thirteen.read_bytes()[:3000])
    with pytest.raises(DataError, match='cut.tif cannot be'):
        read_whole(cut, bands=(13, 12, 11))
    with pytest.raises(MissingFileError, match='absent.tif'):
        read_whole(tmp_path / 'absent.tif')


def test_finds_scenes(write_scene, tmp_path):
    for name in ('b.tif', 'a.png.tif', 'old_classes.tif'):
        write_scene(smooth_picture(8, 8), name)
    (tmp_path / 'notes.txt').write_text('no scene')
    (tmp_path / 'old_areas.csv').write_text('')  # with which old_classes.tif is a result
    scenes = [str(tmp_path / name) for name in ('a.png.tif', 'b.tif')]
    assert find_scenes([tmp_path]) == scenes
    assert find_scenes([tmp_path / '*.tif', scenes[1]]) == scenes
    assert find_scenes(['/vsicurl/https://example.org/x.tif']) == ['/vsicurl/https://example.org/x.tif']
    with pytest.raises(MissingFileError, match='nowhere'):
        find_scenes([tmp_path / 'nowhere'])
    with pytest.raises(DataError, match='no scenes in'):
        find_scenes([tmp_path / '*.jp2'])
