"""The page in the browser, with Gradio, and its pictures and tables.

Offline: system fonts, no scripts from elsewhere, no analytics.
"""

import html
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from PIL import Image

from segearth.app.session import Answer, NobodyWaitsError, Request, Session, usual_weight
from segearth.app.uploads import Limits, without_paths
from segearth.errors import DataError, UserError
from segearth.io.panels import Palette, colour_map, overlay
from segearth.maps.areas import ClassArea
from segearth.maps.labelling import NO_DATA
from segearth.models.dense_clip import ATTENTION_NAMES
from segearth.weights.encoders import DEFAULT_ENCODERS, clip_types
from simfeatup.errors import UpsamplerError

logger = logging.getLogger(__name__)

EXAMPLES = sorted((Path(__file__).parent / 'examples').glob('*.tif'))
WORDS = Path(__file__).parent / 'examples' / 'classes.txt'

TITLE = 'SegEarth: name classes in words, get a map'
INTRODUCTION = f"""# {TITLE}
Drop an image or a GeoTIFF, write one class a line (commas between synonyms), press **Make the map**. The encoder *Mini*
is a small one that comes with the program, for images of 1 to 10 m a pixel (radar: *MiniSAR*); larger ones need
weights in `weights/`."""
FONT, MONO_FONT = ['system-ui', 'sans-serif'], ['ui-monospace', 'monospace']
CSS = Path(__file__).with_name('page.css').read_text()
OPACITY = 0.6  # at first
PNG: dict[str, Any] = {'format': 'png', 'buttons': ['download', 'fullscreen']}
"""How pictures are shown; Gradio's third button, share, uploads to a service elsewhere."""
WITHOUT_UPSAMPLER = 'SimFeatUp is switched off, or the encoder has no upsampler trained for it: nothing to compare.'
NOT_MADE = 'The map was not made'
NOT_SHOWN = 'This could not be shown'
DEFECT = 'Something went wrong on the server, whose log says what. Other settings or another image may work.'
CLOSE_TOASTS = '(...values) => {document.querySelectorAll(".toast-close").forEach(each => each.click()); return values}'
TOAST_SECONDS = 10
BLEND = 'map'  # beginning of the names of such pictures
SCORE_COLOURS = 'viridis'  # readable for colour-blind eyes


def build_page(session: Session) -> gr.Blocks:
    """Builds the page of a session, in whose folder Gradio is to keep its files (server.set_environment)."""
    words = WORDS.read_text().strip()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        answer = gr.State(time_to_live=session.limits.kept_seconds)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                inputs = _inputs(session.limits, words)
                run = gr.Button('Make the map', variant='primary', elem_id='run')
            with gr.Column(scale=2):
                status = gr.HTML(elem_id='status')
                with gr.Tab('Map'):
                    picture = gr.Image(label='classes over the scene', interactive=False, elem_id='map', **PNG)
                    opacity = gr.Slider(0, 1, OPACITY, step=0.05, label='opacity of the classes', elem_id='opacity')
                    table = gr.HTML(elem_id='areas')
                with gr.Tab('Scores'):
                    gr.Markdown('Probability of each class, from dark (0) to bright (1).')
                    scores = gr.Gallery(label='scores', columns=3, elem_id='scores', **PNG)
                with gr.Tab('Before and after'):
                    compare = gr.Button('Compare without and with', elem_id='compare')
                    notes = gr.HTML(elem_id='notes')
                    bias = gr.ImageSlider(label='without | with Global Bias Alleviation', elem_id='bias', format='png')
                    upsampling = gr.ImageSlider(
                        label='without | with SimFeatUp', elem_id='upsampling', format='png', visible=False
                    )
                with gr.Tab('Download'):
                    kept = f'deleted when you leave, or after {session.limits.kept_seconds / 60:g} minutes'
                    label = f'all in one archive, or one by one; {kept}'
                    files = gr.File(label=label, file_count='multiple', elem_id='files', interactive=False)
        gr.Examples([[str(path), words] for path in EXAMPLES], inputs[:2], label='Examples', elem_id='examples')

        def segment(user: gr.Request, *values: Any, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
            with _mistakes(NOT_MADE, session) as mistakes:
                found = session.segment(
                    Request(*values), lambda done, total: progress((done, total), 'windows'), str(user.session_hash)
                )
                return {
                    scores: [(_file(found.folder, 'score', array), name) for array, name in score_maps(found)],
                    picture: _file(found.folder, BLEND, map_over_scene(found, OPACITY)),
                    opacity: OPACITY,
                    answer: replace(found, probabilities=np.empty(0)),  # they are large, and shown already
                    table: area_table(found.areas, found.palette),
                    files: found.files,
                    status: _summary(found, values[0]),
                }
            return {status: ''.join(mistakes)}

        def compare_parts(user: gr.Request, *values: Any, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
            with _mistakes(NOT_SHOWN, session) as mistakes:
                found = session.compare(
                    Request(*values), lambda done, total: progress((done, total), 'maps'), str(user.session_hash)
                )
                pairs = [
                    labels and tuple(_file(found.folder, 'part', class_map(one, found.palette)) for one in labels)
                    for labels in (found.bias_alleviation, found.upsampling)
                ]
                has_both = found.upsampling is not None
                return {
                    bias: pairs[0],
                    upsampling: gr.update(value=pairs[1], visible=has_both),
                    notes: '' if has_both else WITHOUT_UPSAMPLER,
                }
            return {notes: ''.join(mistakes)}

        def fade(found: Answer | None, value: float) -> Any:
            with _mistakes(NOT_SHOWN, session):
                if found is None or not found.folder.exists():
                    raise DataError('there is no map, or it was deleted since: press Make the map')
                for old in found.folder.glob(f'{BLEND}-*'):
                    old.unlink()
                return _file(found.folder, BLEND, map_over_scene(found, value))
            return gr.skip()

        def leave(user: gr.Request) -> None:
            session.storage.end(str(user.session_hash))

        one_by_one: dict[str, Any] = {'js': CLOSE_TOASTS, 'concurrency_limit': 1, 'concurrency_id': 'model'}
        run.click(segment, inputs, [answer, picture, opacity, table, scores, files, status], **one_by_one)
        compare.click(compare_parts, inputs, [bias, upsampling, notes], **one_by_one)
        opacity.release(fade, [answer, opacity], picture, show_progress='hidden')
        page.unload(leave)
    return page


def map_over_scene(answer: Answer, opacity: float) -> np.ndarray:
    """(h, w, 3) uint8: the classes over the scene, which shows through where there is no data."""
    blended = overlay(answer.picture, answer.labels, answer.palette, opacity)
    return np.where((answer.labels == NO_DATA)[..., None], answer.picture, blended)


def class_map(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """(h, w, 3) uint8, white where there is no data."""
    picture = colour_map(labels, palette)
    picture[labels == NO_DATA] = 255
    return picture


def score_maps(answer: Answer) -> list[tuple[np.ndarray, str]]:
    """One picture a class, its probability from dark (0) to bright (1), with a caption."""
    colours = matplotlib.colormaps[SCORE_COLOURS]
    return [
        (colours(probability.astype(np.float32), bytes=True)[..., :3], name)
        for probability, name in zip(answer.probabilities, answer.class_names, strict=True)
    ]


def area_table(areas: Sequence[ClassArea], palette: Palette) -> str:
    """Legend and areas, in HTML."""
    is_known = any(row.hectares is not None for row in areas)
    rows = []
    for row, colour in zip(areas, palette, strict=True):
        rgb = ', '.join(str(int(value)) for value in colour)
        square = f'<span class="legend" style="background: rgb({rgb})"></span>'
        hectares = f'<td>{row.hectares:.2f}</td>' if row.hectares is not None else ''
        cells = f'<td>{square}{html.escape(row.name)}</td><td>{row.share:.1%}</td><td>{row.pixels}</td>{hectares}'
        rows.append(f'<tr>{cells}</tr>')
    head = '<th>class</th><th>share</th><th>pixels</th>' + ('<th>hectares</th>' if is_known else '')
    note = '' if is_known else '<p>The image has no coordinate reference system, so its areas are unknown.</p>'
    return f'<table class="areas"><tr>{head}</tr>{"".join(rows)}</table>{note}'


def _inputs(limits: Limits, words: str) -> list:
    """Fields in the order of :class:`Request`."""
    usual = DEFAULT_ENCODERS['optical']
    encoders = list(dict.fromkeys([*DEFAULT_ENCODERS.values(), *clip_types()]))
    size = f'at most {limits.upload_bytes / 2**20:g} MB and {limits.pixels / 1e6:g} million pixels'
    upload = gr.File(label=f'image or GeoTIFF, {size}', type='filepath', elem_id='upload')
    classes = gr.Textbox(words, lines=7, label='classes, one a line, commas between synonyms', elem_id='words')
    encoder = gr.Dropdown(encoders, value=usual, label='encoder', elem_id='encoder')
    with gr.Accordion('Method', open=False):
        attention = gr.Dropdown(list(ATTENTION_NAMES), value='SegEarth', label='attention')
        weight = gr.Slider(-1, 0, usual_weight(usual), step=0.05, label='lambda of Global Bias Alleviation')
        threshold = gr.Slider(0, 1, 0, step=0.01, label='threshold: less probable pixels get the first class')
        with_upsampling = gr.Checkbox(True, label='upsampling with SimFeatUp')
    with gr.Accordion('Reading', open=False):
        sensor = gr.Radio([('optical', 'optical'), ('radar', 'sar')], value='optical', label='sensor')
        bands = gr.Textbox('', label='bands: red, green, blue, as in 4,3,2', placeholder='the usual ones')
    encoder.change(usual_weight, encoder, weight, show_progress='hidden')
    return [upload, classes, encoder, attention, weight, threshold, with_upsampling, sensor, bands]


@contextmanager
def _mistakes(title: str, session: Session) -> Iterator[list[str]]:
    """Shows mistakes of the user's as messages, without paths and as plain text; all else is for the log alone.

    Yields what to put on the page, as HTML, if the block does not return.
    """
    shown: list[str] = []
    try:
        yield shown
        return
    except (UserError, UpsamplerError) as error:
        message = without_paths(str(error), session.storage.folder)
    except NobodyWaitsError:
        message = 'the page was closed'
    except Exception:
        logger.exception('a defect, of which the page says only that there is one')
        message = DEFECT
    message = html.escape(message)
    gr.Warning(f'<strong>{title}</strong><br>{message}', TOAST_SECONDS)
    shown.append(f'<div class="mistake"><strong>{title}</strong>: {message}</div>')


def _file(folder: Path, name: str, array: np.ndarray) -> str:
    """Path of a new picture; its name is new too, or browsers would show an old one."""
    path = folder / f'{name}-{secrets.token_hex(8)}.png'
    Image.fromarray(array).save(path)
    return str(path)


def _summary(answer: Answer, path: str) -> str:
    largest = max(answer.areas, key=lambda row: row.pixels)
    pixels = sum(row.pixels for row in answer.areas)
    return html.escape(f'Done: {Path(path).name}, {pixels} pixels, most of them {largest.name} ({largest.share:.0%}).')
