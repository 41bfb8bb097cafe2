"""The page in the browser, with Gradio. Offline: system fonts, no scripts from elsewhere, no analytics."""

from __future__ import annotations

import html
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported

import gradio as gr
import numpy as np
from PIL import Image

from segearth.app.examples import WORDS, example_scenes
from segearth.app.pictures import area_table, class_map, map_over_scene, score_maps
from segearth.app.session import Answer, NobodyWaitsError, Request, Session
from segearth.app.uploads import Limits, without_paths
from segearth.errors import DataError, UserError
from segearth.models.dense_clip import ATTENTION_NAMES
from segearth.models.encoders import ENCODERS
from simfeatup.errors import UpsamplerError

logger = logging.getLogger(__name__)

TITLE = 'SegEarth: name classes in words, get a map'
INTRODUCTION = f"""# {TITLE}
Drop an image or a GeoTIFF, write one class a line (commas between synonyms), press **Make the map**. The encoder *Demo*
knows generated scenes only; for the Earth choose one whose weights are in `weights/`."""
FONT = ['system-ui', 'sans-serif']
MONO_FONT = ['ui-monospace', 'monospace']
CSS = """
.legend {display: inline-block; width: 1em; height: 1em; margin-right: .5em}
.legend {vertical-align: middle; border: 1px solid #555}
.areas td, .areas th {padding: .2em .8em; text-align: right; overflow-wrap: anywhere}
.areas td:first-child, .areas th:first-child {text-align: left}
"""
FIRST_OPACITY = 0.6
BUTTONS = ['download', 'fullscreen']  # gradio's third one, share, uploads to a service elsewhere
WITHOUT_UPSAMPLER = 'SimFeatUp is switched off, or the encoder has no upsampler trained for it: nothing to compare.'
NOT_MADE = 'The map was not made'
NOT_SHOWN = 'This could not be shown'
DEFECT = 'Something went wrong on the server, whose log says what. Other settings or another image may work.'
CLOSE_ERRORS = '(...values) => {document.querySelectorAll(".toast-close").forEach(each => each.click()); return values}'
BLEND = 'map'  # beginning of the names of such pictures



def build_page(session: Session) -> gr.Blocks:
    """Builds the page. Gradio keeps its files in the folder of the session from then on.

    Args:
        session: Does the work.
    """
    os.environ['GRADIO_TEMP_DIR'] = str(session.storage.folder)  # read when components are made, and at uploads
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        answer = gr.State(time_to_live=session.limits.kept_seconds)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                inputs = _inputs(session.limits)
                run = gr.Button('Make the map', variant='primary', elem_id='run')
            with gr.Column(scale=2):
                status = gr.HTML(elem_id='status')
                with gr.Tab('Map'):
                    picture = gr.Image(
                        label='classes over the scene', interactive=False, elem_id='map', format='png', buttons=BUTTONS
                    )
                    opacity = gr.Slider(
                        0, 1, FIRST_OPACITY, step=0.05, label='opacity of the classes', elem_id='opacity'
                    )
                    table = gr.HTML(elem_id='areas')
                with gr.Tab('Scores'):
                    gr.Markdown('Probability of each class, from dark (0) to bright (1).')
                    scores = gr.Gallery(label='scores', columns=3, elem_id='scores', format='png', buttons=BUTTONS)
                with gr.Tab('Before and after'):
                    compare = gr.Button('Compare without and with', elem_id='compare')
                    notes = gr.Markdown('', elem_id='notes')
                    bias = gr.ImageSlider(label='without | with Global Bias Alleviation', elem_id='bias', format='png')
                    upsampling = gr.ImageSlider(
                        label='without | with SimFeatUp', elem_id='upsampling', format='png', visible=False
                    )
                with gr.Tab('Download'):
                    files = gr.File(label=_kept(session.limits), file_count='multiple', elem_id='files')
        gr.Examples([[str(path), WORDS] for path in example_scenes()], inputs[:2], label='Examples', elem_id='examples')

        def segment(user: gr.Request, *values, progress=gr.Progress()):  # noqa: B008  (how gradio asks for it)
            with _errors_in_words(NOT_MADE, session):
                found = session.segment(
                    Request(*values), lambda done, total: progress((done, total), 'windows'), user.session_hash
                )
                pictures = [(_file(found.folder, 'score', array), name) for array, name in score_maps(found)]
                blend = _file(found.folder, BLEND, map_over_scene(found, FIRST_OPACITY))
            kept = replace(found, probabilities=np.empty(0))  # they are large, and shown already
            areas = area_table(found.areas, found.palette)
            return kept, blend, FIRST_OPACITY, areas, pictures, found.files, _summary(found, values[0])

        def compare_parts(user: gr.Request, *values, progress=gr.Progress()):  # noqa: B008
            with _errors_in_words(NOT_SHOWN, session):
                found = session.compare(
                    Request(*values), lambda done, total: progress((done, total), 'maps'), user.session_hash
                )
                pairs = [
                    labels and tuple(_file(found.folder, 'part', class_map(one, found.palette)) for one in labels)
                    for labels in (found.bias_alleviation, found.upsampling)
                ]
            has_both = found.upsampling is not None
            return pairs[0], gr.update(value=pairs[1], visible=has_both), '' if has_both else WITHOUT_UPSAMPLER

        def fade(found: Answer | None, value: float):
            with _errors_in_words(NOT_SHOWN, session):
                if found is None or not found.folder.exists():
                    raise DataError('there is no map, or it was deleted since: press Make the map')
                for old in found.folder.glob(f'{BLEND}-*'):
                    old.unlink()
                return _file(found.folder, BLEND, map_over_scene(found, value))

        def leave(user: gr.Request):
            session.storage.end(user.session_hash)

        once = {'js': CLOSE_ERRORS, 'concurrency_limit': 1, 'concurrency_id': 'model'}
        shown = [answer, picture, opacity, table, scores, files, status]
        run.click(segment, inputs, shown, **once).success(None, js=CLOSE_ERRORS)
        compare.click(compare_parts, inputs, [bias, upsampling, notes], **once).success(None, js=CLOSE_ERRORS)
        opacity.release(fade, [answer, opacity], picture, show_progress='hidden')
        page.unload(leave)
    return page


def _inputs(limits: Limits) -> list:
    """Fields in the order of :class:`Request`."""
    encoders = list(dict.fromkeys(['Demo', *(record.clip_type for record in ENCODERS)]))
    size = f'at most {limits.upload_bytes / 2**20:g} MB and {limits.pixels / 1e6:g} million pixels'
    upload = gr.File(label=f'image or GeoTIFF, {size}', type='filepath', elem_id='upload')
    words = gr.Textbox(WORDS, lines=7, label='classes, one a line, commas between synonyms', elem_id='words')
    encoder = gr.Dropdown(encoders, value='Demo', label='encoder', elem_id='encoder')
    with gr.Accordion('Method', open=False):
        attention = gr.Dropdown(list(ATTENTION_NAMES), value='SegEarth', label='attention')
        weight = gr.Slider(-1, 0, -0.3, step=0.05, label='lambda of Global Bias Alleviation')
        threshold = gr.Slider(0, 1, 0, step=0.01, label='threshold: less probable pixels get the first class')
        with_upsampling = gr.Checkbox(True, label='upsampling with SimFeatUp')
    with gr.Accordion('Reading', open=False):
        sensor = gr.Radio([('optical', 'optical'), ('radar', 'sar')], value='optical', label='sensor')
        bands = gr.Textbox('', label='bands: red, green, blue, as in 4,3,2', placeholder='the usual ones')
    return [upload, words, encoder, attention, weight, threshold, with_upsampling, sensor, bands]


@contextmanager
def _errors_in_words(title: str, session: Session) -> Iterator[None]:
    """Shows mistakes of the user's as messages on the page, without HTML and paths; all else is for the log alone."""
    try:
        yield
    except (UserError, UpsamplerError) as error:
        message = html.escape(without_paths(str(error), session.storage.folder))
    except NobodyWaitsError:
        message = 'the page was closed'
    except Exception:
        logger.exception('a defect, of which the page says only that there is one')
        message = DEFECT
    else:
        return
    raise gr.Error(message, duration=None, title=title, print_exception=False)


def _file(folder: Path, name: str, array: np.ndarray) -> str:
    """Path of a new picture; its name is new too, or browsers would show an old one."""
    path = folder / f'{name}-{secrets.token_hex(8)}.png'
    Image.fromarray(array).save(path)
    return str(path)


def _summary(answer: Answer, path: str) -> str:
    largest = max(answer.areas, key=lambda row: row.pixels)
    pixels = sum(row.pixels for row in answer.areas)
    return html.escape(f'Done: {Path(path).name}, {pixels} pixels, most of them {largest.name} ({largest.share:.0%}).')


def _kept(limits: Limits) -> str:
    return f'all in one archive, or one by one; deleted when you leave, or after {limits.kept_seconds / 60:g} minutes'
