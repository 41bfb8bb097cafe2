"""Uploads that name addresses or other files, that unpack to more than there is room for, and what messages tell."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasterio

from segearth.app.session import Request, Session
from segearth.app.uploads import Limits, check_words, open_upload, without_paths
from segearth.errors import ConfigError, DataError
from tests.app.conftest import TinySegmenter

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[1], 'a') as file: file.write(self.path + '\\n')
        self.send_error(404)
    do_HEAD = do_POST = do_PROPFIND = do_GET
    def log_message(self, *values): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
NAMING_AN_ADDRESS = {
    'wms.tif': '<GDAL_WMS><Service name="WMS"><ServerUrl>{url}/wms?</ServerUrl><Layers>a</Layers></Service></GDAL_WMS>',
    'tms.png': '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}.png</ServerUrl></Service></GDAL_WMS>',
    'tiled.jpg': '<GDAL_WMS><Service name="TiledWMS"><ServerUrl>{url}/t?</ServerUrl></Service></GDAL_WMS>',
    'wcs.tif': '<WCS_GDAL><ServiceURL>{url}/wcs?</ServiceURL><CoverageName>a</CoverageName></WCS_GDAL>',
    'wmts.tif': '<GDAL_WMTS><GetCapabilitiesUrl>{url}/wmts</GetCapabilitiesUrl></GDAL_WMTS>',
    'virtual.vrt': '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename>/vsicurl/{url}/a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>',
    'virtual.tif': '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename>{local}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>',
    'a.mrf': '<MRF_META><CachedSource><Source>/vsicurl/{url}/a.tif</Source></CachedSource>'
    '<Raster><Size x="9" y="9" c="1"/></Raster></MRF_META>',
    'stac.tif': '{{"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{{"type": "Feature", "assets": '
    '{{"a": {{"href": "{url}/a.tif"}}}}}}]}}',
    'index.tif': '<GDALTileIndexDataset><IndexDataset>/vsicurl/{url}/a.gpkg</IndexDataset></GDALTileIndexDataset>',
    'ogc.tif': 'OGCAPI:{url}/',
    'zarr.png': 'ZARR:"/vsicurl/{url}/a.zarr"',
    'derived.tif': 'DERIVED_SUBDATASET:LOGAMPLITUDE:/vsicurl/{url}/a.tif',
    'picture.svg': '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}/a.png"/></svg>',
    'picture.png': '%!PS-Adobe-3.0 EPSF-3.0\n({url}) run showpage',
}
KINDS = [('PNG', 'a.dat'), ('JPEG', 'a.tif'), ('JP2OpenJPEG', 'a'), ('GTiff', 'a.vrt')]


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """Address of a server in another process (GDAL keeps the interpreter while it asks), and what it was asked."""
    log = tmp_path_factory.mktemp('server') / 'asked'
    log.touch()
    process = subprocess.Popen([sys.executable, '-c', SERVER, str(log)], stdout=subprocess.PIPE, text=True)
    yield f'http://127.0.0.1:{process.stdout.readline().strip()}', log
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope='module')
def session():
    session = Session(Limits(pixels=20_000), make_segmenter=TinySegmenter)
    yield session
    session.close()


def write_picture(path, driver='GTiff', dtype='uint8', **profile):
    array = np.random.default_rng(0).integers(1, 255, (3, 100, 120)).astype(dtype)
    with rasterio.open(path, 'w', driver, 120, 100, 3, dtype=dtype, **profile) as dataset:
        dataset.write(array)
    return path


@pytest.mark.parametrize('name', NAMING_AN_ADDRESS)
def test_files_that_name_addresses_or_files_are_not_opened(name, server, session, tmp_path):
    url, log = server
    path = tmp_path / name
    local = write_picture(tmp_path / 'local.tif')
    path.write_text(NAMING_AN_ADDRESS[name].format(url=url, local=local))
    with pytest.raises(DataError, match='takes GeoTIFF, JPEG 2000, PNG and JPEG'):
        session.segment(Request(str(path), 'a\nb'))
    assert not log.read_text()


def test_metadata_of_a_geotiff_do_not_lead_to_an_address(server, session, tmp_path):
    url, log = server
    path = write_picture(tmp_path / 'inside.tif', dtype='uint16')
    with rasterio.open(path, 'r+') as dataset:
        dataset.update_tags(ns='OVERVIEWS', OVERVIEW_FILE=f'/vsicurl/{url}/overviews.tif')
    with pytest.raises(DataError, match='refers to overviews in another file'):
        session.segment(Request(str(path), 'a\nb'))
    assert not log.read_text()


def test_files_beside_an_upload_are_not_read(server, session, tmp_path):
    url, log = server
    path = write_picture(tmp_path / 'a.tif', dtype='uint16')
    other = write_picture(tmp_path / 'other.tif', dtype='uint16')
    before = session.segment(Request(str(path), 'a\nb'))
    item = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{url}/o.tif</MDI></Metadata>'
    (tmp_path / 'a.tif.aux.xml').write_text(f'<PAMDataset>{item}</PAMDataset>')
    (tmp_path / 'a.tfw').write_text('9\n0\n0\n-9\n0\n0\n')
    for ending in ('ovr', 'msk'):
        rasterio.shutil.copy(other, tmp_path / f'a.tif.{ending}', driver='VRT')
    after = session.segment(Request(str(path), 'a\nb'))
    assert not log.read_text()
    assert (after.labels == before.labels).all() and (after.picture == before.picture).all()
    with open_upload(str(path), session.limits) as dataset:
        assert dataset.files == [str(path)] and dataset.transform.is_identity


def test_the_reference_system_of_a_jpeg2000_file_is_no_address(server, session, tmp_path):
    url, log = server
    place = {'crs': 'EPSG:32632', 'transform': rasterio.Affine(1, 0, 5, 0, -1, 5)}
    path = write_picture(tmp_path / 'a.jp2', 'JP2OpenJPEG', **place)
    name = b'urn:ogc:def:crs:EPSG::32632'
    content = path.read_bytes()
    assert name in content
    path.write_bytes(content.replace(name, f'{url}/'.ljust(len(name), 'a').encode()))
    session.segment(Request(str(path), 'a\nb'))
    assert not log.read_text()


@pytest.mark.parametrize('driver, name', KINDS)
def test_pictures_are_known_by_their_content(driver, name, session, tmp_path):
    path = write_picture(tmp_path / name, driver)
    assert session.segment(Request(str(path), 'a\nb')).labels.shape == (100, 120)


def test_small_files_that_unpack_to_much_are_refused(session, tmp_path):
    size = struct.pack('>IIBBBBB', 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    chunk = b'IHDR' + size
    png = tmp_path / 'large.png'
    png.write_bytes(b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk)))
    many = tmp_path / 'many.tif'
    with rasterio.open(many, 'w', 'GTiff', 100, 100, 500, dtype='float64', sparse_ok=True):
        pass
    tile = tmp_path / 'tile.tif'
    shape = {'tiled': True, 'blockxsize': 16384, 'blockysize': 16384, 'compress': 'DEFLATE', 'sparse_ok': True}
    with rasterio.open(tile, 'w', 'GTiff', 100, 100, 3, dtype='uint8', **shape):
        pass
    for path, match in ((png, 'pixels|damaged'), (many, '500 bands'), (tile, 'smaller tiles')):
        with pytest.raises(DataError, match=match):
            session.segment(Request(str(path), 'a\nb', bands='1,2,3'))


def test_words_are_limited_before_any_work():
    limits = Limits()
    assert check_words('water, river\n\n road \r\n', limits) == ['water, river', 'road']
    for words, match in (
        ('x ' * 70_000, '140000 characters; this page takes 4000'),
        ('\n'.join(f'c{number}' for number in range(65)), '65 classes.*takes 64 classes'),
        (','.join(f'c{number}' for number in range(257)), '257 names.*256 names'),
        ('\n \n', 'no classes'),
    ):
        with pytest.raises(ConfigError, match=match):
            check_words(words, limits)


def test_messages_name_files_without_their_folders(tmp_path, monkeypatch):
    spaced = tmp_path / 'my folder'
    monkeypatch.setenv('SEGEARTH_WEIGHTS', str(spaced))
    text = without_paths(f'not found: ViT-B/16 (looked for {spaced}/a.pt, /etc/other/b.pt, ~/c.pt). See https://x.org/y/z')
    assert text == 'not found: ViT-B/16 (looked for a.pt, b.pt, c.pt). See https://x.org/y/z'
    assert without_paths(f"[Errno 2] '{os.getcwd()}/d/e.tif': and/or 1/2") == "[Errno 2] 'e.tif': and/or 1/2"
