"""The page end to end, in a browser."""

import shlex
import threading
import time
import zipfile

import gradio
import pytest
import rasterio
from PIL import Image

from segearth import commands
from segearth.app.page import DEFECT, build_page
from segearth.app.server import launch, set_environment
from segearth.app.session import Session
from segearth.app.uploads import Limits
from segearth.errors import ConfigError
from tests.app.conftest import CHANGED, TinySegmenter

TIMEOUT = 60_000  # milliseconds
SCORED = []  # batches of a slow model
SLOW = 0.05  # seconds for each


@pytest.fixture(scope='module')
def session():
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGED:
            patch.setenv(name, '')
        session = Session(Limits(upload_bytes=2**22, pixels=600_000), make_segmenter=_segmenter)
        set_environment(session, '127.0.0.1')
        yield session
        session.close()


@pytest.fixture(scope='module')
def url(browser, session):
    blocks = build_page(session)
    yield launch(blocks, session, '127.0.0.1', None)
    blocks.close(verbose=False)


def _segmenter(classes, **settings):
    if 'defect' in classes:
        raise RuntimeError('secret of /the/server')
    segmenter = TinySegmenter(classes, **settings)
    if settings['clip_type'] == 'OpenCLIP':
        score = segmenter.model.score_windows

        def score_slowly(*values):
            time.sleep(SLOW)
            SCORED.append(values)
            return score(*values)

        segmenter.model.score_windows = score_slowly
        segmenter.model.window_batch_size = lambda _: 1
    return segmenter


@pytest.fixture
def page(browser, url):
    page = browser.new_page()
    yield open_page(page, url)
    page.close()


@pytest.fixture(scope='module')
def mapped(browser, url):
    """A page with the map of the first example, whose tests leave it as it was."""
    page = browser.new_page()
    open_page(page, url)
    choose_example(page)
    make_map(page)
    yield page
    page.close()


def open_page(page, url):
    page.set_default_timeout(TIMEOUT)
    page.requested = []
    page.on('request', lambda request: page.requested.append(request.url))
    page.goto(url)
    page.wait_for_selector('#run')
    return page


def choose_example(page, number=1):
    page.click(f'#examples tr:nth-child({number}) button')
    page.wait_for_selector('#upload a[href*=sentinel2]')


def upload(page, path):
    page.set_input_files('#upload input[type=file]', path)
    page.wait_for_selector(f'#upload a[href*={path.stem[:5]}]')


def choose_encoder(page, name):
    page.locator('#encoder input').fill(name)
    page.get_by_role('option', name=name, exact=True).click()


def make_map(page):
    page.click('#run')
    page.wait_for_selector('#status:has-text("Done")')
    page.wait_for_selector('#areas table')


def open_tab(page, name):
    page.get_by_role('tab', name=name).click()


def shown_layers(page):
    return page.locator('#map .layers img:visible').count()


def test_the_legend_switches_classes_by_mouse_and_by_keyboard(mapped):
    page, before = mapped, len(mapped.requested)
    rows = page.locator('#areas tbody tr')
    assert rows.count() == 7 and 'hectares' in page.inner_text('#areas')
    present = shown_layers(page)
    assert present >= 2
    areas, map_ = (page.locator(selector).bounding_box() for selector in ('#areas', '.pictures'))
    assert areas['x'] > map_['x'] + map_['width'], 'beside the map'
    number = int(page.locator('#map .layers img').first.get_attribute('data-class'))
    rows.nth(number).locator('label').click()
    assert shown_layers(page) == present - 1 and not page.locator('#map .layers img').first.is_visible()
    everything = page.locator('#areas thead input')
    assert everything.evaluate('box => box.indeterminate')
    everything.press('Space')
    assert shown_layers(page) == present
    everything.press('Space')
    assert shown_layers(page) == 0 and page.locator('#map .scene').is_visible()
    rows.nth(number).locator('input').press('Space')
    assert shown_layers(page) == 1
    everything.press('Space')
    assert shown_layers(page) == present and len(page.requested) == before, 'in the browser alone'


def test_classes_fade_over_the_scene_by_keyboard(mapped):
    page, before = mapped, len(mapped.requested)
    layers, slider = page.locator('#map .layers'), page.get_by_label('opacity of the classes')
    assert float(layers.evaluate('all => all.style.opacity')) == 0.6
    slider.press('ArrowLeft')
    assert float(layers.evaluate('all => all.style.opacity')) == 0.59
    slider.press('Home')
    assert float(layers.evaluate('all => all.style.opacity')) == 0
    slider.fill('60')
    assert float(layers.evaluate('all => all.style.opacity')) == 0.6 and len(page.requested) == before
    sizes = [page.locator(f'#map .{name}').bounding_box() for name in ('scene', 'layers')]
    assert sizes[0] == pytest.approx(sizes[1]), 'one lies on the other'
    colours = page.evaluate("""() => {
        const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
        const layer = document.querySelector('#map .layers img'), number = layer.dataset.class;
        pen.drawImage(layer, 0, 0);
        const values = pen.getImageData(0, 0, canvas.width, canvas.height).data;
        const first = values.findIndex((value, place) => place % 4 === 3 && value === 255) - 3;
        const square = document.querySelectorAll('#areas .square')[number];
        return [`rgb(${values.slice(first, first + 3).join(', ')})`, getComputedStyle(square).backgroundColor];
    }""")
    assert colours[0] == colours[1], 'legend and map have one colour'


def test_a_narrow_screen_needs_no_sideways_scrolling(mapped):
    page = mapped
    page.set_viewport_size({'width': 390, 'height': 844})
    try:
        assert page.evaluate('document.scrollingElement.scrollWidth') <= 390
        for selector in ('#run', '#status', '.pictures', '#opacity', '#areas', '#areas tbody tr >> nth=-1', '#archive'):
            box = page.locator(selector).bounding_box()
            assert box['x'] >= 0 and box['x'] + box['width'] <= 390 and box['width'] > 80, selector
    finally:
        page.set_viewport_size({'width': 1280, 'height': 1000})


def test_one_archive_holds_all_that_belongs_to_the_map(mapped, session):
    page = mapped
    with page.expect_download() as download:
        page.click('#archive')
    assert download.value.suggested_filename == 'sentinel2_coast.zip'
    folder = next(session.storage.folder.glob('result-*/sentinel2_coast_classes.tif')).parent
    with zipfile.ZipFile(download.value.path()) as archive:
        names = set(archive.namelist())
    made = {path.name for path in folder.iterdir() if not path.name.startswith(('score-', '.'))}
    assert names == made - {'sentinel2_coast.zip'} and 'sentinel2_coast_classes.tif.aux.xml' in names

    page.get_by_role('button', name='Files one by one').click()
    with page.expect_download() as download:
        page.locator('#files a[href*=classes]').first.click()
    with rasterio.open(download.value.path()) as dataset:
        assert dataset.tags(1)['class_0'] == 'water' and dataset.crs.to_epsg() == 3395


def test_the_command_is_shown_and_copied(mapped, browser, url):
    browser.grant_permissions(['clipboard-read', 'clipboard-write'], origin=url.rstrip('/'))
    mapped.click('#copy')
    mapped.wait_for_selector('#status:has-text("clipboard")')
    line = mapped.input_value('#command textarea')
    assert mapped.evaluate('navigator.clipboard.readText()') == line
    program, *arguments = shlex.split(line)
    settings = commands._parser().parse_args(arguments)
    assert (program, settings.scenes, settings.clip_type) == ('segearth', ['sentinel2_coast.tif'], 'Mini')
    assert settings.classes.split('; ')[0] == 'water,sea,lake,river'
    mapped.fill('#words textarea', 'water\nland')
    mapped.wait_for_selector('#command', state='hidden')


def test_words_scores_and_comparison(mapped, url):
    page = mapped
    page.fill('#words textarea', 'water, river, lake\nland')
    page.click('#run')
    page.wait_for_function('document.querySelectorAll("#areas tbody tr").length === 2')
    assert 'land' in page.inner_text('#areas')

    open_tab(page, 'Scores')
    page.wait_for_selector('#scores img')
    assert page.locator('#scores .caption-label').all_inner_texts() == ['water', 'land']

    open_tab(page, 'Before and after')
    page.click('#compare')
    page.wait_for_selector('#bias img')
    page.wait_for_selector('#notes:has-text("SimFeatUp is switched off")')
    choose_encoder(page, 'CLIP')
    page.click('#compare')
    page.wait_for_selector('#upsampling img')
    assert not [request for request in page.requested if not request.startswith((url, 'data:', 'blob:'))]


def test_examples_have_pictures(page):
    pictures = page.locator('#examples img')
    assert pictures.count() == 3
    assert pictures.evaluate_all('all => all.every(one => one.complete && one.naturalWidth > 80)')
    names = page.locator('#examples button').all_inner_texts()
    assert [name.strip() for name in names] == ['coast', 'fields', 'lake']
    page.fill('#words textarea', 'other')
    page.locator('#examples button').nth(2).press('Enter')
    page.wait_for_selector('#upload a[href*=lake]')
    page.wait_for_function('document.querySelector("#words textarea").value.startsWith("water")')


def test_a_map_that_is_cancelled_stops_and_the_next_one_is_made(page, session):
    choose_example(page)
    make_map(page)
    areas = page.inner_text('#areas')
    assert not page.locator('#cancel').is_visible()
    choose_encoder(page, 'OpenCLIP')  # the slow one
    SCORED.clear()
    page.click('#run')
    page.wait_for_selector('#cancel')
    while len(SCORED) < 3:
        page.wait_for_timeout(20)
    page.click('#cancel')
    page.wait_for_selector('#status:has-text("Cancelled")')
    with session._lock:  # the computation has ended
        scored = len(SCORED)
    assert scored < 100 < 144, 'of its windows'
    page.wait_for_selector('#cancel', state='hidden')
    assert page.inner_text('#areas') == areas
    with page.expect_download() as download:
        page.click('#archive')
    assert zipfile.is_zipfile(download.value.path()), 'the earlier map is there'
    page.fill('#words textarea', 'land\nwater')
    choose_encoder(page, 'Demo')
    make_map(page)
    assert page.locator('#areas tbody tr').count() == 2 and len(SCORED) == scored


def test_who_waits_for_others_may_cancel(page, session):
    choose_example(page)
    held = threading.Event()

    def hold():
        with session._lock:
            held.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        page.click('#run')
        page.click('#cancel')
        page.wait_for_selector('#status:has-text("Cancelled")')
        page.wait_for_selector('#cancel', state='hidden')
    finally:
        held.set()
        thread.join()
    assert not page.locator('#map img').count()


def test_mistakes_are_shown_in_one_place_until_the_next_press(page, tmp_path):
    page.click('#run')
    page.wait_for_selector('#status:has-text("The map was not made: no image yet")')
    assert page.locator('.mistake').count() == 1 == page.get_by_role('alert').count()

    bad = tmp_path / 'notes.tif'
    bad.write_text('no image')
    upload(page, bad)
    page.click('#run')
    page.wait_for_selector('#status:has-text("notes.tif cannot be opened as a raster")')
    assert 'no image yet' not in page.inner_text('body')
    page.click('#copy')
    page.wait_for_selector('#status:has-text("This could not be shown: notes.tif")')
    open_tab(page, 'Before and after')
    page.click('#compare')
    page.wait_for_selector('#status:has-text("This could not be shown: notes.tif")')
    assert page.locator('.mistake').count() == 1

    choose_example(page)
    choose_encoder(page, 'GeoRSCLIP')
    page.fill('#words textarea', 'defect\nwater')
    page.click('#run')
    page.wait_for_selector(f'#status:has-text("{DEFECT}")')
    assert 'secret' not in page.inner_text('body')
    page.fill('#words textarea', 'land\nwater')
    page.click('#run')
    page.wait_for_selector('#status:has-text("Done")')
    assert not page.locator('.mistake, .toast-wrap > *').count()


def test_names_are_shown_as_text(page, tmp_path):
    names = [
        '<img src=x onerror="window.ran=1">', '<script>window.ran=1</script>', '![a](http://example.invalid/a.png)',
        '${window.ran=1}', '{{value}}',
    ]  # fmt: skip
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
    page.fill('#words textarea', '\n'.join([names[0], names[0]]))
    page.click('#run')
    page.wait_for_selector('.mistake')
    assert names[0] in page.inner_text('#status')
    assert page.evaluate('window.ran') is None
    assert not [url for url in page.requested if 'example.invalid' in url or url.endswith('/x')]


def test_too_large_an_image_is_mapped_at_reduced_resolution_and_the_page_says_so(page, tmp_path):
    large = tmp_path / 'large.png'
    Image.new('RGB', (1000, 800), (20, 90, 30)).save(large)
    upload(page, large)
    make_map(page)
    note = page.inner_text('#map .note >> nth=0')
    assert '800 x 1000 pixels and this page maps 0.6 million' in note and 'each of its pixels is 1.16 x 1.16 of' in note


def test_a_port_that_is_taken_is_explained(url):
    session = Session(make_segmenter=TinySegmenter)
    port = int(url.rstrip('/').rsplit(':', 1)[1])
    with gradio.Blocks() as blank:
        pass
    with pytest.raises(ConfigError, match=f'cannot listen on 127.0.0.1, port {port}.*--port'):
        launch(blank, session, '127.0.0.1', port)
