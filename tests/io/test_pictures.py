"""One picture, however it comes: as a path, as an image of Pillow, as an array, as a scene of a map."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image

from segearth.datasets.transforms import Resize
from segearth.errors import DataError, MissingFileError
from segearth.io.gdal_files import name_of_results
from segearth.io.pictures import decide_stretch, fit_image, read_optical, read_sar
from segearth.io.raster import read_info
from segearth.maps.scene import SceneSource, find_scenes, open_scene

GREY = (np.add.outer(np.arange(40), np.arange(60)) * 255 // 98).astype(np.uint8)
RGB = np.dstack([GREY, 255 - GREY, GREY[::-1]])
BANDS = RGB.transpose(2, 0, 1)
NUMBER_TYPES = ('int8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64', 'float32', 'float64')
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'I;16', 'I;16B', 'I', 'F')


def as_scene(name, **source) -> np.ndarray:
    [path] = find_scenes([name])
    with open_scene(SceneSource(path, **source)) as scene:
        return decide_stretch(scene)(*scene.read((0, 0, scene.height, scene.width)))


def stretched(bands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The rule in other words: one straight line from the 2nd to the 98th percentile of all that is valid."""
    values = np.where(np.ones(bands.shape[1:], bool) if valid is None else valid, bands.astype(float), np.nan)
    picture = np.interp(values, np.nanpercentile(values, (2, 98)), (0, 255))
    return np.nan_to_num(picture).transpose(1, 2, 0)


def assert_near(picture: np.ndarray, expected: np.ndarray) -> None:
    assert picture.dtype == np.uint8 and picture.shape == (*expected.shape[:2], 3)
    assert np.abs(picture - expected).max() <= 1


@pytest.mark.parametrize('dtype', NUMBER_TYPES)
def test_every_number_type_is_stretched_alike(write, dtype):
    large = 10**9 if np.dtype(dtype).itemsize > 4 or dtype == 'uint32' else 0  # float32 would not tell neighbours apart
    bands = (BANDS // 2).astype(dtype) if dtype == 'int8' else BANDS.astype(dtype) * 7 + large
    path = write('a.tif', bands)
    for picture in (read_optical(path), as_scene(path), read_optical(bands.transpose(1, 2, 0))):
        assert_near(picture, stretched(bands))


@pytest.mark.parametrize(('fill', 'nodata'), [
    (np.nan, None), (np.inf, None), (-3.4028235e38, None), (1.7e308, None), (-9999, -9999), (np.nan, np.nan)
])  # fmt: skip
def test_fill_values_are_black_and_move_nothing(write, fill, nodata):
    bands = BANDS.astype(np.float64)
    bands[:, :15] = fill
    valid = np.ones(GREY.shape, bool)
    valid[:15] = False
    path = write('a.tif', bands, nodata=nodata)
    for picture in (read_optical(path), as_scene(path)):
        assert_near(picture, stretched(bands, valid))


def test_scale_and_offset_are_those_of_the_file(write):
    path = write('a.tif', BANDS.astype(np.int16))
    with rasterio.open(path, 'r+') as dataset:
        dataset.scales, dataset.offsets = (1, 2, 0.5), (0, -5, 3)
    expected = stretched(np.stack([BANDS[0], BANDS[1] * 2.0 - 5, BANDS[2] * 0.5 + 3]))
    for picture in (read_optical(path), as_scene(path)):
        assert_near(picture, expected)
    with rasterio.open(write('sar.tif', -10 * GREY.astype(np.int16)), 'r+') as dataset:
        dataset.scales = (0.01,)  # decibels in hundredths
    expected = np.rint(np.clip((GREY * -0.1 + 25) / 25, 0, 1) * 255)
    for picture in (read_sar(dataset.name), as_scene(dataset.name, sensor='sar')):
        assert_near(picture, expected[..., None])


@pytest.mark.parametrize(('bits', 'options'), [(1, {}), (2, {}), (4, {}), (1, {'photometric': 'MINISWHITE'}),
                                               (8, {'photometric': 'MINISWHITE'})])  # fmt: skip
def test_few_bits_and_white_zeros_become_0_to_255(write, bits, options):
    numbers = GREY >> (8 - bits)
    path = write('a.tif', numbers, nbits=bits, **options)
    expected = np.rint(numbers * (255 / (2**bits - 1)))
    expected = 255 - expected if options else expected
    for picture in (read_optical(path), as_scene(path), read_optical(Image.open(path))):
        assert (picture == expected[..., None]).all()


def test_12_bits_and_white_zeros_of_16(write):
    path = write('a.tif', BANDS.astype(np.uint16) * 16, nbits=12)
    assert_near(read_optical(path), stretched(BANDS))
    path = write('b.tif', GREY.astype(np.uint16) * 200, photometric='MINISWHITE')
    for picture in (read_optical(path), as_scene(path), read_optical(Image.open(path))):
        assert_near(picture, 255 - stretched(GREY[None]))


def test_colour_tables_of_16_bits(write):
    path = write('a.tif', GREY.astype(np.uint16) * 100, photometric='PALETTE')
    with rasterio.open(path, 'r+') as dataset:
        dataset.write_colormap(1, {index: (index // 256, index % 256, 7, 255) for index in range(2**16)})
    numbers = GREY.astype(int) * 100
    expected = np.dstack([numbers // 256, numbers % 256, np.full_like(numbers, 7)])
    for picture in (read_optical(path), as_scene(path)):
        assert (picture == expected).all()


@pytest.mark.parametrize('mode', MODES)
def test_every_mode_of_pillow(mode):
    image = Image.fromarray(GREY.astype(np.uint16) * 200) if 'I;16' in mode else Image.fromarray(RGB)
    if mode == 'I;16B':
        image = Image.frombytes(mode, (60, 40), (GREY.astype('>u2') * 200).astype('>u2').tobytes())
    image = image if image.mode == mode else image.convert(mode)
    if mode in ('I', 'F') or 'I;16' in mode:
        expected = stretched(np.asarray(image)[None])
    else:
        expected = np.asarray(image.convert('LA').convert('L') if mode == 'LA' else image.convert('RGB'))
        expected = expected[..., None] if expected.ndim == 2 else expected
    assert_near(read_optical(image), expected)


@pytest.mark.parametrize(('name', 'mode', 'options'), [
    ('a.png', 'RGB', {}), ('a.png', 'RGBA', {}), ('a.png', 'L', {}), ('a.png', 'LA', {}), ('a.png', '1', {}),
    ('a.png', 'P', {}), ('a.png', 'P', {'transparency': 3}), ('a.png', 'I;16', {}), ('a.gif', 'P', {}),
    ('a.tif', 'CMYK', {}), ('a.tif', 'P', {}), ('a.tif', '1', {}), ('a.tif', 'F', {}), ('a.tif', 'I', {}),
    ('a.bmp', 'RGB', {}), ('a.webp', 'RGB', {'lossless': True}), ('a.JPG', 'CMYK', {}), ('A.TIF', 'RGB', {}),
    ('no-ending', 'RGB', {'format': 'TIFF'}), ('a.png', 'RGB', {'format': 'TIFF'}),
])  # fmt: skip
def test_path_and_object_and_scene_are_one(tmp_path, name, mode, options):
    path = tmp_path / name
    image = Image.fromarray(GREY.astype(np.uint16) * 200) if mode == 'I;16' else Image.fromarray(RGB).convert(mode)
    image.save(path, **options)
    expected = read_optical(path)
    assert expected.std() > 10 and read_info(path).size == (40, 60)
    loaded = Image.open(path)
    loaded.load()
    for picture in (read_optical(Image.open(path)), read_optical(loaded)):
        assert np.array_equal(picture, expected)
    assert np.abs(as_scene(path).astype(int) - expected).max() <= (8 if name == 'a.JPG' else 1)  # another decoder


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.jpg'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_orientation_mark_turns_paths_and_objects_alike(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'tiffinfo': {0x0112: orientation}} if name == 'a.tif' else {'exif': exif}
    Image.fromarray(RGB).save(tmp_path / name, **options)
    upright = [RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1], RGB.swapaxes(0, 1), np.rot90(RGB, -1),
               RGB[::-1, ::-1].swapaxes(0, 1), np.rot90(RGB)][orientation - 1]  # fmt: skip
    tolerance = 12 if name == 'a.jpg' else 0
    for picture in (read_optical(tmp_path / name), read_optical(Image.open(tmp_path / name))):
        assert picture.shape == upright.shape and np.abs(picture.astype(int) - upright).max() <= tolerance
    assert read_info(tmp_path / name).size == upright.shape[:2]
    assert as_scene(tmp_path / name).shape == RGB.shape  # a map keeps the rows and columns of the file


def test_colours_of_16_bits_are_kept_or_refused(tmp_path):
    bands = BANDS.astype(np.uint16) * 10  # dark, if only the upper 8 bits were taken
    with rasterio.open(tmp_path / 'a.png', 'w', driver='PNG', count=3, height=40, width=60, dtype='uint16') as dataset:
        dataset.write(bands)
    for picture in (read_optical(tmp_path / 'a.png'), as_scene(tmp_path / 'a.png')):
        assert_near(picture, stretched(bands))
    loaded = Image.open(tmp_path / 'a.png')
    loaded.load()
    for image in (Image.open(tmp_path / 'a.png'), loaded):
        with pytest.raises(DataError, match='Pillow keeps 8: give its path'):
            read_optical(image)


def test_arrays_of_all_layouts():
    wide = np.zeros((80, 120, 3), np.uint8)
    wide[::2, ::2] = RGB
    locked = RGB.copy()
    locked.flags.writeable = False
    with_infrared = np.dstack([RGB, GREY])
    for array in (wide[::2, ::2], RGB[::-1][::-1], locked, np.asfortranarray(RGB), with_infrared):
        assert np.array_equal(read_optical(array), RGB)
    assert np.array_equal(read_optical(GREY), read_optical(GREY[..., None]))
    assert np.array_equal(read_optical(GREY > 99), np.repeat((GREY > 99)[..., None] * np.uint8(255), 3, axis=2))
    assert np.array_equal(read_optical(with_infrared, (4, 1, 2)), with_infrared[..., [3, 0, 1]])
    numbers = RGB.astype('>u2') * 9
    assert np.array_equal(read_optical(numbers), read_optical(numbers.astype(np.uint16)))
    masked = np.ma.array(RGB.astype(float), mask=np.broadcast_to((GREY < 60)[..., None], RGB.shape))
    assert_near(read_optical(masked), stretched(BANDS, GREY >= 60))


def test_alpha_hides_nothing_of_an_image_and_can_be_ignored_in_a_scene(write, caplog):
    for scale in (1, 30):
        bands = np.concatenate([BANDS, GREY[None] * 0]).astype(np.uint8 if scale == 1 else np.uint16) * np.uint8(scale)
        path = write('a.tif', bands, photometric='RGB', alpha='YES', crs='EPSG:32632',
                     transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6))  # fmt: skip
        expected = BANDS.transpose(1, 2, 0) if scale == 1 else stretched(BANDS)
        for picture in (read_optical(path), as_scene(path, ignore_alpha=True)):
            assert_near(picture, expected)
        for resolution in (None, 2.0):
            for ignore in (False, True):
                with open_scene(SceneSource(str(path), None, 'optical', resolution, ignore)) as scene:
                    _, valid = scene.read((0, 0, scene.height, scene.width))
                    assert valid.all() == valid.any() == ignore and scene.bands == [1, 2, 3]
    assert np.array_equal(read_optical(path, (4, 1, 2))[..., 0], np.zeros_like(GREY))


@pytest.mark.parametrize('shape', [(1, 900), (900, 1), (2, 3000), (1, 1)])
def test_thin_images_keep_a_pixel(shape):
    image = np.arange(3 * shape[0] * shape[1]).reshape(*shape, 3).astype(np.uint8)
    fitted = fit_image(image, (448, 448))
    assert fitted.shape[:2] == tuple(max(int(side * 448 / max(shape) + 0.5), 1) for side in shape)
    results = Resize(scale=(448, 448), keep_ratio=True).transform({'img': image})
    assert np.array_equal(results['img'], fitted) and results['img_shape'] == fitted.shape[:2]


def test_names_that_gdal_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {'driver': 'GPKG', 'count': 3, 'height': 40, 'width': 60, 'dtype': 'uint8', 'crs': 'EPSG:32632',
               'transform': rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}  # fmt: skip
    for table, more in (('one', {}), ('two', {'APPEND_SUBDATASET': 'YES'})):
        with rasterio.open('a.gpkg', 'w', **options, RASTER_TABLE=table, **more) as dataset:
            dataset.write(BANDS if table == 'one' else 255 - BANDS)
    for read in (read_optical, as_scene):
        with pytest.raises(DataError, match='give one of them, as in GPKG:a.gpkg:one'):
            read('a.gpkg')
        assert np.abs(read('GPKG:a.gpkg:one').astype(int) - RGB).max() <= 1
        assert np.abs(read('GPKG:a.gpkg:two').astype(int) - (255 - RGB)).max() <= 1
        with pytest.raises(DataError, match='three'):
            read('GPKG:a.gpkg:three')
        for name in ('sp ace.tif', '\u00fcn\u00ef.tif', '-dash.tif', 'br[1].tif', 'a?b*.tif', 'q#w!.tif', 'a:b.tif',
                     'GPKG:x.tif', '100%25.tif'):  # fmt: skip
            with rasterio.open(name, 'w', **options | {'driver': 'GTiff'}) as dataset:
                dataset.write(BANDS)
            for given in (name, f'./{name}', f'{name}/'):
                assert np.array_equal(read(given), RGB)
        for given in (tmp_path.as_uri() + '/sp%20ace.tif', tmp_path.as_uri() + '/sp ace.tif', 'file:sp ace.tif'):
            assert np.array_equal(read(given), RGB)
        with pytest.raises(MissingFileError, match='x' * 300):
            read('x' * 300)


@pytest.mark.parametrize(('name', 'expected'), [
    ('folder/a.b.tif', 'a.b'), ('GPKG:folder/a.gpkg:two', 'a_two'), ('NETCDF:"folder/a.nc":v', 'a_v'),
    ('HDF5:"a.h5"://group/v', 'a_group_v'), ('SENTINEL2_L2A:/x/MTD.xml:10m:EPSG_32632', 'MTD_10m_EPSG_32632'),
    ('/vsizip/a.zip/in/b.tif', 'b'), ('https://example.org/a.tif?token=x.y/z', 'a'), ('s3://bucket/a.tif', 'a'),
])  # fmt: skip
def test_results_are_called_after_the_part(name, expected):
    assert name_of_results(name) == expected


def test_incomplete_png_scenes_and_animations_are_refused(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    for name in ('a.png', 'a.jpg'):
        noise.save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 3 // 5])
        with pytest.raises(DataError, match=name):
            as_scene(tmp_path / name)
    image = Image.fromarray(RGB)
    image.save(tmp_path / 'a.gif', save_all=True, append_images=[image.rotate(90), image.rotate(180)])
    with pytest.raises(DataError, match='an animation.*--bands 1'):
        as_scene(tmp_path / 'a.gif')
    first = np.asarray(Image.open(tmp_path / 'a.gif').convert('RGB'))
    assert np.array_equal(as_scene(tmp_path / 'a.gif', bands=(1,)), first)
    assert np.array_equal(read_optical(tmp_path / 'a.gif'), first)


@pytest.mark.parametrize('place', [0, 2500, 4095])
def test_the_stretch_finds_data_that_the_sample_misses(tmp_path, place, monkeypatch):
    monkeypatch.setattr('segearth.io.pictures.WHOLE_PIXELS', 100)
    monkeypatch.setattr('segearth.io.pictures.KEPT_PIXELS', 500)
    options = {'driver': 'GTiff', 'count': 1, 'height': 4100, 'width': 4100, 'dtype': 'uint16', 'tiled': True}
    small = np.arange(1000, 1016, dtype=np.uint16).reshape(1, 4, 4)
    for nodata in (0, None):
        with rasterio.open(tmp_path / 'a.tif', 'w', **options, sparse_ok=True, nodata=nodata) as dataset:
            dataset.write(small, window=rasterio.windows.Window(place, place, 4, 4))
        with open_scene(SceneSource(str(tmp_path / 'a.tif'))) as scene:
            picture = decide_stretch(scene)(*scene.read((place, place, place + 4, place + 4)))
        if nodata == 0:
            assert np.abs(picture[..., 0] - stretched(small)[..., 0]).max() <= 1
        else:  # the empty ground counts, so the object is only told from it
            assert picture.min() > 250


def test_images_without_pixels():
    with pytest.raises(DataError, match='has no pixels'):
        read_optical(Image.new('RGB', (0, 5)))
