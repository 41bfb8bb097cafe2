"""The page end to end, in a browser."""

import gradio
import pytest
from PIL import Image

from segearth.app.page import DEFECT, build_page
from segearth.app.server import launch, set_environment
from segearth.app.session import Session
from segearth.app.uploads import Limits
from segearth.errors import ConfigError
from tests.app.conftest import CHANGED, TinySegmenter

TIMEOUT = 60_000  # milliseconds


@pytest.fixture(scope='module')
def url(browser):
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGED:
            patch.setenv(name, '')
        session = Session(Limits(pixels=600_000), make_segmenter=_segmenter)
        set_environment(session, '127.0.0.1')
        blocks = build_page(session)
        url = launch(blocks, session, '127.0.0.1', None)
        yield url
        blocks.close(verbose=False)
        session.close()


def _segmenter(classes, **settings):
    if 'defect' in classes:
        raise RuntimeError('secret of /the/server')
    return TinySegmenter(classes, **settings)


@pytest.fixture
def page(browser, url):
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.requested = []
    page.on('request', lambda request: page.requested.append(request.url))
    page.goto(url)
    page.wait_for_selector('#run')
    yield page
    page.close()


def choose_example(page, number=1):
    page.click(f'#examples tbody tr:nth-child({number})')
    page.wait_for_selector('#upload a[href*=sentinel2]')


def make_map(page):
    page.click('#run')
    page.wait_for_selector('#status:has-text("Done")')
    page.wait_for_selector('#areas table')


def open_tab(page, name):
    page.get_by_role('tab', name=name).click()


def test_example_classes_scores_comparison_download(page, url):
    choose_example(page)
    make_map(page)
    assert page.locator('#areas tr').count() == 1 + 7
    first = page.locator('#map img').get_attribute('src')

    page.fill('#opacity input[type=number]', '0.2')
    page.locator('#opacity input[type=range]').press('ArrowRight')
    page.locator('#opacity input[type=range]').dispatch_event('pointerup')
    page.wait_for_function('src => document.querySelector("#map img").src !== src', arg=first)

    page.fill('#words textarea', 'water, river, lake\nland')
    page.click('#run')
    page.wait_for_selector('#areas tr:nth-child(3)')
    page.wait_for_function('document.querySelectorAll("#areas tr").length === 3')
    assert 'land' in page.inner_text('#areas') and 'hectares' in page.inner_text('#areas')

    open_tab(page, 'Scores')
    page.wait_for_selector('#scores img')
    assert page.locator('#scores .caption-label').all_inner_texts() == ['water', 'land']

    open_tab(page, 'Before and after')
    page.click('#compare')
    page.wait_for_selector('#bias img')
    page.wait_for_selector('#notes:has-text("SimFeatUp is switched off")')
    page.locator('#encoder input').fill('CLIP')
    page.get_by_role('option', name='CLIP', exact=True).click()
    page.click('#compare')
    page.wait_for_selector('#upsampling img')

    open_tab(page, 'Download')
    with page.expect_download() as download:
        page.locator('#files a[href*=classes]').first.click()
    import rasterio

    with rasterio.open(download.value.path()) as dataset:
        assert dataset.tags(1)['class_0'] == 'water' and dataset.crs.to_epsg() == 3395
    for ending in ('polygons', 'aux.xml', '.zip'):
        assert page.locator(f'#files a[href*="{ending}"]').count()

    elsewhere = [request for request in page.requested if not request.startswith((url, 'data:', 'blob:'))]
    assert not elsewhere


def test_mistakes_are_shown_in_words_until_the_next_press(page, tmp_path):
    page.click('#run')
    page.wait_for_selector('.toast-body:has-text("no image yet")')
    heading = page.inner_text('.toast-body').strip('×\n ').splitlines()[0]
    assert heading == 'The map was not made' == page.inner_text('#status strong')

    bad = tmp_path / 'notes.tif'
    bad.write_text('no image')
    page.set_input_files('#upload input[type=file]', bad)
    page.wait_for_selector('#upload a[href*=notes]')
    page.click('#run')
    page.wait_for_selector('.toast-body:has-text("notes.tif cannot be opened as a raster")')
    page.wait_for_function('!document.body.innerText.includes("no image yet")')  # it fades out
    page.wait_for_selector('.toast-body')  # the new one stays

    choose_example(page)
    page.locator('#encoder input').fill('OpenCLIP')
    page.get_by_role('option', name='OpenCLIP', exact=True).click()
    page.fill('#words textarea', 'defect\nwater')
    page.click('#run')
    page.wait_for_selector(f'.toast-body:has-text("{DEFECT}")')
    assert 'secret' not in page.inner_text('body')
    page.fill('#words textarea', 'land\nwater')
    make_map(page)
    page.wait_for_function('!document.querySelector(".toast-body, .mistake")', timeout=5000)  # sooner than by itself


def test_names_are_shown_as_text(page, tmp_path):
    names = ['<img src=x onerror="window.ran=1">', '<script>window.ran=1</script>', '![a](http://example.invalid/a.png)']
    picture = tmp_path / '<img src=x onerror=window.ran=1>.png'
    Image.new('RGB', (96, 80), (20, 90, 30)).save(picture)
    page.set_input_files('#upload input[type=file]', picture)
    page.wait_for_selector('#upload a[href*=onerror]')
    page.fill('#words textarea', '\n'.join(names))
    make_map(page)
    assert page.locator('#areas td:first-child').all_inner_texts() == names
    open_tab(page, 'Scores')
    page.wait_for_selector('#scores img')
    assert page.locator('#scores .caption-label').all_inner_texts() == names
    open_tab(page, 'Download')
    page.wait_for_selector('#files a[href*=classes]')
    page.fill('#words textarea', '\n'.join([names[0], names[0]]))
    page.click('#run')
    page.wait_for_selector('.toast-body')
    assert names[0] in page.inner_text('.toast-body') and names[0] in page.inner_text('#status')
    assert page.evaluate('window.ran') is None
    assert not [url for url in page.requested if 'example.invalid' in url or url.endswith('/x')]


def test_too_large_an_image_is_refused(page, tmp_path):
    large = tmp_path / 'large.png'
    Image.new('RGB', (900, 800)).save(large)
    page.set_input_files('#upload input[type=file]', large)
    page.wait_for_selector('#upload a[href*=large]')
    page.click('#run')
    page.wait_for_selector('.toast-body:has-text("800 x 900 pixels")')


def test_a_port_that_is_taken_is_explained(url):
    session = Session(make_segmenter=TinySegmenter)
    port = int(url.rstrip('/').rsplit(':', 1)[1])
    with gradio.Blocks() as blank:
        pass
    with pytest.raises(ConfigError, match=f'cannot listen on 127.0.0.1, port {port}.*--port'):
        launch(blank, session, '127.0.0.1', port)
