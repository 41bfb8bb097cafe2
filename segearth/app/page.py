"""The page in the browser, with Gradio. Offline: system fonts, no scripts from elsewhere, no analytics."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported

import gradio as gr
import numpy as np
from PIL import Image

from segearth.app.examples import WORDS, example_scenes
from segearth.app.pictures import area_table, class_map, map_over_scene, score_maps
from segearth.app.session import Answer, Limits, Request, Session
from segearth.errors import ConfigError, UserError
from segearth.models.dense_clip import ATTENTION_NAMES
from segearth.models.encoders import ENCODERS
from simfeatup.errors import UpsamplerError

logger = logging.getLogger(__name__)

__all__ = ['Limits', 'build_page', 'launch', 'serve']

TITLE = 'SegEarth: name classes in words, get a map'
INTRODUCTION = f"""# {TITLE}
Drop an image or a GeoTIFF, write one class a line (commas between synonyms), press **Make the map**. The encoder *Demo*
knows generated scenes only; for the Earth choose one whose weights are in `weights/`."""
FONT = ['system-ui', 'sans-serif']
MONO_FONT = ['ui-monospace', 'monospace']
CSS = """
.legend {display: inline-block; width: 1em; height: 1em; margin-right: .5em}
.legend {vertical-align: middle; border: 1px solid #555}
.areas td, .areas th {padding: .2em .8em; text-align: right}
.areas td:first-child, .areas th:first-child {text-align: left}
"""
FIRST_OPACITY = 0.6
BUTTONS = ['download', 'fullscreen']  # gradio's third one, share, uploads to a service elsewhere
WITHOUT_UPSAMPLER = 'SimFeatUp is switched off, or the encoder has no upsampler trained for it: nothing to compare.'
CONCURRENCY = {'concurrency_limit': 1, 'concurrency_id': 'model'}


def build_page(session: Session) -> gr.Blocks:
    """Builds the page.

    Args:
        session: Does the work.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        gr.Markdown(INTRODUCTION)
        answer = gr.State()
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                inputs = _inputs(session.limits)
                run = gr.Button('Make the map', variant='primary', elem_id='run')
            with gr.Column(scale=2):
                status = gr.Markdown('', elem_id='status')
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
                    files = gr.File(label='map, polygons, areas, scores', file_count='multiple', elem_id='files')
        gr.Examples([[str(path), WORDS] for path in example_scenes()], inputs[:2], label='Examples', elem_id='examples')

        def segment(*values, progress=gr.Progress()):  # noqa: B008  (how gradio asks for it)
            with _errors_in_words():
                found = session.segment(Request(*values), lambda done, total: progress((done, total), 'windows'))
            return (
                found,
                map_over_scene(found, FIRST_OPACITY),
                FIRST_OPACITY,
                area_table(found.areas, found.palette),
                score_maps(found),
                found.files,
                _summary(found),
            )

        def compare_parts(*values, progress=gr.Progress()):  # noqa: B008
            with _errors_in_words():
                found = session.compare(Request(*values), lambda done, total: progress((done, total), 'maps'))
            pairs = [_pair(labels, found.palette) for labels in (found.bias_alleviation, found.upsampling)]
            has_both = found.upsampling is not None
            return pairs[0], gr.update(value=pairs[1], visible=has_both), '' if has_both else WITHOUT_UPSAMPLER

        def fade(found: Answer | None, value: float):
            return None if found is None else map_over_scene(found, value)

        run.click(segment, inputs, [answer, picture, opacity, table, scores, files, status], **CONCURRENCY)
        compare.click(compare_parts, inputs, [bias, upsampling, notes], **CONCURRENCY)
        opacity.release(fade, [answer, opacity], picture, show_progress='hidden')
    return page


def launch(page: gr.Blocks, session: Session, host: str, port: int | None, is_opened: bool = False) -> str:
    """Serves a page until it is closed; returns its address at once.

    Args:
        page: Built by :func:`build_page`.
        session: Its session.
        host: Address to listen on.
        port: None for the first free one.
        is_opened: Open the browser.

    Raises:
        ConfigError: The address is taken or not this machine's.
    """
    theme = gr.themes.Default(font=FONT, font_mono=MONO_FONT)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            max_file_size=session.limits.upload_bytes,
            theme=theme,
            css=CSS,
            share=False,
            ssr_mode=False,
            footer_links=[],
            quiet=True,
            show_error=True,
            inbrowser=is_opened,
            prevent_thread_lock=True,
        )
        return url
    except (OSError, ValueError) as error:
        where = f'port {port}' if port else 'the ports from 7860'
        raise ConfigError(f'cannot listen on {host}, {where}: {error}; give another --port or --host') from error


def serve(host: str, port: int | None, limits: Limits, device: str | None, is_opened: bool) -> None:
    """Serves the page until it is interrupted."""
    session = Session(limits, device)
    try:
        page = build_page(session)
        url = launch(page, session, host, port, is_opened)
        logger.info('%s is ready for the browser; Ctrl-C ends it', url)
        page.block_thread()
    finally:
        session.close()


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
def _errors_in_words() -> Iterator[None]:
    """Shows mistakes of the user's as messages on the page; everything else is logged by gradio."""
    try:
        yield
    except (UserError, UpsamplerError) as error:
        raise gr.Error(str(error), duration=None, title='This cannot be done', print_exception=False) from error


def _pair(labels: tuple[np.ndarray, np.ndarray] | None, palette) -> tuple[Image.Image, Image.Image] | None:
    return None if labels is None else tuple(Image.fromarray(class_map(one, palette)) for one in labels)


def _summary(answer: Answer) -> str:
    largest = max(answer.areas, key=lambda row: row.pixels)
    return f'Done: {sum(row.pixels for row in answer.areas)} pixels, most of them {largest.name} ({largest.share:.0%}).'
