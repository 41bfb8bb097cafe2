"""The page in the browser, with Gradio.

Offline: system fonts, no scripts from elsewhere, no analytics. What happens in the browser alone is in page.js.
"""

import html
import json
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from segearth.app.request import Request, usual_weight
from segearth.app.session import Answer, NobodyWaitsError, Session
from segearth.app.uploads import without_paths
from segearth.app.view import class_map, example_table, map_view, score_maps
from segearth.errors import UserError
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
CSS, SCRIPT = (Path(__file__).with_name(name).read_text() for name in ('page.css', 'page.js'))
PNG: dict[str, Any] = {'format': 'png', 'buttons': ['download', 'fullscreen']}
"""How pictures are shown; Gradio's third button, share, uploads to a service elsewhere."""
WITHOUT_UPSAMPLER = 'SimFeatUp is switched off, or the encoder has no upsampler trained for it: nothing to compare.'
NOTHING_YET = 'No map yet.'
COPIED = 'The command is in the clipboard.'
NOT_MADE = 'The map was not made'
NOT_SHOWN = 'This could not be shown'
CANCELLED = 'Cancelled. What was there before is still there.'
DEFECT = 'Something went wrong on the server, whose log says what. Other settings or another image may work.'
PRESSED = """element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger('click', {number: Number(button.value)});
})"""
HIDDEN = "() => ({__type__: 'update', visible: false})"
IS_WORKING, IS_IDLE = (  # for the two buttons that start something, the one that ends it, and the messages
    f"""() => [{{__type__: 'update', interactive: {idle}}}, {{__type__: 'update', interactive: {idle}}},
    {{__type__: 'update', visible: {working}}}{message}]"""
    for idle, working, message in (('false', 'true', ", ''"), ('true', 'false', ''))
)


def build_page(session: Session) -> gr.Blocks:
    """Builds the page of a session, in whose folder Gradio is to keep its files (server.set_environment)."""
    words = WORDS.read_text().strip()
    copies = [shutil.copy(path, session.storage.folder) for path in EXAMPLES]  # where the page takes files from
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                size = f'at most {session.limits.upload_bytes / 2**20:g} MB'
                upload = gr.File(label=f'image or GeoTIFF, {size}', type='filepath', elem_id='upload', height=140)
                table = example_table(EXAMPLES)
                examples = gr.HTML(table, elem_id='examples', js_on_load=PRESSED, apply_default_css=False)
                inputs = [upload, *_settings(words)]
                with gr.Row():
                    run = gr.Button('Make the map', variant='primary', elem_id='run')
                    cancel = gr.Button('Cancel', elem_id='cancel', visible=False)
                copy = gr.Button('Copy as command', size='sm', elem_id='copy')
                line = gr.Textbox(
                    label='the same map in the shell', elem_id='command', visible=False, interactive=False,
                    lines=2, max_lines=12, buttons=['copy'],
                )  # fmt: skip
            with gr.Column(scale=2, min_width=300):
                status = gr.HTML(_message(NOTHING_YET), elem_id='status')
                with gr.Tab('Map'):
                    view = gr.HTML(elem_id='map', apply_default_css=False)
                    kept = f'deleted when you leave, or after {session.limits.kept_seconds / 60:g} minutes'
                    archive = gr.DownloadButton('Download all in one archive', elem_id='archive', visible=False)
                    with gr.Accordion('Files one by one', open=False, visible=False) as one_by_one:
                        files = gr.File(label=kept, file_count='multiple', elem_id='files', interactive=False)
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

        def segment(user: gr.Request, *values: Any, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
            with _mistakes(NOT_MADE, session) as mistakes:
                found = session.segment(
                    Request(*values), lambda done, total: progress((done, total), 'windows'), str(user.session_hash)
                )
                return {
                    view: map_view(found),
                    scores: [(_file(found.folder, 'score', array), name) for array, name in score_maps(found)],
                    archive: gr.update(value=found.files[0], visible=True),
                    one_by_one: gr.update(visible=True),
                    files: found.files[1:],
                    status: _summary(found, values[0]),
                }
            return {status: ''.join(mistakes)}

        def compare_parts(user: gr.Request, *values: Any, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
            with _mistakes(NOT_SHOWN, session) as mistakes:
                found = session.compare(
                    Request(*values), lambda done, total: progress((done, total), 'windows'), str(user.session_hash)
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
            return {status: ''.join(mistakes)}

        def show_command(user: gr.Request, *values: Any) -> dict[Any, Any]:
            with _mistakes(NOT_SHOWN, session) as mistakes:
                command = session.command(Request(*values), str(user.session_hash))
                return {line: gr.update(value=command, visible=True), status: ''}
            return {line: gr.update(value='', visible=False), status: ''.join(mistakes)}

        def choose(event: gr.EventData) -> tuple[str, str]:
            return copies[event.number], words

        def stop(user: gr.Request) -> str:
            session.cancel(str(user.session_hash))
            return _message(CANCELLED)

        def leave(user: gr.Request) -> None:
            session.storage.end(str(user.session_hash))

        buttons = [run, compare, cancel]
        at_work: list[Any] = []
        for button, work, outputs in (
            (run, segment, [view, scores, archive, one_by_one, files, status]),
            (compare, compare_parts, [bias, upsampling, notes, status]),
        ):
            button.click(None, None, [*buttons, status], js=IS_WORKING)
            at_work.append(
                button.click(
                    work, inputs, outputs, concurrency_limit=1, concurrency_id='model', show_progress_on=status
                )
            )
            at_work[-1].then(None, None, buttons, js=IS_IDLE)
        cancel.click(stop, None, status, queue=False, show_progress='hidden', cancels=at_work)
        copied = f'async text => await copyText(text) ? {json.dumps(_message(COPIED))} : {{__type__: "update"}}'
        copy.click(show_command, inputs, [line, status], show_progress='hidden').then(None, line, status, js=copied)
        for field in inputs:  # a line of other settings would mislead
            field.change(None, None, line, js=HIDDEN)
        examples.click(choose, None, inputs[:2], show_progress='hidden')
        page.unload(leave)
    return page


def _settings(words: str) -> list:
    """Fields in the order of :class:`Request`, but for the file."""
    usual = DEFAULT_ENCODERS['optical']
    encoders = list(dict.fromkeys([*DEFAULT_ENCODERS.values(), *clip_types()]))
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
    return [classes, encoder, attention, weight, threshold, with_upsampling, sensor, bands]


@contextmanager
def _mistakes(title: str, session: Session) -> Iterator[list[str]]:
    """Makes messages of mistakes of the user's, without paths and as plain text; all else is for the log alone.

    Yields what to put on the page, as HTML, if the block does not return.
    """
    shown: list[str] = []
    try:
        yield shown
        return
    except (UserError, UpsamplerError) as error:
        message = without_paths(str(error), session.storage.folder)
    except NobodyWaitsError:
        shown.append(_message(CANCELLED))
        return
    except Exception:
        logger.exception('a defect, of which the page says only that there is one')
        message = DEFECT
    shown.append(
        f'<div class="mistake toast-body" role="alert"><strong>{title}</strong>: {html.escape(message)}</div>'
    )


def _file(folder: Path, name: str, array: np.ndarray) -> str:
    """Path of a new picture; its name is new too, or browsers would show an old one."""
    path = folder / f'{name}-{secrets.token_hex(8)}.png'
    Image.fromarray(array).save(path)
    return str(path)


def _summary(answer: Answer, path: str) -> str:
    largest = max(answer.areas, key=lambda row: row.pixels)
    pixels = sum(row.pixels for row in answer.areas)
    return _message(f'Done: {Path(path).name}, {pixels:,} pixels, most of them {largest.name} ({largest.share:.0%}).')


def _message(text: str) -> str:
    return f'<div class="done" role="status">{html.escape(text)}</div>'
